# Sourced by the scripts of ./quickstart, from the root of the workspace: packages, Bazel, messages.
# shellcheck shell=bash
#
# Bazel's server stays only if it ran before: a script that sources this file leaves nothing behind.

# A bare container may have no HOME; Bazel and the disk cache need one.
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
bazel_binary=${BAZEL:-/usr/bin/bazel}

say() { printf '\n==> %s\n' "$*"; }
die() {
  echo "quickstart: $*" >&2
  exit 1
}

bazel_server_runs() {
  # /proc rather than pgrep: a bare machine has no procps. A process may end while it is looked at.
  local file words
  for file in /proc/[0-9]*/cmdline; do
    { mapfile -d '' -t words <"$file"; } 2>/dev/null || continue
    if [[ "${words[*]} " == *A-server.jar*" --workspace_directory=$PWD "* ]]; then
      return 0
    fi
  done
  return 1
}

stop_bazel_if_ours() {
  if [[ ${bazel_is_ours:-no} == yes ]]; then
    "$bazel_binary" shutdown >/dev/null 2>&1 || true
  fi
}

# Progress for people on a terminal, a line now and then for logs.
bazel_run() {
  local verb=$1
  shift
  local output=()
  [[ -t 2 && ${CI:-} != true ]] ||
    output=(--color=no --curses=no --show_progress_rate_limit=30)
  "$bazel_binary" "$verb" "${output[@]}" "$@" </dev/null
}

# System headers are no inputs that Bazel tracks: the installed versions stand for them.
write_package_key() {
  local key file=.quickstart/packages.bazelrc line
  key=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' |
    grep -E '^installed ([^ ]*-dev|g\+\+[^ ]*|gcc-[0-9]+|binutils|clang-[0-9]+|protobuf-compiler[^ ]*) ' |
    LC_ALL=C sort | sha256sum | cut -c1-16)
  line="build --action_env=TWINROOT_PACKAGES=$key"
  mkdir -p .quickstart
  [[ -f $file && $(<"$file") == "$line" ]] || echo "$line" >"$file"
}

# What nobody used for two weeks goes, and of the rest what was longest unused beyond 40 GB: builds
# under three sanitizers fill a disk in days.
prune_disk_cache() {
  local cache=$HOME/.cache/twinroot/bazel limit=40000000000
  [[ -d $cache ]] || return 0
  find "$cache" -type f -atime +14 -mtime +14 -delete
  find "$cache" -type f -printf '%A@ %s %p\n' | sort -rn |
    awk -v limit=$limit '(kept += $2) > limit { print $3 }' | xargs -r -d '\n' rm -f
}

# Everything that a build needs. After it, bazel_run works.
prepare() {
  tools/install_packages.sh
  [[ -x $bazel_binary ]] || die "$bazel_binary is missing; install the Debian package bazel-bootstrap"
  write_package_key
  prune_disk_cache
  bazel_server_runs || bazel_is_ours=yes
}

# Clang 14 and its tools, for whoever asks for them: a build needs none of it.
prepare_clang() {
  local packages
  mapfile -t packages < <(grep -Ev '^(#|$)' third_party/debian/clang.txt)
  tools/install_packages.sh "${packages[@]}"
  write_package_key
}
