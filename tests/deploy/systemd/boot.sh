#!/usr/bin/env bash
# boot.sh FOLDER HVD HVCTL UNITS: becomes systemd as process 1 of a machine of its own, on a copy of
# this host's files in memory, with Twinroot installed. To be run by
#   unshare --mount --pid --fork --uts --ipc --net --cgroup
# as root; FOLDER is empty, and all that is left of it when the last process ends.
set -euo pipefail
PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$1 hvd=$(realpath "$2") hvctl=$(realpath "$3") units=$(realpath "$4")

mount --make-rprivate /
mount -t tmpfs files "$folder"
mkdir "$folder"/{changes,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$folder/changes,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"

# Devices of its own: their modes and groups will be changed.
mount -t tmpfs dev dev
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  read -r name major minor <<<"$node"
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
for name in kvm userfaultfd; do
  if [ -e "/dev/$name" ]; then
    mknod -m 600 "dev/$name" c $((0x$(stat -c %t "/dev/$name"))) $((0x$(stat -c %T "/dev/$name")))
  fi
done
mkdir dev/shm dev/pts
mount -t tmpfs shm dev/shm
mount -t devpts -o ptmxmode=666 pts dev/pts
ln -s pts/ptmx dev/ptmx

# What is the kernel's is the host's: read-only.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs run run
mount -t tmpfs tmp tmp
ip link set lo up

install "$hvd" "$hvctl" usr/bin/
cp -rL "$units"/*.service "$units"/*.socket "$units"/*.slice "$units"/*.service.d \
  usr/lib/systemd/system/
for kind in sysusers.d tmpfiles.d; do cp -L "$units/$kind"/* "usr/lib/$kind/"; done
# What a package does when it is installed.
chroot . systemd-sysusers
if [ -e dev/kvm ]; then  # udev's rule, elsewhere
  chroot . chgrp kvm /dev/kvm
  chmod 660 dev/kvm
fi
: >etc/machine-id
# Nothing of the host's own is to run.
for unit in timers.target systemd-sysctl.service systemd-modules-load.service modprobe@.service \
  systemd-random-seed.service systemd-udevd.service systemd-udev-trigger.service; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done

mkdir -p mnt
pivot_root . mnt
umount -l /mnt
# As systemd itself has it on a real machine: what it mounts for a service is seen by the others.
mount --make-rshared /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=twinroot \
  /lib/systemd/systemd --system --unit=basic.target --log-target=journal-or-kmsg --show-status=no
