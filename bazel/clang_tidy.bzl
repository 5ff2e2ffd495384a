"""clang-tidy over the sources of every C++ target that is built with this aspect (lane tidy of
./quickstart test). An action of its own for each source, so that Bazel runs it again only when that
source, a header of ours or .clang-tidy has changed."""

def _check(ctx, source, context):
    done = ctx.actions.declare_file("%s.%s.tidy" % (ctx.rule.attr.name, source.basename))
    flags = ["-std=c++20", "-x", "c++", "-Wall", "-Wextra"]
    flags += ["-D" + define for define in context.defines.to_list() + context.local_defines.to_list()]
    for option, folders in [
        ("-I", context.includes),
        ("-iquote", context.quote_includes),
        ("-isystem", context.system_includes),
    ]:
        for folder in folders.to_list():
            flags += [option, folder]
    # A failure says what is wrong, and nothing else does: the counts of hidden warnings are noise.
    ctx.actions.run_shell(
        outputs = [done],
        inputs = depset([source, ctx.file._config], transitive = [context.headers]),
        arguments = [source.path, done.path] + flags,
        command = """
            source=$1 done=$2
            shift 2
            said=$(clang-tidy-14 --quiet --warnings-as-errors='*' "$source" -- "$@" 2>/dev/null) || {
              echo "$said"
              exit 1
            }
            : >"$done"
        """,
        mnemonic = "ClangTidy",
        progress_message = "clang-tidy %s" % source.short_path,
        use_default_shell_env = True,
    )
    return done

def _ours(attributes, extension):
    return [
        source
        for attribute in attributes
        for source in attribute.files.to_list()
        if source.is_source and source.extension == extension
    ]

def _clang_tidy_impl(target, ctx):
    if CcInfo not in target or not hasattr(ctx.rule.attr, "srcs"):
        return [OutputGroupInfo(clang_tidy = depset())]
    context = target[CcInfo].compilation_context
    sources = _ours(ctx.rule.attr.srcs, "cc")
    if not sources:
        # A header is looked at with those that include it; where nobody here does, by itself.
        sources = _ours(getattr(ctx.rule.attr, "hdrs", []), "h")
    return [OutputGroupInfo(
        clang_tidy = depset([_check(ctx, source, context) for source in sources]),
    )]

clang_tidy = aspect(
    implementation = _clang_tidy_impl,
    attrs = {
        "_config": attr.label(
            default = Label("//:.clang-tidy"),
            allow_single_file = True,
        ),
    },
)
