"""A fuzz target, NAME.cc, twice: NAME under a fuzzer, by ./quickstart fuzz; and NAME_test, in every
lane, which gives it the files of its corpus, and random inputs."""

def fuzz_target(name, deps, srcs = [], corpus = None, inputs = None):
    """Makes both.

    Args:
      name: of the target; its source is NAME.cc.
      deps: what it is linked with.
      srcs: further sources.
      corpus: folder below corpus/ with real inputs, if there are any.
      inputs: how many random inputs the test gives it, where an input takes long.
    """
    files = native.glob(["corpus/%s/**" % corpus]) if corpus else []
    native.cc_binary(
        name = name,
        testonly = True,
        srcs = [name + ".cc"] + srcs,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = deps,
    )
    native.cc_test(
        name = name + "_test",
        size = "medium" if inputs else "small",
        srcs = [
            name + ".cc",
            "random_inputs.cc",
        ] + srcs,
        args = ["tests/fuzz/corpus/" + corpus] if corpus else [],
        data = files,
        linkopts = ["-lpthread"],
        local_defines = ["TWINROOT_INPUTS=%d" % inputs] if inputs else [],
        deps = deps + ["//tools:sanitizer_defaults"],
    )
