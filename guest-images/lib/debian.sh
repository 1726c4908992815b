# shellcheck shell=bash
# A Debian 12 system on a disk that starts by itself, by BIOS and by UEFI: its own kernel, initramfs and GRUB. It can
# also be started by direct boot with the kernel and the initramfs built beside it (root=LABEL=lodge-guest).
#
#   sector 0      MBR: GRUB's first sector and two partitions
#   1 to 2047     the rest of GRUB for a BIOS
#   partition 1   FAT, 8 MiB: GRUB for UEFI, in the place of removable media
#   partition 2   ext4, labelled lodge-guest
#
# Needs log.sh, packages.sh and CACHE, and CACHE's packages of initramfs/packages.lock.

DEBIAN_SIZE_MIB=352
DEBIAN_ESP_SECTORS=2048,16384
DEBIAN_ROOT_SECTOR=18432
DEBIAN_LABEL=lodge-guest
DEBIAN_PACKAGES=systemd-sysv,udev,dbus,iproute2,iputils-ping,login,passwd,procps,netbase,e2fsprogs,linux-image-cloud-amd64,initramfs-tools,zstd

# What GRUB needs to find and start the kernel.
DEBIAN_GRUB_MODULES=(normal configfile search search_label part_msdos ext2 linux echo test serial terminal)

# Nothing a guest of an hour needs, and each costs seconds of an emulated processor before the login prompt.
DEBIAN_MASKED=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer systemd-tmpfiles-clean.timer systemd-timesyncd.service systemd-pstore.service
    systemd-networkd-wait-online.service systemd-hwdb-update.service systemd-journal-flush.service
    systemd-journal-catalog-update.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-firstboot.service sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount
    dev-mqueue.mount sys-fs-fuse-connections.mount modprobe@.service systemd-modules-load.service
    getty@.service getty-static.service systemd-rfkill.service systemd-rfkill.socket)

# debian_bootstrap FOLDER : the packages, as debootstrap leaves them. Kept until the Debian mirror is asked again.
debian_bootstrap() {
    local folder=$1 mirror log
    [[ $(id -u) -eq 0 ]] || die "the Debian guest is made with debootstrap, which needs root: sudo guest-images/build debian"
    mirror=${LODGE_DEBIAN_MIRROR:-$(packages_mirror bookworm stable oldstable)}
    [[ -n $mirror ]] || die "this machine's apt has no Debian 'bookworm' source to learn the mirror from; set LODGE_DEBIAN_MIRROR=http://…/debian"
    note "debootstrap from $mirror (minutes)"
    mkdir -p "$CACHE/guests/debootstrap"
    log=$folder.log
    if ! debootstrap --variant=minbase --arch=amd64 --cache-dir="$CACHE/guests/debootstrap" \
        --include="$DEBIAN_PACKAGES" bookworm "$folder" "$mirror" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "debootstrap failed; its log is $log"
    fi
    rm -f "$log"
}

# debian_configure ROOT : what makes it this guest.
debian_configure() {
    local root=$1 unit
    echo lodge-guest >"$root/etc/hostname"
    printf '127.0.0.1 localhost lodge-guest\n::1 localhost\n' >"$root/etc/hosts"
    printf 'LABEL=%s / ext4 defaults 0 1\n' "$DEBIAN_LABEL" >"$root/etc/fstab"
    chroot "$root" chpasswd <<<"root:lodge"
    printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/50-lodge.network"
    printf 'Debian guest of Lodge: log in as root with the password lodge\n\\n \\l\n\n' >"$root/etc/issue"
    ln -sf /run/systemd/resolve/resolv.conf "$root/etc/resolv.conf"
    for unit in "${DEBIAN_MASKED[@]}"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    debian_enable "$root"
    debian_coldplug "$root"
    debian_bootable "$root"
    # The journal in memory: a guest that is killed has nothing to repair.
    mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
    printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/lodge.conf"
    # Emulated processors are slow: a unit that takes its time is not a broken one.
    printf '[Manager]\nDefaultTimeoutStartSec=600s\nDefaultDeviceTimeoutSec=600s\nDefaultTimeoutStopSec=60s\n' \
        >"$root/etc/systemd/system.conf.d/lodge.conf"
    # Each machine makes its own at its first boot.
    : >"$root/etc/machine-id"
}

# debian_enable ROOT : network, and a login on the serial and virtio consoles. systemd-getty-generator starts one on the
# kernel's console by itself; said here it is there whatever the command line is.
debian_enable() {
    local root=$1 wants=$1/etc/systemd/system
    mkdir -p "$wants/getty.target.wants" "$wants/multi-user.target.wants" "$wants/sockets.target.wants"
    ln -sf /lib/systemd/system/serial-getty@.service "$wants/getty.target.wants/serial-getty@ttyS0.service"
    ln -sf /lib/systemd/system/systemd-networkd.service "$wants/multi-user.target.wants/systemd-networkd.service"
    ln -sf /lib/systemd/system/systemd-networkd.socket "$wants/sockets.target.wants/systemd-networkd.socket"
    ln -sf /lib/systemd/system/multi-user.target "$wants/default.target"
}

# debian_coldplug ROOT : udev looks only at devices that something here waits for: consoles, disks, network cards, the
# power button, and what needs a module. Going through every device of the machine takes seconds of an emulated processor.
debian_coldplug() {
    local dir=$1/etc/systemd/system/systemd-udev-trigger.service.d
    mkdir -p "$dir"
    printf '[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add %s\n' \
        "--subsystem-match=virtio --subsystem-match=block --subsystem-match=net --subsystem-match=tty --subsystem-match=input" >"$dir/lodge.conf"
}

