#!/usr/bin/env bash
# kernel.sh FOLDER VERSION: from Debian's packages of Linux VERSION, into FOLDER: vmlinuz and
# modules/ of the rig's own kernel (KVM rebuilt with software-protected VMs, all else as Debian
# ships it), and guest/: the cloud kernel as a bzImage and, unpacked, as an ELF. No root needed.
set -euo pipefail
folder=$(realpath "$1")
version=$2
base=${version%-amd64}
cloud=$base-cloud-amd64
work=$(mktemp -d "$folder/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

step() { printf 'rig: %s\n' "$*"; }

step "fetching Debian's kernel packages, version $version (200 MB)"
packages=(
  "linux-image-$version-unsigned" "linux-headers-$version" "linux-headers-$base-common"
  "linux-kbuild-$base" linux-source-6.12 "linux-image-$cloud"
)
mkdir "$work/packages"
(cd "$work/packages" && apt-get -q download "${packages[@]}" >"$work/log" 2>&1) || {
  cat "$work/log" >&2
  echo "rig: apt-get could not fetch them; check the network and /etc/apt/sources.list" >&2
  exit 1
}
for package in "${packages[@]}"; do
  dpkg-deb -x "$work/packages/$package"_*.deb "$work/root"
done

step "unpacking the source of KVM"
src=$work/root/usr/src
tar -xJf "$src/linux-source-6.12.tar.xz" -C "$work" linux-source-6.12/arch/x86/kvm linux-source-6.12/virt/kvm
kvm=$work/linux-source-6.12
mkdir -p "$kvm/include/trace"
# The module's folders are ours, and the option is on for these two modules alone.
sed -i "s#-I \$(srctree)/arch/x86/kvm#-I$kvm/arch/x86/kvm -I$kvm/include/trace \
-DCONFIG_KVM_SW_PROTECTED_VM=1#; s#\$(srctree)/virt#$kvm/virt#" "$kvm/arch/x86/kvm/Makefile"
sed -i "s#/usr/src/#$src/#" "$src/linux-headers-$version/Makefile"

step "building kvm.ko and kvm-amd.ko (a minute on two processors)"
make -s -C "$src/linux-headers-$version" "M=$kvm/arch/x86/kvm" CONFIG_DEBUG_INFO_BTF_MODULES= \
  CONFIG_KVM_INTEL= "-j$(nproc)" modules >"$work/log" 2>&1 || {
  tail -n 30 "$work/log" >&2
  echo "rig: the modules do not build" >&2
  exit 1
}

# In the order in which they are loaded.
mkdir -p "$folder/modules"
n=10
for module in fs/netfs/netfs net/9p/9pnet net/9p/9pnet_virtio fs/9p/9p virt/lib/irqbypass \
  drivers/crypto/ccp/ccp; do
  xzcat "$work/root/lib/modules/$version/kernel/$module.ko.xz" \
    >"$folder/modules/$n-$(basename "$module").ko"
  n=$((n + 1))
done
for module in kvm kvm-amd; do
  strip -g -o "$folder/modules/$n-$module.ko" "$kvm/arch/x86/kvm/$module.ko"
  n=$((n + 1))
done
cp "$work/root/boot/vmlinuz-$version" "$folder/vmlinuz"

step "unpacking the guest's kernel, $cloud"
mkdir -p "$folder/guest"
cp "$work/root/boot/vmlinuz-$cloud" "$folder/guest/vmlinuz"
# Where the packed ELF lies in a bzImage: Documentation/arch/x86/boot.rst.
python3 - "$folder/guest/vmlinuz" >"$work/vmlinux.zst" <<'PYTHON'
import struct, sys
image = open(sys.argv[1], "rb").read()
start = (image[0x1f1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
size = struct.unpack_from("<I", image, 0x24c)[0]
sys.stdout.buffer.write(image[start:start + size - 4])  # the size when unpacked stands behind it
PYTHON
zstd -q -d -f "$work/vmlinux.zst" -o "$folder/guest/vmlinux"
