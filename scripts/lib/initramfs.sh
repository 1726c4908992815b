# shellcheck shell=bash
# Makes the initramfs from initramfs/manifest: two archives one after the other, as the kernel allows. The first
# (modules, XFS tools) is big and seldom changes, so it is cached; the second holds the program.
#
#   initramfs_build MANIFEST LOCK BINARY OUTPUT
#
# Needs log.sh, packages.sh, modules.sh, CACHE and SOURCE_DATE_EPOCH.

# The date of every file in the cached archive: any fixed one, so that a new commit does not make it stale.
INITRAMFS_EPOCH=1767225600

# zstd: the kernel unpacks it several times faster than xz, for an archive about a tenth larger; power-on to the API
# counts more than one or two megabytes of ISO. Level 19 keeps to a window the kernel's unpacker accepts.
initramfs_compress() {
    zstd -q -19 -T0 -c
}

# initramfs_pack ROOT EPOCH : writes the folder as a cpio archive: sorted, owned by root, all dates EPOCH.
initramfs_pack() {
    local root=$1 epoch=$2
    find "$root" -exec touch -h -d "@$epoch" {} +
    (cd "$root" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0)
}

# initramfs_place MANIFEST LOCK ROOT WHAT PATH ARGUMENT... : carries out one line of the manifest.
initramfs_place() {
    local manifest=$1 lock=$2 root=$3 what=$4 path=$5 tree
    shift 5
    mkdir -p "$root$(dirname "/${path#/}")"
    case $what in
        dir) mkdir -p "$root$path" ;;
        link) ln -s "$1" "$root$path" ;;
        text) install -m "$2" "$(dirname "$manifest")/$1" "$root$path" ;;
        file)
            tree=$(packages_tree "$lock" "${1%%:*}")
            [[ -e $tree${1#*:} ]] || die "$manifest: package ${1%%:*} has no ${1#*:}"
            # Libraries are links to files whose name has the full version.
            install -m "$2" "$(realpath "$tree${1#*:}")" "$root$path"
            ;;
        kernel-modules)
            tree=$(packages_tree "$lock" "$(packages_kernel "$lock")")
            modules_install "$tree" "$(dirname "$manifest")/$path" "$root"
            mkdir -p "$root/etc"
            modules_names "$(dirname "$manifest")/$path" boot >"$root/etc/modules-load.list"
            ;;
        *) die "$manifest: unknown entry '$what' for $path" ;;
    esac
}

# initramfs_lines MANIFEST : its entries without comments and empty lines.
initramfs_lines() {
    sed 's/#.*//; /^[[:space:]]*$/d' "$1"
}

# initramfs_base MANIFEST LOCK : prints the path of the first archive, made anew when anything it is made from changed.
initramfs_base() {
    local manifest=$1 lock=$2 key archive root lists
    mapfile -t lists < <(initramfs_lines "$manifest" | awk '$1 == "kernel-modules" { print $2 }')
    key=$(cd "$(dirname "$manifest")" && cat "$(basename "$manifest")" "$lock" "${lists[@]}" \
        "${BASH_SOURCE[0]}" "$(dirname "${BASH_SOURCE[0]}")/modules.sh" | sha256sum | cut -c1-16)
    archive=$CACHE/initramfs/base-$key.cpio.zst
    if [[ ! -e $archive ]]; then
        say "Gathering kernel modules and tools for the initramfs"
        root=$CACHE/initramfs/base.root
        rm -rf "$root"
        mkdir -p "$root"
        local what path rest
        while read -r what path rest; do
            # shellcheck disable=SC2086 # the rest of a line is words
            [[ $what == lodge ]] || initramfs_place "$manifest" "$lock" "$root" "$what" "$path" $rest
        done < <(initramfs_lines "$manifest")
        chmod -R u=rwX,go=rX "$root"
        initramfs_pack "$root" "$INITRAMFS_EPOCH" | initramfs_compress >"$archive.part"
        rm -f "$CACHE"/initramfs/base-*.zst
        mv "$archive.part" "$archive"
        # Not removed before: a person who wonders what is in the image can look here.
        note "$(stat -c %s "$archive") bytes compressed; unpacked in $root"
    fi
    printf '%s\n' "$archive"
}

# initramfs_build MANIFEST LOCK BINARY OUTPUT
initramfs_build() {
    local manifest=$1 lock=$2 binary=$3 output=$4 base path root
    base=$(initramfs_base "$manifest" "$lock")
    path=$(initramfs_lines "$manifest" | awk '$1 == "lodge" { print $2 }')
    [[ -n $path ]] || die "$manifest has no 'lodge' line: the image would hold no program"
    root=$(mktemp -d "$CACHE/initramfs/program.XXXXXX")
    install -D -m 0755 "$binary" "$root$path"
    {
        cat "$base"
        # An archive is found by the kernel at a multiple of four bytes.
        head -c $(((4 - $(stat -c %s "$base") % 4) % 4)) /dev/zero
        initramfs_pack "$root" "$SOURCE_DATE_EPOCH" | initramfs_compress
    } >"$output.part"
    rm -rf "$root"
    mv "$output.part" "$output"
}
