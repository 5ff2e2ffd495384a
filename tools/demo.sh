#!/usr/bin/env bash
# ./quickstart demo: builds hvd and hvctl, runs one confidential VM on a private daemon, shows its
# conversions as they happen, and leaves nothing behind. Exits 0 only if every step did. Arguments
# go to hvd: `./quickstart demo --backend sim` shows what a host without KVM shows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/workspace.sh
. tools/workspace.sh

readonly vm=demo program=tests/scenarios/programs/demo.textproto
runtime=
daemon_pid=
watcher_pid=

# Ends a process that we started, politely first.
stop() {
  local pid=$1 signal=$2
  kill "-$signal" "$pid" 2>/dev/null || return 0
  for _ in {1..100}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

cleanup() {
  local status=$?
  trap - EXIT INT TERM
  [[ -z $watcher_pid ]] || stop "$watcher_pid" TERM
  [[ -z $daemon_pid ]] || stop "$daemon_pid" TERM
  if [[ -n $runtime ]]; then
    if ((status != 0)) && [[ -s $runtime/hvd.log ]]; then
      echo "The last lines of hvd's log:" >&2
      tail -n 20 "$runtime/hvd.log" >&2
    fi
    rm -rf "$runtime"
  fi
  stop_bazel_if_ours
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Shows the command that a person would type, then runs it.
run() {
  printf '$ %s\n' "$*"
  "$@"
}

# One value of hvctl's JSON on stdin: the path of keys is in the arguments.
json() {
  python3 -c '
import functools, json, sys
print(functools.reduce(lambda value, key: value[key], sys.argv[1:], json.load(sys.stdin)))' "$@"
}

fetch() {
  if command -v curl >/dev/null; then
    curl -fsS "$1"
  else
    python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "$1"
  fi
}

prepare
say "building hvd, hvctl and the guest"
bazel_run build //daemon:hvd //cli:hvctl //tests/guests:convert
bin=$("$bazel_binary" info bazel-bin 2>/dev/null) || die "bazel does not say where it built"
image=$bin/tests/guests/convert.elf

# A short path: a socket's name has at most 107 bytes.
runtime=$(mktemp -d /tmp/twinroot-demo.XXXXXX)
export HVCTL_ENDPOINT=unix:$runtime/hvd.sock PATH="$bin/daemon:$bin/cli:$PATH"

say "starting a private daemon (no configuration; its log is in $runtime/hvd.log)"
printf '$ hvd --socket %s/hvd.sock --state-dir %s/state --metrics-address 127.0.0.1:0 %s&\n' \
  "$runtime" "$runtime" "${*:+$* }"
hvd --socket "$runtime/hvd.sock" --state-dir "$runtime/state" --metrics-address 127.0.0.1:0 "$@" \
  >"$runtime/hvd.log" 2>&1 &
daemon_pid=$!
echo "\$ export HVCTL_ENDPOINT=$HVCTL_ENDPOINT"
for _ in {1..100}; do
  ! host=$(hvctl host show -o json 2>/dev/null) || break
  kill -0 "$daemon_pid" 2>/dev/null || die "hvd ended while starting"
  sleep 0.1
done
[[ -n $host ]] || die "hvd did not answer within 10 seconds"
run hvctl host show
metrics=$(json metricsAddress <<<"$host")
if [[ $(json defaultBackend <<<"$host") == SIM ]]; then
  echo
  echo "There is no KVM to use ($(json defaultBackendReason <<<"$host"))"
  echo "so the VM runs the access program $program on the software processor (sim)"
  echo "instead of the guest image."
fi

say "creating a confidential VM: all of its memory starts private"
run hvctl vm create "$vm" --memory 64MiB --vcpus 1 --image "$image" --program "$program"
cursor=$(hvctl events --vm "$vm" -o json | tail -n 1 | json cursor)

say "running it; every conversion exit comes over gRPC as it happens"
echo "\$ hvctl events --follow --vm $vm &"
# From the cursor on: nothing is missed, however late the watcher connects.
hvctl events --follow --vm "$vm" --since "$cursor" > >(sed -u 's/^/  | /' | tee "$runtime/events") &
watcher_pid=$!
run hvctl vm start "$vm"
code=0
run hvctl vm wait "$vm" --timeout 60s || code=$?
for _ in {1..50}; do
  ! grep -q STOPPED "$runtime/events" || break
  sleep 0.1
done
stop "$watcher_pid" TERM
wait "$watcher_pid" 2>/dev/null || true
watcher_pid=
echo "the guest's exit code: $code"

say "the guest's console"
run hvctl vm console "$vm"
((code == 0)) || die "the guest did not exit 0"

say "its memory now"
run hvctl memory get "$vm"

say "metrics at http://$metrics/metrics"
echo "\$ curl -s http://$metrics/metrics | grep '^twinroot_conver.*vm='"
fetch "http://$metrics/metrics" >"$runtime/metrics"
grep '^twinroot_conver.*vm=' "$runtime/metrics" || die "the metrics show no conversion"
hvctl events --vm "$vm" -o json >"$runtime/events.json"
python3 - "$runtime" "$vm" <<'PYTHON' || die "the metrics do not agree with the events"
import json, re, sys

folder, vm = sys.argv[1:]
events = sum("conversion" in json.loads(line) for line in open(f"{folder}/events.json"))
series = re.compile(r'twinroot_conversions_total\{[^}]*\bvm="%s"[^}]*\} (\S+)' % re.escape(vm))
counted = sum(float(match[1]) for match in map(series.match, open(f"{folder}/metrics")) if match)
print(f"{events} conversion events, {counted:.0f} conversions in the metrics")
sys.exit(events == 0 or events != counted)
PYTHON

say "stopping"
run hvctl vm delete "$vm" --yes
echo "\$ kill -TERM $daemon_pid"
kill -TERM "$daemon_pid"
code=0
wait "$daemon_pid" || code=$?
daemon_pid=
((code == 0)) || die "hvd ended with exit code $code"
echo "hvd stopped cleanly"
