#!/usr/bin/env bash
# qemu.sh FILE: builds QEMU's x86-64 machine from Debian's source and qemu.patch, into FILE, without
# root and without installing a -dev package. The patch gives the emulated AMD processor what real
# ones have: the length of an instruction that was intercepted (NRIPS), and which register a MOV
# to a control register names (DecodeAssists). Without them KVM has to read the guest's
# instructions, which it cannot where they lie in native private memory.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
file=$(realpath "$1")
work=$(mktemp -d "$(dirname "$file")/qemu.XXXXXX")
trap 'rm -rf "$work"' EXIT

step() { printf 'rig: %s\n' "$*"; }
quiet() { # COMMAND...: its output only if it fails
  "$@" >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    echo "rig: failed: ${*:0:4} ..." >&2
    exit 1
  }
}

step "fetching QEMU's source (25 MB)"
# From where the installed QEMU came, whether or not apt knows that it has sources too.
read -r mirror suite <<<"$(apt-cache policy qemu-system-x86 |
  sed -n 's|^ *[0-9]* \(http[^ ]*\) \([^/ ]*\)/main .*|\1 \2|p' | head -n 1)"
[[ -n ${suite:-} ]] || {
  echo "rig: apt does not say where qemu-system-x86 comes from; run apt-get update" >&2
  exit 1
}
mkdir -p "$work/lists/partial" "$work/packages" "$work/build"
echo "deb-src $mirror $suite main" >"$work/sources.list"
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists")
quiet "${apt[@]}" update
(cd "$work" && quiet "${apt[@]}" source --download-only qemu)
(cd "$work/packages" && quiet apt-get -q download libattr1 libattr1-dev libblkid-dev libcap-ng0 \
  libcap-ng-dev libfdt1 libfdt-dev libffi-dev libglib2.0-0 libglib2.0-dev libmount-dev \
  libpcre2-8-0 libpcre2-dev libpixman-1-0 libpixman-1-dev libselinux1-dev libsepol-dev zlib1g \
  zlib1g-dev)
root=$work/root
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
lib=usr/lib/x86_64-linux-gnu
cp -a "$root/lib/x86_64-linux-gnu/." "$root/$lib"
for link in "$root/$lib"/*.so; do # some name the library by its absolute path
  [[ -e $link ]] || ln -sf "$(basename "$(readlink "$link")")" "$link"
done

step "building QEMU (ten minutes on two processors)"
tar -xJf "$work"/qemu_*.orig.tar.xz -C "$work"
source=$(echo "$work"/qemu-*/)
tar -xJf "$work"/qemu_*.debian.tar.xz -C "$source"
for patch in $(grep -v '^#' "$source/debian/patches/series"); do
  quiet patch -s -d "$source" -p1 -i "$source/debian/patches/$patch"
done
quiet patch -s -d "$source" -p1 -i "$here/qemu.patch"
printf 'CONFIG_%s=y\n' Q35 VIRTIO_PCI VIRTIO_9P >"$source/configs/devices/x86_64-softmmu/rig.mak"
cd "$work/build"
export PKG_CONFIG_SYSROOT_DIR=$root
export PKG_CONFIG_LIBDIR=$root/$lib/pkgconfig:$root/usr/share/pkgconfig
quiet "$source/configure" --target-list=x86_64-softmmu --without-default-features \
  --without-default-devices --with-devices-x86_64=rig --enable-tcg --enable-virtfs --enable-attr \
  --enable-cap-ng --enable-fdt --meson="$(command -v meson)" --disable-docs \
  --extra-cflags="-I$root/usr/include" --extra-ldflags="-L$root/$lib"
quiet ninja qemu-system-x86_64
strip -o "$file" qemu-system-x86_64
