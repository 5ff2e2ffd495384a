#!/usr/bin/env bash
# list.sh [FILTER]: what runs in the rig, from the folder that tools/rig.sh has filled. Says of each
# program how it ended; exits 0 only if all passed.
cd "$(dirname "$0")/../.." || exit 126
filter=${1:-}
export TEST_SRCDIR=${PWD%/*} TEST_WORKSPACE=${PWD##*/} PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1

passed=0 failed=()
check() { # NAME COMMAND...
  local name=$1 begin=$SECONDS
  shift
  [[ $name == *"$filter"* ]] || return 0
  printf '\n== %s\n' "$name"
  if "$@"; then
    passed=$((passed + 1))
    printf '== %s: passed in %s s\n' "$name" $((SECONDS - begin))
  else
    failed+=("$name")
    printf '== %s: FAILED with %s after %s s\n' "$name" $? $((SECONDS - begin))
  fi
}

ulimit -c 0
check machine tests/daemon/vcpu/kvm/kvm_machine_test
check kernels tests/daemon/vcpu/kvm/kernel_boot_test
check guests tests/guests/guest_test
check scenarios tests/scenarios/scenario_test
check linux python3 tests/rig/linux_test.py
for test in conversions guest_memory memory orchestrator quota; do
  check "e2e/$test" python3 "tests/e2e/${test}_test.py"
done
printf '\n%s passed, %s failed%s\n' "$passed" "${#failed[@]}" "${failed:+: ${failed[*]}}"
((passed > 0 && ${#failed[@]} == 0))
