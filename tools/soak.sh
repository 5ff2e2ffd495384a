#!/usr/bin/env bash
# ./quickstart soak [--minutes N] [--vms N] [--busy N] [--seed N]: builds hvd, optimized, and soaks
# it. The exit status says whether everything held.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

trap stop_bazel_if_ours EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
prepare
# bazel-bin stays the default build.
bazel_run run --symlink_prefix=/ -c opt //tests/soak -- "$@"
