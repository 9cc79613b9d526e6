#!/bin/sh
# get_kernel.sh DIR: sees to it that QEMU is installed and that DIR holds Debian's kernel for virtual
# machines, unpacked and not installed: DIR/vmlinuz and DIR/modules/. Needs Debian or Ubuntu, the network
# the first time, and root if QEMU has to be installed.
set -eu
dir=$1
if ! command -v qemu-system-x86_64 >/dev/null || ! command -v mkfs.ext4 >/dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-x86 e2fsprogs
fi
[ -e "$dir/vmlinuz" ] && exit
rm -rf "$dir"
mkdir -p "$dir/unpacked"
cd "$dir"
for meta in linux-image-cloud-amd64 linux-image-virtual; do
    # What the meta package asks for is the kernel itself.
    package=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$package" ] && break
done
[ -n "$package" ] || { echo "no kernel package is known: apt-get update?" >&2; exit 1; }
apt-get download "$package" || { apt-get update && apt-get download "$package"; }
dpkg -x "$package"_*.deb unpacked
for modules in unpacked/lib/modules/* unpacked/usr/lib/modules/*; do
    [ -d "$modules" ] && mv "$modules" modules
done
mv unpacked/boot/vmlinuz-* kernel
rm -rf unpacked "$package"_*.deb
mv kernel vmlinuz # last: it says that all of the rest is there
