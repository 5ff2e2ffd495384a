#!/usr/bin/env bash
# ./quickstart compile-commands: compile_commands.json for editors, clangd and clang-tidy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

trap stop_bazel_if_ours EXIT
prepare
# The generated headers must exist before a tool can read the sources that include them.
bazel_run build //proto/...
BAZEL=$bazel_binary python3 tools/compile_commands.py "$@"
