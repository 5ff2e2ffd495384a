"""Third-party libraries taken from Debian's -dev packages.

Each repository carries the name and the labels that the library's own Bazel
files use, so BUILD files do not know where the library comes from.
"""

def _check_packages(ctx):
    for package in ctx.attr.packages:
        result = ctx.execute(["dpkg-query", "-W", "-f", "${db:Status-Status}", package])
        if result.return_code != 0 or result.stdout != "installed":
            fail("Debian package '%s' is not installed; run ./quickstart install-packages" % package)

def _pkg_config_libs(ctx, module):
    result = ctx.execute(["pkg-config", "--libs-only-l", module])
    if result.return_code != 0:
        fail("pkg-config %s: %s" % (module, result.stderr))
    seen = {}
    for flag in result.stdout.split(" "):
        flag = flag.strip()
        if flag.startswith("-l"):
            seen[flag] = True
    return seen.keys()

def _debian_repository_impl(ctx):
    _check_packages(ctx)
    ctx.file("WORKSPACE", "workspace(name = %r)\n" % ctx.name)
    ctx.symlink(ctx.attr.build_file, "BUILD.bazel")
    for target, link in ctx.attr.links.items():
        ctx.symlink(target, link)
    for path, text in ctx.attr.files.items():
        ctx.file(path, text)

debian_repository = repository_rule(
    implementation = _debian_repository_impl,
    attrs = {
        "build_file": attr.label(mandatory = True, allow_single_file = True),
        "files": attr.string_dict(),
        "links": attr.string_dict(),
        "packages": attr.string_list(mandatory = True),
    },
    local = True,
)

def _debian_absl_impl(ctx):
    _check_packages(ctx)
    ctx.file("WORKSPACE", "workspace(name = %r)\n" % ctx.name)
    for package, targets in ctx.attr.targets.items():
        lines = ["package(default_visibility = [\"//visibility:public\"])", ""]
        for entry in targets:
            target, _, module = entry.partition("=")
            libs = _pkg_config_libs(ctx, module or "absl_" + target)
            lines += [
                "cc_library(",
                "    name = %r," % target,
                "    linkopts = %r," % (["-Wl,--push-state,--as-needed"] + libs + ["-Wl,--pop-state"]),
                ")",
                "",
            ]
        ctx.file(package + "/BUILD.bazel", "\n".join(lines))

debian_absl = repository_rule(
    implementation = _debian_absl_impl,
    attrs = {
        "packages": attr.string_list(mandatory = True),
        # Bazel package -> targets ("target" or "target=pkg-config module").
        "targets": attr.string_list_dict(mandatory = True),
    },
    local = True,
)

_HERE = "//third_party/debian:"

def debian_repositories():
    """Declares every third-party repository of the project."""
    debian_absl(
        name = "com_google_absl",
        packages = ["libabsl-dev", "pkg-config"],
        targets = {
            "absl/container": ["btree", "flat_hash_map", "flat_hash_set"],
            "absl/cleanup": ["cleanup"],
            "absl/functional": ["any_invocable", "function_ref"],
            "absl/flags": ["flag=absl_flags", "parse=absl_flags_parse", "usage=absl_flags_usage"],
            "absl/status": ["status", "statusor"],
            "absl/random": ["random=absl_random_random"],
            "absl/strings": ["cord", "str_format", "strings"],
            "absl/synchronization": ["synchronization"],
            "absl/time": ["time"],
            "absl/types": ["span"],
        },
    )
    debian_repository(
        name = "com_google_protobuf",
        build_file = _HERE + "protobuf.BUILD",
        links = {
            "/usr/bin/protoc": "protoc",
            "/usr/include/google/protobuf": "src/google/protobuf",
        },
        packages = ["libprotobuf-dev", "protobuf-compiler"],
    )
    debian_repository(
        name = "com_github_grpc_grpc",
        build_file = _HERE + "grpc.BUILD",
        files = {"src/compiler/BUILD.bazel": "exports_files([\"grpc_cpp_plugin\"])\n"},
        links = {"/usr/bin/grpc_cpp_plugin": "src/compiler/grpc_cpp_plugin"},
        packages = ["libgrpc++-dev", "libgrpc-dev", "protobuf-compiler-grpc"],
    )
    debian_repository(
        name = "com_github_gabime_spdlog",
        build_file = _HERE + "spdlog.BUILD",
        packages = ["libspdlog-dev", "libfmt-dev"],
    )
    debian_repository(
        name = "com_github_jupp0r_prometheus_cpp",
        build_file = _HERE + "prometheus_cpp.BUILD",
        files = {
            "core/BUILD.bazel": "alias(name = \"core\", actual = \"//:core\", visibility = [\"//visibility:public\"])\n",
            "pull/BUILD.bazel": "alias(name = \"pull\", actual = \"//:pull\", visibility = [\"//visibility:public\"])\n",
        },
        packages = ["prometheus-cpp-dev"],
    )
    debian_repository(
        name = "com_google_googletest",
        build_file = _HERE + "googletest.BUILD",
        packages = ["libgtest-dev", "libgmock-dev"],
    )
    debian_repository(
        name = "com_github_google_benchmark",
        build_file = _HERE + "benchmark.BUILD",
        packages = ["libbenchmark-dev"],
    )
    debian_repository(
        name = "com_github_cliutils_cli11",
        build_file = _HERE + "cli11.BUILD",
        packages = ["libcli11-dev"],
    )
    debian_repository(
        name = "com_github_jbeder_yaml_cpp",
        build_file = _HERE + "yaml_cpp.BUILD",
        packages = ["libyaml-cpp-dev"],
    )
    debian_repository(
        name = "org_sqlite",
        build_file = _HERE + "sqlite.BUILD",
        packages = ["libsqlite3-dev"],
    )
    debian_repository(
        name = "systemd",
        build_file = _HERE + "systemd.BUILD",
        packages = ["libsystemd-dev"],
    )
    debian_repository(
        name = "org_liburcu",
        build_file = _HERE + "liburcu.BUILD",
        packages = ["liburcu-dev"],
    )
    debian_repository(
        name = "org_openssl",
        build_file = _HERE + "openssl.BUILD",
        packages = ["libssl-dev"],
    )
