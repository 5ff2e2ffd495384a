#!/usr/bin/env bash
# Installs what third_party/npm/package-lock.json names into a cache that all checkouts share, and
# links it to .quickstart/npm. Says nothing and needs no network when all is there.
#
# Where Node.js or the registry cannot be had, .quickstart/npm-unavailable says why: the tests that
# need them skip themselves with that sentence. Any other failure is one (exit 1), and theirs too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly source=third_party/npm link=.quickstart/npm excuse=.quickstart/npm-unavailable
key=$(cat "$source/package.json" "$source/package-lock.json" | sha256sum | cut -c1-16)
home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
target=$home/.cache/twinroot/npm/$key

unavailable() {
  echo "$*" >"$excuse"
  printf 'install-npm-packages: %s\nThe tests that need them will be skipped.\n' "$*" >&2
  exit 0
}

mkdir -p .quickstart
rm -f "$excuse" "$link"
if [[ ! -d $target ]]; then
  # A node from elsewhere brings its own npm, so commands are looked for, not packages.
  wanted=()
  command -v node >/dev/null || wanted+=(nodejs)
  command -v npm >/dev/null || wanted+=(npm)
  ((${#wanted[@]} == 0)) || tools/install_packages.sh "${wanted[@]}" ||
    unavailable "Debian's ${wanted[*]} could not be installed"

  printf '\n==> installing the npm packages of %s (100 MB)\n' "$source"
  mkdir -p "${target%/*}"
  staging=$(mktemp -d "$target.XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$staging"
  # No package's own script runs: ours need none.
  if ! npm ci --prefix "$staging" --ignore-scripts --no-audit --no-fund --no-update-notifier \
    --fetch-retries=1 --fetch-retry-mintimeout=1000 </dev/null >"$staging/log" 2>&1; then
    cat "$staging/log" >&2
    if grep -Eq 'code (EAI_AGAIN|ECONN[A-Z]+|ENOTFOUND|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT|E50[0-9])' \
      "$staging/log"; then
      unavailable "the npm registry cannot be reached"
    fi
    echo "install-npm-packages: npm could not install $source; see above" >&2
    exit 1
  fi
  # Whoever comes second finds the first one's.
  mv -T "$staging" "$target" 2>/dev/null || [[ -d $target ]]
fi
ln -sfn "$target" "$link"
