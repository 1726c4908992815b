# shellcheck shell=bash
# Makes the hybrid ISO: BIOS and UEFI, CD and USB stick. The same inputs give the same bytes, which is why GRUB's
# images and the disk layout are spelled out here and not left to grub-mkrescue.
#
#   iso_build GRUB_PC GRUB_EFI CONFIG KERNEL INITRD OUTPUT
#
# GRUB_PC and GRUB_EFI are the folders with GRUB's modules for i386-pc and x86_64-efi, CONFIG the one with early.cfg and
# grub.cfg.
#
# The disk a BIOS or UEFI sees:
#   CD    El Torito, one BIOS entry (GRUB with its own ISO reader) and one EFI entry (the FAT image below)
#   stick an MBR that starts the same BIOS image, and a GPT whose second partition is the same FAT image
#
# With a disk.cfg in CONFIG it also has what an installation puts onto a disk, in /boot/disk: boot.img and core.img for a BIOS,
# and esp.img.zst, an EFI system partition. /boot/contents then says what the image is: its version, and the checksums of what is started.
#
# Needs log.sh, CACHE and SOURCE_DATE_EPOCH.

# What GRUB can do without files beside it.
ISO_GRUB_MODULES=(normal configfile search search_fs_file iso9660 part_gpt part_msdos fat linux echo test true
    sleep reboot halt minicmd ls cat serial terminal all_video gzio)

# iso_grub_image MODULES FORMAT OUTPUT EARLY_CONFIG MODULE... : one self-contained GRUB.
iso_grub_image() {
    local modules=$1 format=$2 output=$3 config=$4
    shift 4
    grub-mkimage -O "$format" -d "$modules" -p /boot/grub -c "$config" -o "$output" "${ISO_GRUB_MODULES[@]}" "$@" ||
        die "grub-mkimage failed for $format"
}

# iso_esp GRUB_EFI OUTPUT : a FAT image with the removable-media boot path.
iso_esp() {
    local efi=$1 output=$2 kib
    kib=$(($(stat -c %s "$efi") / 1024 + 512))
    rm -f "$output"
    truncate -s "${kib}K" "$output"
    mformat -i "$output" -N 4c6f6467 -v LODGE-EFI -h 16 -s 32 -T $((kib * 2)) ::
    mmd -i "$output" ::/EFI ::/EFI/BOOT
    touch -d "@$SOURCE_DATE_EPOCH" "$efi"
    mcopy -m -i "$output" "$efi" ::/EFI/BOOT/BOOTX64.EFI
}

# What GRUB can do on a disk of its own, beside its files.
ISO_DISK_MODULES=(normal configfile iso9660 part_gpt fat linux loadenv regexp echo test true sleep reboot halt minicmd ls cat serial
    terminal all_video gzio)
# Size of the EFI system partition's filesystem, in MiB. A FAT32 has at least 65525 clusters.
ISO_ESP_MIB=64

# iso_disk GRUB_PC GRUB_EFI CONFIG OUTPUT : what makes a disk start, in the folder OUTPUT.
iso_disk() {
    local pc=$1 efi=$2 config=$3 output=$4 work
    work=$(mktemp -d "$CACHE/disk.XXXXXX")
    mkdir -p "$output"
    install -m 0644 "$pc/boot.img" "$output/boot.img"
    # On the disk that the BIOS started from; UEFI says by itself where the program came from.
    grub-mkimage -O i386-pc -d "$pc" -p '(,gpt2)/grub' -o "$output/core.img" "${ISO_DISK_MODULES[@]}" biosdisk linux16 ||
        die "grub-mkimage failed for a disk"
    grub-mkimage -O x86_64-efi -d "$efi" -p /grub -o "$work/BOOTX64.EFI" "${ISO_DISK_MODULES[@]}" efi_gop ||
        die "grub-mkimage failed for a disk by UEFI"
    install -m 0644 "$config/disk.cfg" "$work/grub.cfg"
    grub-editenv "$work/grubenv" create
    find "$work" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
    truncate -s "${ISO_ESP_MIB}M" "$work/esp.img"
    mformat -i "$work/esp.img" -F -c 1 -N 4c6f6467 -v LODGE-ESP -h 16 -s 32 -T $((ISO_ESP_MIB * 2048)) ::
    mmd -i "$work/esp.img" ::/EFI ::/EFI/BOOT ::/grub
    mcopy -m -i "$work/esp.img" "$work/BOOTX64.EFI" ::/EFI/BOOT/BOOTX64.EFI
    mcopy -m -i "$work/esp.img" "$work/grub.cfg" "$work/grubenv" ::/grub/
    zstd -q -19 -c "$work/esp.img" >"$output/esp.img.zst"
    rm -rf "$work"
}

