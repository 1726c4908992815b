# shellcheck shell=bash
# Unpacks a bzImage into the ELF file that is compressed inside it. Needs log.sh.

# kernel_word FILE OFFSET BYTES : a little-endian number in the file.
kernel_word() {
    od -A n -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# kernel_unpack BZIMAGE OUTPUT : the offsets are those of the boot protocol (Documentation/arch/x86/boot.rst, "The
# real-mode kernel header"): payload_offset counts from the end of the real-mode part.
kernel_unpack() {
    local image=$1 output=$2 setup offset length
    [[ $(kernel_word "$image" 0x202 2) -ge $((0x208)) ]] || die "$image is no bzImage with boot protocol 2.08 or later"
    setup=$((($(kernel_word "$image" 0x1f1 1) + 1) * 512))
    offset=$((setup + $(kernel_word "$image" 0x248 4)))
    # The last four bytes are the unpacked size, which the formats below would take for garbage.
    length=$(($(kernel_word "$image" 0x24c 4) - 4))
    kernel_payload "$image" "$offset" "$length" | kernel_decompress "$image" "$offset" >"$output.part" ||
        die "the kernel in $image could not be unpacked"
    [[ $(head -c 4 "$output.part" | tail -c 3) == ELF ]] || die "what is packed in $image is no ELF file"
    mv "$output.part" "$output"
}

kernel_payload() {
    tail -c "+$(($2 + 1))" "$1" | head -c "$3"
    # `head` ends the pipe early, and `tail` complains of that.
    return 0
}

# kernel_decompress IMAGE OFFSET : from stdin to stdout, by the first bytes of the payload.
kernel_decompress() {
    case $(od -A n -t x1 -j "$2" -N 4 "$1" | tr -d ' ') in
        28b52ffd) zstd -q -d ;;
        02214c18) lz4 -q -d ;;
        1f8b*) gzip -q -d ;;
        fd377a58) xz -q -d ;;
        *) die "$1 is packed in a format this script does not know" ;;
    esac
}
