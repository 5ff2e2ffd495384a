"""cc_grpc_library: the C++ gRPC stubs of a proto_library.

protoc and the plugin are named by label, so the same rule works with Debian's
executables and with ones built from source.
"""

# Generated stubs lie in this folder of the package, which is on the include path.
_FOLDER = "_grpc"

def _import_name(source, info):
    root = info.proto_source_root
    if root != "." and source.path.startswith(root + "/"):
        return source.path[len(root) + 1:]
    return source.short_path

def _grpc_sources_impl(ctx):
    info = ctx.attr.proto[ProtoInfo]
    outputs = []
    for source in info.direct_sources:
        # The name by which other files import it: "twinroot/v1/vm.proto".
        base = _import_name(source, info)[:-len(".proto")]
        for suffix in [".grpc.pb.h", ".grpc.pb.cc"] + ([
            "_mock.grpc.pb.h",
        ] if ctx.attr.generate_mocks else []):
            outputs.append(ctx.actions.declare_file(_FOLDER + "/" + base + suffix))

    arguments = ctx.actions.args()
    arguments.add("--plugin=protoc-gen-grpc=%s" % ctx.executable._plugin.path)
    arguments.add("--grpc_out=%s%s" % (
        "generate_mock_code=true:" if ctx.attr.generate_mocks else "",
        "/".join([ctx.bin_dir.path, ctx.label.package, _FOLDER]),
    ))
    arguments.add_all(info.transitive_proto_path, format_each = "-I%s")
    arguments.add("-I" + ctx.genfiles_dir.path)
    arguments.add_all(info.direct_sources)
    ctx.actions.run(
        executable = ctx.executable._protoc,
        arguments = [arguments],
        inputs = info.transitive_sources,
        tools = [ctx.executable._plugin],
        outputs = outputs,
        mnemonic = "GrpcCc",
        progress_message = "Generating gRPC C++ code for %s" % ctx.label,
    )
    headers = [f for f in outputs if f.extension == "h"]
    return [
        DefaultInfo(files = depset(outputs)),
        OutputGroupInfo(hdrs = depset(headers), srcs = depset([f for f in outputs if f.extension == "cc"])),
    ]

_grpc_sources = rule(
    implementation = _grpc_sources_impl,
    attrs = {
        "generate_mocks": attr.bool(default = False),
        "proto": attr.label(mandatory = True, providers = [ProtoInfo]),
        "_plugin": attr.label(
            default = "@com_github_grpc_grpc//src/compiler:grpc_cpp_plugin",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
        "_protoc": attr.label(
            default = "@com_google_protobuf//:protoc",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
    },
)

def cc_grpc_library(name, proto, deps, generate_mocks = False, **kwargs):
    """Builds the gRPC stubs.

    Args:
      name: the cc_library to make.
      proto: the proto_library that holds the services.
      deps: the cc_proto_library of `proto`.
      generate_mocks: also make <name>_mock.grpc.pb.h.
      **kwargs: given to the cc_library.
    """
    _grpc_sources(
        name = name + "_sources",
        proto = proto,
        generate_mocks = generate_mocks,
        tags = ["manual"],
        visibility = ["//visibility:private"],
    )
    native.filegroup(name = name + "_hdrs", srcs = [name + "_sources"], output_group = "hdrs", tags = ["manual"])
    native.filegroup(name = name + "_srcs", srcs = [name + "_sources"], output_group = "srcs", tags = ["manual"])
    native.cc_library(
        name = name,
        srcs = [name + "_srcs"],
        hdrs = [name + "_hdrs"],
        includes = [_FOLDER],
        deps = deps + ["@com_github_grpc_grpc//:grpc++"],
        **kwargs
    )