# iso_contents TREE : says what the image is.
iso_contents() {
    printf 'version %s\n' "$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml" | head -n 1)"
    (cd "$1" && sha256sum boot/vmlinuz boot/initrd.zst boot/grub/options.cfg boot/disk/*) |
        sed 's/^\([0-9a-f]*\) [ *]/sha256 \1 /'
}

# iso_build GRUB_PC GRUB_EFI CONFIG KERNEL INITRD OUTPUT
iso_build() {
    local pc=$1 efi=$2 config=$3 kernel=$4 initrd=$5 output=$6 work tree
    work=$(mktemp -d "$CACHE/iso.XXXXXX")
    tree=$work/tree
    mkdir -p "$tree/boot/grub" "$tree/EFI/BOOT"
    install -m 0644 "$kernel" "$tree/boot/vmlinuz"
    install -m 0644 "$initrd" "$tree/boot/initrd.zst"
    install -m 0644 "$config/grub.cfg" "$tree/boot/grub/grub.cfg"
    if [[ -e $config/options.cfg ]]; then
        install -m 0644 "$config/options.cfg" "$tree/boot/grub/options.cfg"
    fi
    if [[ -e $config/disk.cfg ]]; then
        iso_disk "$pc" "$efi" "$config" "$tree/boot/disk"
        iso_contents "$tree" >"$tree/boot/contents"
    fi
    iso_grub_image "$pc" i386-pc-eltorito "$tree/boot/grub/bios.img" "$config/early.cfg" biosdisk linux16
    iso_grub_image "$efi" x86_64-efi "$work/BOOTX64.EFI" "$config/early.cfg" efi_gop
    # A copy outside the FAT image too, for people who copy the files onto a FAT stick instead of the whole image.
    install -m 0644 "$work/BOOTX64.EFI" "$tree/EFI/BOOT/BOOTX64.EFI"
    iso_esp "$work/BOOTX64.EFI" "$work/esp.img"
    find "$tree" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
    iso_write "$tree" "$work/esp.img" "$pc/boot_hybrid.img" "$output"
    rm -rf "$work"
}

# iso_write TREE ESP MBR OUTPUT
iso_write() {
    local tree=$1 esp=$2 mbr=$3 output=$4 log
    log=$(mktemp)
    if ! SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH xorriso -as mkisofs -quiet \
        -V LODGE -A Lodge -iso-level 3 -r -J -o "$output.part" \
        --sort-weight 0 / --sort-weight 1 /boot \
        --grub2-mbr "$mbr" --protective-msdos-label --mbr-force-bootable \
        -partition_cyl_align off -partition_offset 16 \
        -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B "$esp" -appended_part_as_gpt \
        -iso_mbr_part_type EBD0A0A2-B9E5-4433-87C0-68B6B72699C7 \
        -c boot/boot.cat \
        -b boot/grub/bios.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info \
        -eltorito-alt-boot -e '--interval:appended_partition_2:all::' -no-emul-boot \
        "$tree" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log" "$output.part"
        die "xorriso could not write the ISO"
    fi
    rm -f "$log"
    mv "$output.part" "$output"
}
