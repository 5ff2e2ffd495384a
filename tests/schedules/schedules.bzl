"""schedules_test: a test whose engine stops at every atomic step.

What it runs is compiled as for ThreadSanitizer, which calls a function at each access to memory, and
linked without it: hooks.cc has those functions. So no source knows of schedules, and no other build
pays for them. The sanitizers of a lane are taken out, for they do not go together.
"""

def _without_sanitizers(flags):
    return [
        flag
        for flag in flags
        if not flag.startswith("-fsanitize") and not flag.startswith("-fno-sanitize")
    ]

def _instrumented_impl(settings, _attr):
    copts = "//command_line_option:copt"
    linkopts = "//command_line_option:linkopt"
    return {
        copts: _without_sanitizers(settings[copts]) + ["-O1", "-fsanitize=thread", "-Wno-maybe-uninitialized"],
        linkopts: _without_sanitizers(settings[linkopts]),
    }

_instrumented = transition(
    implementation = _instrumented_impl,
    inputs = ["//command_line_option:copt", "//command_line_option:linkopt"],
    outputs = ["//command_line_option:copt", "//command_line_option:linkopt"],
)

def _impl(ctx):
    binary = ctx.attr.binary[0][DefaultInfo]
    program = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = program, target_file = binary.files_to_run.executable)
    return [DefaultInfo(executable = program, runfiles = binary.default_runfiles)]

_schedules_test = rule(
    implementation = _impl,
    attrs = {
        "binary": attr.label(cfg = _instrumented, mandatory = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
    test = True,
)

def schedules_test(name, srcs, deps, **kwargs):
    """A cc_test of `srcs`, instrumented. The cc_test by itself would stop nowhere, so it is manual."""
    native.cc_test(
        name = name + "_binary",
        srcs = srcs,
        tags = ["manual"],
        deps = deps,
    )
    _schedules_test(
        name = name,
        testonly = True,
        binary = ":" + name + "_binary",
        # Says the same in every lane: it takes their sanitizers out.
        tags = ["source"],
        **kwargs
    )
