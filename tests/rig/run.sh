#!/usr/bin/env bash
# run.sh RIG WORK COMMAND: runs a bash command in the emulated machine and exits with its status.
# The host's file system is there read-only; WORK (below /tmp or /run) alone can be written.
# RIG_SECONDS, RIG_MEMORY (MiB), RIG_CPUS, RIG_APPEND (kernel command line) change the machine.
set -euo pipefail
rig=$1
work=$(realpath "$2")
mkdir -p "$work/.rig"
echo "$work" >"$work/.rig/path"
printf 'cd %q || exit 126\n%s\n' "$work" "$3" >"$work/.rig/command"
rm -f "$work/.rig/status"
timeout "${RIG_SECONDS:-600}" qemu-system-x86_64 -machine q35 -accel tcg -cpu max \
  -m "${RIG_MEMORY:-2560}" -smp "${RIG_CPUS:-2}" -nodefaults -display none -no-reboot -serial stdio \
  -kernel "$rig/vmlinuz" -initrd "$rig/initrd" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off ${RIG_APPEND:-}" \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
  -virtfs "local,path=$work,mount_tag=work,security_model=none,multidevs=remap" </dev/null ||
  echo "rig: the machine ended with $? (124: not done within ${RIG_SECONDS:-600} s)" >&2
exit "$(cat "$work/.rig/status" 2>/dev/null || echo 125)"
