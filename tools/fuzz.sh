#!/usr/bin/env bash
# ./quickstart fuzz [NAME...] [--minutes N]: builds the fuzz targets of tests/fuzz (all, or these)
# with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs one after the other, N
# minutes each (1). What they find stays in .quickstart/fuzz/NAME. Exits 1 if one found something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

mapfile -t all < <(for file in tests/fuzz/*_fuzz.cc; do basename "$file" _fuzz.cc; done)
usage() {
  echo "usage: ./quickstart fuzz [NAME...] [--minutes N]; a NAME is one of: ${all[*]}" >&2
  exit 2
}
names=()
minutes=1
while (($#)); do
  case "$1" in
    --minutes=*) minutes=${1#*=} ;;
    --minutes)
      minutes=${2-}
      (($# == 1)) || shift
      ;;
    *)
      [[ " ${all[*]} " == *" $1 "* ]] || usage
      names+=("$1")
      ;;
  esac
  shift
done
[[ $minutes =~ ^[1-9][0-9]*$ ]] || usage
((${#names[@]})) || names=("${all[@]}")

trap stop_bazel_if_ours EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
prepare
prepare_clang
say "building ${names[*]}"
targets=("${names[@]/#///tests/fuzz:}")
# bazel-bin stays the default build.
bazel_run build --config=fuzz --symlink_prefix=/ "${targets[@]/%/_fuzz}"
bin=$("$bazel_binary" info --config=fuzz bazel-bin 2>/dev/null) ||
  die "bazel does not say where it built"

found=0
table=()
for name in "${names[@]}"; do
  say "$name, $minutes min"
  kept=.quickstart/fuzz/$name
  mkdir -p "$kept/corpus"
  folders=("$kept/corpus")
  options=(-max_total_time=$((60 * minutes)) -print_final_stats=1 -timeout=25 -rss_limit_mb=2048
    -artifact_prefix="$kept/")
  [[ ! -d tests/fuzz/corpus/$name ]] || folders+=("tests/fuzz/corpus/$name")
  [[ ! -f tests/fuzz/dictionaries/$name ]] || options+=(-dict="tests/fuzz/dictionaries/$name")
  begin=$SECONDS
  state=clean
  # Its own lines are many: what it found, and now and then how far it is.
  "$bin/tests/fuzz/${name}_fuzz" "${options[@]}" "${folders[@]}" >"$kept/log" 2>&1 &
  fuzzer=$!
  trap 'kill "$fuzzer" 2>/dev/null || true; stop_bazel_if_ours' EXIT
  while kill -0 "$fuzzer" 2>/dev/null; do
    sleep 1
    (((SECONDS - begin) % 20)) || tail -n 1 "$kept/log" | cut -c 1-100
  done
  if ! wait "$fuzzer"; then
    state="FOUND SOMETHING"
    found=1
    grep -E -A 12 'ERROR|does not hold|runtime error|Test unit written' "$kept/log" | head -n 60 || true
    echo "the whole log: $kept/log; the input: the file that it names"
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$kept/log")
  table+=("$(printf '%-14s %12s executions %6s s  %s' "$name" "${runs:-?}" $((SECONDS - begin)) "$state")")
done
say "results"
printf '%s\n' "${table[@]}"
exit "$found"