# debian_bootable ROOT : what GRUB reads. The initramfs has the modules of this disk alone: what Debian puts in for every
# machine takes an emulated processor a quarter of a minute to unpack.
debian_bootable() {
    local root=$1
    sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
    printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
    chroot "$root" update-initramfs -u >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        die "update-initramfs failed; its log is $root.log"
    }
    rm -f "$root.log"
    mkdir -p "$root/boot/grub"
    cat >"$root/boot/grub/grub.cfg" <<GRUB
if [ "\$grub_platform" = pc ]; then
    serial --unit=0 --speed=115200
    terminal_input serial
    terminal_output serial
fi
linux /vmlinuz root=LABEL=$DEBIAN_LABEL ro quiet console=ttyS0
initrd /initrd.img
boot
GRUB
}

# debian_trim ROOT : what no test reads.
debian_trim() {
    local root=$1
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* \
        "$root"/usr/share/i18n "$root"/tmp/*
}

# debian_grub FORMAT MODULES OUTPUT MODULE... : GRUB in one file, which looks for the root filesystem by its label.
debian_grub() {
    local format=$1 modules=$2 output=$3 config=$3.cfg
    shift 3
    # shellcheck disable=SC2016 # GRUB's variables
    printf 'search --no-floppy --label %s --set=root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
        "$DEBIAN_LABEL" >"$config"
    grub-mkimage -O "$format" -d "$modules" -p /boot/grub -c "$config" -o "$output" "${DEBIAN_GRUB_MODULES[@]}" "$@" ||
        die "grub-mkimage failed for $format"
    rm -f "$config"
}

# debian_partition TYPE FIRST COUNT : one line of an MBR's table, without the addresses of old disks.
debian_partition() {
    local number
    # shellcheck disable=SC2059 # the formats are made here
    printf '\x00\xfe\xff\xff'"\\x$1"'\xfe\xff\xff'
    for number in "$2" "$3"; do
        # shellcheck disable=SC2059
        printf "$(printf '\\x%02x' $((number & 255)) $((number >> 8 & 255)) $((number >> 16 & 255)) $((number >> 24 & 255)))"
    done
}

# debian_loader DISK : both GRUBs and the partition table.
debian_loader() {
    # shellcheck disable=SC2153 # ROOT is the script's
    local disk=$1 lock=$ROOT/initramfs/packages.lock pc efi first count sectors=$((DEBIAN_SIZE_MIB * 2048))
    pc=$(packages_tree "$lock" grub-pc-bin)/usr/lib/grub/i386-pc
    efi=$(packages_tree "$lock" grub-efi-amd64-bin)/usr/lib/grub/x86_64-efi
    debian_grub i386-pc "$pc" "$disk.core" biosdisk
    debian_grub x86_64-efi "$efi" "$disk.efi" fat
    [[ $(stat -c %s "$disk.core") -le $((2047 * 512)) ]] || die "GRUB for a BIOS does not fit before the first partition"
    first=${DEBIAN_ESP_SECTORS%,*} count=${DEBIAN_ESP_SECTORS#*,}
    # The first sector loads what follows it at sector 1, where GRUB expects it unless told otherwise.
    dd if="$pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$disk.core" of="$disk" bs=512 seek=1 conv=notrunc status=none
    {
        debian_partition ef "$first" "$count"
        debian_partition 83 "$DEBIAN_ROOT_SECTOR" $((sectors - DEBIAN_ROOT_SECTOR))
        head -c 32 /dev/zero
        printf '\x55\xaa'
    } | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
    touch -d "@$SOURCE_DATE_EPOCH" "$disk.efi"
    mformat -i "$disk@@$((first * 512))" -N 4c6f6467 -v LODGE-EFI -h 16 -s 32 -H "$first" -T "$count" ::
    mmd -i "$disk@@$((first * 512))" ::/EFI ::/EFI/BOOT
    mcopy -m -i "$disk@@$((first * 512))" "$disk.efi" ::/EFI/BOOT/BOOTX64.EFI
    rm -f "$disk.core" "$disk.efi"
}

# debian_pack ROOT OUTPUT : the disk, filled without mounting it. Identifiers and dates are fixed; the metadata is
# as small as a guest that is copied often wants it.
debian_pack() {
    local root=$1 output=$2
    rm -f "$output.part"
    truncate -s "${DEBIAN_SIZE_MIB}M" "$output.part"
    find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -L "$DEBIAN_LABEL" -m 1 -b 4096 \
        -U 6c6f6467-6500-4000-8000-646562690001 \
        -E "hash_seed=6c6f6467-6500-4000-8000-646562690002,lazy_itable_init=0,lazy_journal_init=0,offset=$((DEBIAN_ROOT_SECTOR * 512))" \
        -J size=16 -d "$root" "$output.part" $((DEBIAN_SIZE_MIB * 256 - DEBIAN_ROOT_SECTOR / 8)) ||
        die "mke2fs could not make the Debian guest's filesystem"
    debian_loader "$output.part"
    # Compressed: sending it takes an emulated machine minutes.
    qemu-img convert -q -c -O qcow2 -o compression_type=zstd "$output.part" "$output.packed" ||
        die "qemu-img could not compress the Debian guest's disk"
    rm "$output.part"
    mv "$output.packed" "$output"
}

# debian_image OUTPUT
debian_image() {
    local output=$1 root=$CACHE/guests/debian.root
    rm -rf "$root"
    debian_bootstrap "$root"
    debian_configure "$root"
    debian_trim "$root"
    debian_pack "$root" "$output"
    # The tree is large and never needed again.
    rm -rf "$root"
}
