#!/usr/bin/env bash
# ./quickstart format [--check]: clang-format of every C++ source. --check changes nothing, names
# each file that differs, and exits 1 if there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "" | --check) ;;
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
if [[ ${1:-} == --check ]]; then
  differing=$(clang-format --style=file --dry-run "${files[@]}" 2>&1 |
    sed -n 's/:[0-9]*:[0-9]*: warning: .*/ is not formatted/p' | sort -u)
  [[ -z $differing ]] || {
    echo "$differing" >&2
    exit 1
  }
else
  clang-format --style=file -i "${files[@]}"
fi
echo "${#files[@]} files"
