#!/usr/bin/env bash
# list.sh [FILTER]: what runs in the rig, from the folder that tools/rig.sh has filled. Says of each
# program how it ended; exits 0 only if all passed.
cd "$(dirname "$0")/../.." || exit 126
filter=${1:-}
export TEST_SRCDIR=${PWD%/*} TEST_WORKSPACE=${PWD##*/} PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1

passed=0 failed=()
check() { # NAME COMMAND...
  local name=$1 begin=$SECONDS status
  shift
  [[ $name == *"$filter"* ]] || return 0
  printf '\n== %s\n' "$name"
  "$@"
  status=$?
  if ((status == 0)); then
    passed=$((passed + 1))
    printf '== %s: passed in %s s\n' "$name" $((SECONDS - begin))
  else
    failed+=("$name")
    printf '== %s: FAILED with %s after %s s\n' "$name" "$status" $((SECONDS - begin))
  fi
}

ulimit -c 0
export TWINROOT_PATIENCE=900  # an emulated processor, on a host that may be busy
check machine tests/daemon/vcpu/kvm/kvm_machine_test
check kernels tests/daemon/vcpu/kvm/kernel_boot_test
# 64 VMs at once are too many for an emulated processor.
check guests tests/guests/guest_test --gtest_filter='-*SixtyFour*'
check conformance tests/conformance/kvm_conformance_test --gtest_filter='*real*'
check projection tests/daemon/vcpu/kvm/projection_test
check fault_ways tests/daemon/vcpu/kvm/fault_ways_facts_test
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
for test in cpu_groups cpu_share; do
  check "$test" "tests/daemon/host/${test}_test"
done
# As systemd has a service: in a group of its own, which is no root.
service() {
  mkdir -p /sys/fs/cgroup/service && echo 0 >/sys/fs/cgroup/service/cgroup.procs && exec "$@"
}
check cpu_groups/service bash -c "$(declare -f service); service tests/daemon/host/cpu_groups_test"
check scenarios/kvm tests/scenarios/scenario_test --gtest_filter='*_on_kvm'
check scenarios/kvm-native tests/scenarios/scenario_test --gtest_filter='*_on_kvm_native'
for class in Boot Running NativeBoot NativeRunning Typing; do
  check "linux/$class" python3 tests/rig/linux_test.py "$class"
done
for test in conversions guest_memory memory orchestrator quota; do
  check "e2e/$test" python3 "tests/e2e/${test}_test.py"
done
printf '\n%s passed, %s failed%s\n' "$passed" "${#failed[@]}" "${failed:+: ${failed[*]}}"
((passed > 0 && ${#failed[@]} == 0))
