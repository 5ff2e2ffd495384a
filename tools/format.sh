#!/usr/bin/env bash
# ./quickstart format [--check]: clang-format of every C++ source. --check changes nothing, prints
# each place that differs, and exits 1 if there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arguments=(-i)
case "${1:-}" in
  "") ;;
  --check) arguments=(--dry-run -Werror) ;;
  *)
    echo "usage: ./quickstart format [--check]" >&2
    exit 2
    ;;
esac
command -v clang-format >/dev/null || {
  echo "clang-format is missing; run ./quickstart install-packages" >&2
  exit 1
}
folders=()
for folder in mmu daemon cli tools tests; do
  [[ ! -d $folder ]] || folders+=("$folder")
done
mapfile -d '' files < <(find "${folders[@]}" -type f \( -name '*.cc' -o -name '*.h' \) -print0)
((${#files[@]})) || {
  echo "no C++ sources under: ${folders[*]}" >&2
  exit 1
}
clang-format --style=file "${arguments[@]}" "${files[@]}"
echo "${#files[@]} files"
