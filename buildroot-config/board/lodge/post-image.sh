#!/usr/bin/env bash
# Makes images/lodge.iso from what Buildroot built, with the same functions as scripts/build. Buildroot calls it with
# TARGET_DIR, BINARIES_DIR, BUILD_DIR and HOST_DIR in the environment.
set -euo pipefail
# An error inside $(…) ends that too.
shopt -s inherit_errexit

BOARD=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$BOARD/../../.." && pwd)
CACHE=$BUILD_DIR/lodge-image
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH
export SOURCE_DATE_EPOCH PATH LC_ALL=C TZ=UTC

for part in log modules initramfs iso; do
    # shellcheck source=/dev/null
    . "$ROOT/scripts/lib/$part.sh"
done

# Where the files of a manifest come from here: every "package" is Buildroot's target folder.
packages_tree() {
    printf '%s\n' "$TARGET_DIR"
}
packages_kernel() {
    printf 'linux\n'
}

# grub_modules FORMAT : the folder with GRUB's modules, in GRUB's build tree.
grub_modules() {
    local dir
    for dir in "$BUILD_DIR"/grub2-*/build-"$1"/grub-core; do
        [[ -d $dir ]] && printf '%s\n' "$dir" && return 0
    done
    die "Buildroot has built no GRUB for $1"
}

# Nothing is kept from an earlier run: Buildroot's packages have no checksums to compare.
rm -rf "$CACHE"
mkdir -p "$CACHE/initramfs"
initramfs_build "$BOARD/manifest" "$BOARD/manifest" "$TARGET_DIR/lodge" "$BINARIES_DIR/initrd.zst"
iso_build "$(grub_modules i386-pc)" "$(grub_modules x86_64-efi)" "$ROOT/initramfs/grub" \
    "$BINARIES_DIR/bzImage" "$BINARIES_DIR/initrd.zst" "$BINARIES_DIR/lodge.iso"
note "$BINARIES_DIR/lodge.iso"
