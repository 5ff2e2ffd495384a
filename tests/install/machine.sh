# Sourced by bare.sh: a bare Debian 12 in a folder, with systemd as its first process.
# shellcheck shell=bash
#
# Namespaces of its own for processes, mounts, host name and control groups; the network is this
# host's, so that apt works, and so are /dev/kvm and /dev/userfaultfd. It may neither load modules
# nor set the clock nor write /sys.

# Of this machine's apt, so that no host name stands here: the addresses of Debian's own archive.
debian_mirror() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "bookworm" { print $1; exit }')
  [[ -n $mirror ]] || mirror=$(apt-cache policy 2>/dev/null |
    awk '$3 ~ "^bookworm/main" { print $2; exit }')
  [[ -n $mirror ]] || die "apt knows no source of Debian 12 (bookworm); see /etc/apt/sources.list"
  echo "$mirror"
}

# make_root FOLDER: what debootstrap makes, from a copy that is kept; then this machine's apt sources
# and what else its network needs.
make_root() {
  local root=$1 base=$HOME/.cache/twinroot/bare/bookworm.tar
  if [[ ! -f $base ]]; then
    mkdir -p "${base%/*}"
    local fresh
    fresh=$(mktemp -d "$root.XXXXXX")
    debootstrap bookworm "$fresh" "$(debian_mirror)" || die "debootstrap failed; see above"
    rm -f "$fresh"/var/cache/apt/archives/*.deb
    tar -C "$fresh" -cf "$base.new" .
    mv "$base.new" "$base"
    rm -rf "$fresh"
  fi
  mkdir "$root"
  tar -C "$root" -xf "$base"
  chmod 755 "$root"  # that of the copy was made by mktemp; users who are not root walk through it
  rm -f "$root/etc/apt/sources.list"
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [[ ! -f $file ]] || cp "$file" "$root$file"
  done
  apt-config dump Acquire::http::Proxy >"$root/etc/apt/apt.conf.d/90proxy"
  # Authorities that this host's network has besides the usual ones; ca-certificates takes them in.
  mkdir -p "$root/usr/local/share/ca-certificates"
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$root/usr/local/share/ca-certificates" {} + \
    2>/dev/null || true
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  echo bare >"$root/etc/hostname"
}

# boot FOLDER [CACHE]: what it starts ends with power_off. CACHE is seen there as the build cache.
boot() {
  local root=$1 cache=${2:-} cgroups
  cgroups=$(findmnt -nt cgroup2 -o TARGET | head -n 1)
  [[ -n $cgroups ]] || die "this host has no control groups of version 2, which systemd needs"
  machine_group=$cgroups/twinroot-bare.$$
  mkdir "$machine_group"
  # shellcheck disable=SC2016  # of the inner shell
  bash -c '
    set -euo pipefail
    root=$1
    echo $BASHPID >"$2/cgroup.procs"
    exec unshare --mount --propagation private --pid --uts --ipc --cgroup --fork --kill-child \
      bash -c "set -euo pipefail; $3; become_systemd \"\$@\"" bash "$root" "$4"
    ' bash "$root" "$machine_group" "$(declare -f become_systemd)" "$cache" \
    >"$root.boot.log" 2>&1 </dev/null &
  machine_parent=$!
  local until=$((SECONDS + 60))
  machine=
  while [[ -z $machine ]]; do
    if ((SECONDS > until)) || ! kill -0 "$machine_parent" 2>/dev/null; then
      die "the machine does not start: $(cat "$root.boot.log")"
    fi
    sleep 0.2
    machine=$(first_process) || machine=
  done
  local state
  until state=$(in_machine systemctl is-system-running 2>/dev/null) || [[ $state == degraded ]]; do
    ((SECONDS < until)) || die "systemd is not up after a minute: ${state:-no answer}"
    sleep 0.5
  done
  echo "systemd is up ($state)"
}

# Runs as the first process of the new namespaces. The mounts are there alone: whoever removes the
# folder afterwards removes nothing of this host's.
become_systemd() {
  local root=$1 cache=$2 node
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,ro,bind "$root/proc/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in null zero full random urandom tty kvm userfaultfd; do
    [[ ! -e /dev/$node ]] || cp -a "/dev/$node" "$root/dev/$node"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  if [[ -n $cache ]]; then
    mkdir -p "$root/root/.cache/twinroot/bazel"
    mount --bind "$cache" "$root/root/.cache/twinroot/bazel"
  fi
  hostname bare
  # Not chroot: inside of one nobody may make user namespaces, which PrivateUsers= needs.
  cd "$root"
  pivot_root . .
  umount -l .
  # What systemd mounts for one service in a namespace of that service reaches it so: credentials.
  mount --make-rshared /
  exec env -i container=twinroot PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module,-sys_time,-sys_boot,-sys_rawio,-syslog /lib/systemd/systemd
}

# The number, here, of the machine's first process, once it is systemd.
first_process() {
  local child
  child=$(cat "/proc/$machine_parent/task/$machine_parent/children") && child=${child%% *}
  [[ -n $child && $(cat "/proc/$child/comm") == systemd ]] && echo "$child"
}

# in_machine COMMAND...: as root of the machine, in /root/twinroot if that is there.
in_machine() {
  # shellcheck disable=SC2016  # of the inner shell
  nsenter --target "$machine" --mount --pid --uts --ipc --cgroup --root --wdns=/ -- \
    env -i HOME=/root USER=root TERM=dumb LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    bash -c '[[ ! -d /root/twinroot ]] || cd /root/twinroot; exec "$@"' bash "$@"
}

# Ends every process of the machine.
power_off() {
  [[ -z ${machine_parent:-} ]] || {
    kill -KILL "$machine_parent" 2>/dev/null || true  # --kill-child ends the rest
    wait "$machine_parent" 2>/dev/null || true
    machine_parent=
  }
  [[ -z ${machine_group:-} ]] || {
    local _
    for _ in {1..50}; do
      find "$machine_group" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [[ -d $machine_group ]] || break
      sleep 0.2
    done
    machine_group=
  }
}
