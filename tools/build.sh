#!/usr/bin/env bash
# ./quickstart build [BAZEL OPTIONS] [TARGETS]: builds //... unless targets are given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

trap stop_bazel_if_ours EXIT
prepare
targets=(//...)
for argument in "$@"; do
  [[ $argument == -* ]] || targets=()
done
bazel_run build "$@" "${targets[@]}"
