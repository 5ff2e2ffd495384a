#!/usr/bin/env bash
# ./quickstart bare-test [OPTIONS]: makes a bare Debian 12 (debootstrap), boots it in namespaces of
# its own, copies this checkout into it, and follows README.md and docs/operator.md line by line: every
# block marked "run" or "run on a bare machine". Needs root and a Debian mirror in apt's
# sources; installs debootstrap. Seen to take a quarter of an hour on two busy cores with
# --share-builds, and three minutes without `./quickstart test`; from nothing it builds everything
# twice, and the tests besides.
#
#   --document FILE   follow this one; may be repeated. Default: README.md docs/operator.md
#   --leave-out WORDS leave out lines that begin so, and say it; may be repeated
#   --share-builds    the machine's builds use this user's build cache, too: the second run is short
#   --keep            do not remove the machine's folder, and say where it is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh
# shellcheck source=tests/install/machine.sh
. tests/install/machine.sh

documents=()
left_out=()
share=
keep=
while (($#)); do
  case "$1" in
    --document | --leave-out)
      (($# > 1)) || die "$1 needs a word"
      if [[ $1 == --document ]]; then documents+=("$2"); else left_out+=("$2"); fi
      shift
      ;;
    --share-builds) share=yes ;;
    --keep) keep=yes ;;
    *)
      sed -n '2,/^set/s/^# \{0,1\}//p' "tests/install/${BASH_SOURCE[0]##*/}" >&2
      exit 2
      ;;
  esac
  shift
done
((${#documents[@]})) || documents=(README.md docs/operator.md)
((EUID == 0)) || die "bare-test makes and boots another system: run it as root"
tools/install_packages.sh debootstrap

work=$(mktemp -d /tmp/twinroot-bare.XXXXXX)
root=$work/root
finish() {
  local status=$?
  trap - EXIT INT TERM
  power_off
  if [[ -n $keep ]]; then
    echo "the machine's files are in $root"
  else
    rm -rf --one-file-system "$work"
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "making a bare Debian 12"
make_root "$root"
say "copying the checkout"
mkdir "$root/root/twinroot"
{ git ls-files -z --cached --others --exclude-standard 2>/dev/null ||
  find . -type f -not -path './bazel-*' -not -path './.*/*' -print0; } |
  tar --null --ignore-failed-read -cf - -T - | tar -C "$root/root/twinroot" -xf -
say "booting it"
cache=
if [[ -n $share ]]; then
  cache=$HOME/.cache/twinroot/bazel
  mkdir -p "$cache"
fi
boot "$root" "$cache"

# Exits with the status of the document's script.
follow() {
  local document=$1 script line code=0 refused
  script=$(python3 tests/docs/commands.py "$document")
  for line in "${left_out[@]}"; do
    script=$(awk -v line="$line" 'index($0, line) == 1 { print "echo \"LEFT OUT, as you said: " line "\""; next } 1' \
      <<<"$script")
  done
  say "following $document ($(wc -l <<<"$script") lines)"
  in_machine bash -c "$script" </dev/null 2>&1 | tee "$work/output" || code=$?
  # What must be refused is shown so: `command || echo "refused: exit code $?"`.
  refused='refused: exit code'
  if ((code == 0)) && [[ $(grep -c "$refused" "$work/output") != $(grep -c "$refused" <<<"$script") ]]; then
    echo "a command that must be refused was not" >&2
    code=1
  fi
  return $code
}

failed=0
for document in "${documents[@]}"; do
  if follow "$document"; then
    echo "passed: $document"
  else
    say "what the machine's journal says last"
    in_machine journalctl --no-pager --priority=notice --lines=30 || true
    echo "FAILED: $document" >&2
    failed=$((failed + 1))
  fi
done
say "$((${#documents[@]} - failed)) passed, $failed failed"
((failed == 0))
