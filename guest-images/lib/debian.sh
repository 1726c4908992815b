# shellcheck shell=bash
# A Debian 12 system on a raw disk: one ext4 filesystem, no partition table, no kernel of its own. It is started by
# direct boot with the kernel and the initramfs built beside it (root=/dev/vda).
# Needs log.sh, packages.sh and CACHE.

DEBIAN_SIZE=1G
DEBIAN_PACKAGES=systemd-sysv,udev,dbus,iproute2,iputils-ping,login,passwd,procps,netbase,e2fsprogs

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
    printf '/dev/vda / ext4 defaults 0 1\n' >"$root/etc/fstab"
    chroot "$root" chpasswd <<<"root:lodge"
    printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/50-lodge.network"
    printf 'Debian guest of Lodge: log in as root with the password lodge\n\\n \\l\n\n' >"$root/etc/issue"
    ln -sf /run/systemd/resolve/resolv.conf "$root/etc/resolv.conf"
    for unit in "${DEBIAN_MASKED[@]}"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    debian_enable "$root"
    debian_coldplug "$root"
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

# debian_coldplug ROOT : udev looks only at devices that something here waits for: consoles, disks, network cards and the
# power button. Going through every device of the machine takes seconds of an emulated processor.
debian_coldplug() {
    local dir=$1/etc/systemd/system/systemd-udev-trigger.service.d
    mkdir -p "$dir"
    printf '[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add %s\n' \
        "--subsystem-match=block --subsystem-match=net --subsystem-match=tty --subsystem-match=input" >"$dir/lodge.conf"
}

# debian_trim ROOT : what no test reads.
debian_trim() {
    local root=$1
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* \
        "$root"/usr/share/i18n "$root"/tmp/*
}

# debian_pack ROOT OUTPUT : the filesystem, filled without mounting it. Identifiers and dates are fixed; the metadata is
# as small as a guest that is copied often wants it.
debian_pack() {
    local root=$1 output=$2
    rm -f "$output.part"
    truncate -s "$DEBIAN_SIZE" "$output.part"
    find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -L lodge-guest -m 1 -b 4096 \
        -U 6c6f6467-6500-4000-8000-646562690001 \
        -E hash_seed=6c6f6467-6500-4000-8000-646562690002,lazy_itable_init=0,lazy_journal_init=0 \
        -J size=16 -d "$root" "$output.part" || die "mke2fs could not make the Debian guest's filesystem"
    mv "$output.part" "$output"
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
