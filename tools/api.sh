#!/usr/bin/env bash
# ./quickstart lint-api: the rules of proto/buf.yaml, and that nothing which proto/twinroot/v1/api.binpb
# knows was removed or changed. ./quickstart renew-api: writes that file from the proto files as they
# are: with a release, so that what it adds is kept from then on; or to break the API on purpose.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/install_npm_packages.sh
buf=$PWD/.quickstart/npm/node_modules/@bufbuild/buf-linux-x64/bin/buf
[[ -x $buf ]] || exit 1  # why was said
cd proto
case "$1" in
  lint)
    "$buf" lint
    "$buf" breaking --against twinroot/v1/api.binpb
    ;;
  renew) "$buf" build --exclude-source-info -o twinroot/v1/api.binpb ;;
esac
