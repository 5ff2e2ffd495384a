#!/usr/bin/env bash
# ./quickstart package [FOLDER]: builds hvd and hvctl, optimized, and makes the Debian package of
# them and of all that belongs to them (deploy/install/manifest.txt).
# ./quickstart install [--package FILE] [--destdir ROOT]: makes it, or takes the one that was made, and
# has dpkg install it; on this system, or in ROOT.
# ./quickstart uninstall [--purge] [--destdir ROOT]: removes it; --purge also configuration and state.
#
# dpkg knows every file, keeps a configuration that was changed, and puts back what was there when a
# step fails. Everything may be repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

usage() {
  cat >&2 <<'TEXT'
usage: ./quickstart package [FOLDER]
       ./quickstart install [--package FILE] [--destdir ROOT]
       ./quickstart uninstall [--purge] [--destdir ROOT]
TEXT
  exit 2
}

work=
finish() {
  stop_bazel_if_ours
  [[ -z $work ]] || rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

as_root() {
  if ((EUID == 0)); then
    "$@"
  else
    command -v sudo >/dev/null || die "run as root, or install sudo"
    sudo "$@"
  fi
}

# make_package FOLDER: the package goes there; its path is in $package.
make_package() {
  prepare
  say "building hvd, hvctl, their manual and completions"
  local options=(--config=release --symlink_prefix=/)  # bazel-bin stays the default build
  bazel_run build "${options[@]}" //deploy/install:built
  local bin
  bin=$("$bazel_binary" info "${options[@]}" bazel-bin 2>/dev/null) ||
    die "bazel does not say where it built"
  say "making the package"
  package=$(python3 tools/package.py "$bin" "$1")
}

# dpkg for another root: with a database of its own there, and scripts that run here for it. What it
# says is shown when it fails; that libraries are missing there is no failure.
dpkg_in() {
  local root=$1
  shift
  mkdir -p "$root/var/lib/dpkg/"{info,updates}
  [[ -e $root/var/lib/dpkg/status ]] || : >"$root/var/lib/dpkg/status"
  local log
  log=$(mktemp)
  PATH=$PATH:/usr/sbin:/sbin dpkg --root="$root" --log=/dev/null --path-include='/*' \
    --force-depends,script-chrootless,not-root,confdef,confold "$@" &>"$log" || {
    local status=$?
    cat "$log" >&2
    rm "$log"
    return $status
  }
  grep '^twinroot: ' "$log" || true
  rm "$log"
}

verb=$1
shift
root=
purge=
folder=
package=
while (($#)); do
  case "$verb:$1" in
    install:--destdir | uninstall:--destdir)
      (($# > 1)) || usage
      root=$2
      shift
      ;;
    install:--destdir=?* | uninstall:--destdir=?*) root=${1#*=} ;;
    install:--package)
      (($# > 1)) || usage
      package=$2
      shift
      ;;
    uninstall:--purge) purge=yes ;;
    package:-* | install:* | uninstall:*) usage ;;
    package:*)
      [[ -z $folder ]] || usage
      folder=$1
      ;;
  esac
  shift
done

case "$verb" in
  package)
    folder=${folder:-.}
    [[ -d $folder ]] || die "there is no folder $folder"
    make_package "$folder"
    say "$package"
    echo "Install it, here or on another Debian 12 machine: apt-get install ./${package##*/}"
    ;;
  install)
    if [[ -n $root ]]; then
      mkdir -p "$root"
      root=$(realpath "$root")
    fi
    # Not in a folder of the user's alone: apt reads it as a user of its own.
    work=$(mktemp -d /tmp/twinroot-install.XXXXXX)
    chmod 755 "$work"
    if [[ -z $package ]]; then
      make_package "$work"
    else
      [[ -f $package ]] || die "there is no package $package"
      cp "$package" "$work"
      package=$work/${package##*/}
    fi
    if [[ -n $root ]]; then
      say "installing in $root"
      dpkg_in "$root" --install "$package"
    else
      say "installing"
      as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
        apt-get install -q --yes --no-install-recommends --reinstall --allow-downgrades \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "$package" </dev/null ||
        die "apt-get did not install it; correct what it says, then run ./quickstart install again"
    fi
    echo "twinroot is installed; \`./quickstart uninstall\` removes it"
    ;;
  uninstall)
    action=--remove
    [[ -z $purge ]] || action=--purge
    if [[ -n $root ]]; then
      [[ -d $root ]] || die "there is no folder $root"
      root=$(realpath "$root")
      status=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Status}' twinroot \
        2>/dev/null) || status=not-installed
    else
      status=$(dpkg-query -W -f '${db:Status-Status}' twinroot 2>/dev/null) || status=not-installed
    fi
    if [[ $status == not-installed || ($status == config-files && -z $purge) ]]; then
      echo "twinroot is not installed${root:+ in $root}"
      exit 0
    fi
    if [[ -n $root ]]; then
      dpkg_in "$root" "$action" twinroot
    else
      as_root dpkg "$action" twinroot
    fi
    if [[ -n $purge ]]; then
      echo "twinroot is removed, with its configuration and state"
    else
      echo "twinroot is removed; /etc/twinroot/hvd.yaml and /var/lib/twinroot are kept:" \
        "\`./quickstart uninstall --purge\` removes them, too"
    fi
    ;;
  *) usage ;;
esac
