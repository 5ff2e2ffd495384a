#!/usr/bin/env bash
# ./quickstart test [--lanes=LIST] [BAZEL OPTIONS] [TARGETS]: runs every test, or the targets given.
#
# A lane is a Bazel configuration: default (all), asan (all, with AddressSanitizer and
# UndefinedBehaviorSanitizer), tsan (the targets of tools/tsan_targets.txt); and two that compilers
# decide, with a case for each target of our sources: threadsafety (clang's check of the locks'
# annotations) and tidy (clang-tidy). Each lane is a Bazel run; the last line counts the cases of all:
# "N passed, N failed".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

lanes=(default)
targets=()
options=()
for argument in "$@"; do
  case "$argument" in
    --lanes=*) IFS=, read -r -a lanes <<<"${argument#*=}" ;;
    -*) options+=("$argument") ;;
    *) targets+=("$argument") ;;
  esac
done
for lane in "${lanes[@]}"; do
  [[ $lane =~ ^(default|asan|tsan|threadsafety|tidy)$ ]] ||
    die "unknown lane '$lane'; lanes are default, asan, tsan, threadsafety, tidy"
done

events=$(mktemp -d)
finish() {
  stop_bazel_if_ours
  rm -rf "$events"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run_lane() {
  local lane=$1 verb=test selected=("${targets[@]}") flags=()
  if [[ $lane == tsan && ${#selected[@]} == 0 ]]; then
    mapfile -t selected < <(grep -Ev '^(#|$)' tools/tsan_targets.txt)
  fi
  # bazel-bin stays the default build.
  if [[ $lane == threadsafety || $lane == tidy ]]; then
    prepare_clang
    verb=build flags=("--config=$lane" --symlink_prefix=/)
    # The locks of mmu/ are the annotated ones; and a file of daemon/ takes clang-tidy half a minute.
    ((${#selected[@]})) || selected=(//mmu/...)
  elif [[ $lane != default ]]; then
    # Tests that read the sources say the same in every lane.
    flags=("--config=$lane" --build_tests_only --test_tag_filters=-source --symlink_prefix=/)
  fi
  ((${#selected[@]})) || selected=(//...)
  bazel_run "$verb" --keep_going "--build_event_json_file=$events/$lane" "${flags[@]}" \
    "${options[@]}" -- "${selected[@]}" || true  # the totals know, and say, what failed
}

prepare
tools/install_npm_packages.sh || true  # the tests that need them fail, and say so
totals=()
for lane in "${lanes[@]}"; do
  say "lane $lane"
  run_lane "$lane"
  totals+=("$lane=$events/$lane")
done
say "results"
python3 tools/test_totals.py "${totals[@]}"
