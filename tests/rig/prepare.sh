#!/usr/bin/env bash
# Prepares the rig, once for each version of these files and of Debian's kernel, in the user's
# cache; prints the folder as its last line. What it does, it says on stderr.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/twinroot/rig

"$here/../../tools/install_packages.sh" $(grep -Ev '^(#|$)' "$here/packages.txt") >&2
# What was prepared is used as it is: no network is needed then.
key=$(cat "$here"/{prepare.sh,kernel.sh,init,guest_init} | sha256sum | cut -c1-16)
ready=$cache/$key
if [[ ! -f $ready/ready ]]; then
  version=$(apt-cache depends linux-headers-6.12-amd64 2>/dev/null |
    sed -n 's/.*Depends: linux-headers-\(6.12.*-amd64\)$/\1/p')
  [[ -n $version ]] || {
    echo "rig: apt knows no linux-headers-6.12-amd64; run apt-get update, or add the source" >&2
    exit 1
  }
  mkdir -p "$cache"
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  "$here/kernel.sh" "$new" "$version" >&2

  initrd() { # FOLDER FILE: packs it
    (cd "$1" && find . | cpio -o -H newc --quiet | gzip -1) >"$2"
  }
  tree=$new/tree
  mkdir -p "$tree"/{bin,dev,proc,sys,host,work}
  cp /bin/busybox "$tree/bin/"
  ln -s busybox "$tree/bin/sh"
  cp "$here/init" "$tree/init"
  mv "$new/modules" "$tree/modules"
  initrd "$tree" "$new/initrd"
  rm -rf "$tree/modules" "$tree/host" "$tree/work"
  cp "$here/guest_init" "$tree/init"
  initrd "$tree" "$new/guest/initrd"
  rm -rf "$tree"
  echo "$version" >"$new/ready"
  # What older versions of these files have left is of no use.
  find "$cache" -mindepth 1 -maxdepth 1 ! -path "$new" -mmin +60 -exec rm -rf {} +
  mv -T "$new" "$ready" 2>/dev/null || [[ -f $ready/ready ]]  # another one was faster
fi
echo "$ready"
