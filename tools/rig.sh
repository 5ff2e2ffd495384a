#!/usr/bin/env bash
# ./quickstart rig [COMMAND]: prepares the emulated machine of tests/rig (once), builds what runs in
# it, and runs tests/rig/list.sh there, or a shell command, with hvd and hvctl on its PATH. The exit
# status is the command's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

work=
finish() {
  [[ -z $work ]] || rm -rf "$work"
  stop_bazel_if_ours
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

prepare
say "preparing the rig"
rig=$(tests/rig/prepare.sh)
say "building what runs in it"
bazel_run build //tests/rig:list
bin=$("$bazel_binary" info bazel-bin 2>/dev/null) || die "bazel does not say where it built"
# The machine sees the host read-only, and of /tmp only this folder.
work=$(mktemp -d /tmp/twinroot-rig.XXXXXX)
cp -rL "$bin/tests/rig/list.runfiles/." "$work"
tree=$(basename "$(dirname "$(dirname "$(dirname "$(ls -d "$work"/*/tests/rig/list.sh)")")")")
cp -r "$rig/guest" "$work/guest"
say "running in the rig"
tests/rig/run.sh "$rig" "$work" "
  cd $tree
  export PATH=\$PWD/daemon:\$PWD/cli:\$PATH RIG_GUEST=$work/guest
  ${*:-tests/rig/list.sh}"
