# shellcheck shell=bash
# The virtual machine that the bench measures in, and what is put into it.
#
# Needs log.sh, packages.sh, initramfs.sh, iso.sh, qemu.sh, cargo.sh, guest-images/lib/kernel.sh, ROOT, CACHE, and BENCH:
# a folder for everything that is made here.

# shellcheck disable=SC2153 # ROOT is the script's
BENCH_HERE=$ROOT/scripts/bench.d
BENCH_LOCK=$BENCH_HERE/packages.lock
# How long the virtual machine may say nothing, in seconds: a start of a guest takes one minute on an idle machine, and a
# minute of the virtual clock, which is when a guest that stands still is given up, twenty when its processor is at work.
BENCH_SILENCE=2400
# What was given up.
BENCH_MISSED=()
# One processor that counts instructions, two nanoseconds each, and skips the time in which it would sleep.
BENCH_CLOCK=(-accel "tcg,thread=single" -icount "shift=1,sleep=off" -smp 1)
# As recorded figures have it, and with erms, which real processors have; qemu.sh says why without cx16.
BENCH_CPU=max,+svm,-cx16
BENCH_PID=""

# bench_iso_file PATH : takes a file out of the ISO, and prints where it is now.
bench_iso_file() {
    local output
    output=$BENCH/$(basename "$1")
    rm -f "$output"
    xorriso -osirrox on -indev "$ROOT/build/lodge.iso" -extract "$1" "$output" >"$BENCH/xorriso.log" 2>&1 ||
        die "build/lodge.iso has no $1; see $BENCH/xorriso.log"
    printf '%s\n' "$output"
}

# bench_programs : compiles what starts guests and measures.
bench_programs() {
    say "Building the measuring programs"
    cargo_image -p lodge -p lodge-tests -p lodge-vmm -p lodge-client -p lodge-block \
        --example boot-guest --example measure-guest --example measure-api --example convert
}

# bench_root NAME : a fresh folder with what every archive has; prints it.
bench_root() {
    local root=$BENCH/$1.root
    rm -rf "$root"
    mkdir -p "$root/bench/guests"
    install -m 0755 "$(packages_tree "$BENCH_LOCK" busybox-static)/bin/busybox" "$root/bench/busybox"
    install -m 0755 "$BENCH_HERE/vm-init" "$root/bench/init"
    install -m 0644 "$BENCH_HERE/vm-monitors" "$root/bench/monitors"
    install -m 0644 "$BENCH_HERE/vm-figures" "$root/bench/figures"
    bench_bare_guest exit-cost "$root/bench/guests/exit-cost"
    printf '%s\n' "$root"
}

# bench_bare_guest NAME OUTPUT : assembles a guest without a system.
bench_bare_guest() {
    as --64 -I "$BENCH_HERE" -o "$BENCH/$1.o" "$BENCH_HERE/$1.s"
    # The linker dislikes memory that is both writable and executable. It is a guest without paging.
    ld -m elf_x86_64 --no-warn-rwx-segments -z max-page-size=4096 --build-id=none \
        -T "$BENCH_HERE/pvh.ld" -o "$2" "$BENCH/$1.o"
}

# bench_reference : prints the folder of the kernel that Firecracker's figure was taken with.
bench_reference() {
    packages_tree "$BENCH_LOCK" "$(packages_kernel "$BENCH_LOCK")"
}

# bench_guests DESTINATION : the guests that are measured.
bench_guests() {
    local tree name
    tree=$(bench_reference)
    kernel_unpack "$tree/boot/vmlinuz-$(modules_release "$tree")" "$1/reference"
    cp "$ROOT/build/guests/vmlinux" "$ROOT/build/guests/vmlinuz" "$1/"
    bench_guest_initrd "$1/initrd" ""
    bench_guest_initrd "$1/devices.initrd" "$tree"
    for name in hello interrupt-cost; do
        bench_bare_guest "$name" "$1/$name"
    done
    cp -L /usr/share/OVMF/OVMF_CODE_4M.fd "$1/code.fd"
    cp -L /usr/share/OVMF/OVMF_VARS_4M.fd "$1/variables.fd"
    bench_disc "$tree/boot/vmlinuz-$(modules_release "$tree")" "$1/initrd" "$1/disc.iso"
    bench_tools "$BENCH/tools.root" fio iperf3
    truncate -s 0 "$1/tools.raw"
    truncate -s 128M "$1/tools.raw"
    mke2fs -q -t ext4 -d "$BENCH/tools.root" "$1/tools.raw"
}

# bench_images DESTINATION : an uncompressed kernel, as good as any disk, in formats that are imported.
bench_images() {
    local kind
    rm -rf "$1"
    mkdir -p "$1"
    for kind in qcow2:compat=1.1 qcow2-zlib:compression_type=zlib qcow2-zstd:compression_type=zstd vmdk:subformat=streamOptimized; do
        bench_image "${kind%%:*}" "${kind#*:}" "$1"
    done
}

# bench_image KIND OPTION DESTINATION : what has a method in its name is compressed.
bench_image() {
    local compress=()
    [[ $1 != *-* ]] || compress=(-c)
    qemu-img convert "${compress[@]}" -f raw -O "${1%%-*}" -o "$2" "$ROOT/build/guests/vmlinux" "$3/$1"
}

# bench_guest_initrd OUTPUT TREE : the small initramfs of the measured guests, with modules for devices if there is a TREE
# to take them from.
bench_guest_initrd() {
    local root=$BENCH/guest.root
    rm -rf "$root"
    mkdir -p "$root/bin"
    install -m 0755 "$(packages_tree "$BENCH_LOCK" busybox-static)/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    install -m 0755 "$BENCH_HERE/guest-init" "$root/init"
    if [[ -n $2 ]]; then
        modules_install "$2" "$BENCH_HERE/guest-modules.list" "$root"
    fi
    initramfs_pack "$root" "$INITRAMFS_EPOCH" | gzip -n -9 >"$1"
}

# bench_disc KERNEL INITRD OUTPUT : a disc that BIOS and UEFI start.
bench_disc() {
    local pc efi lock=$ROOT/initramfs/packages.lock
    pc=$(packages_tree "$lock" grub-pc-bin)/usr/lib/grub/i386-pc
    efi=$(packages_tree "$lock" grub-efi-amd64-bin)/usr/lib/grub/x86_64-efi
    iso_build "$pc" "$efi" "$BENCH_HERE/grub" "$1" "$2" "$3"
}

# bench_tools DESTINATION NAME... : programs of this machine, and their libraries.
bench_tools() {
    local destination=$1 name program file
    shift
    rm -rf "$destination"
    mkdir -p "$destination"
    for name in "$@"; do
        program=$(command -v "$name")
        cp -L "$program" "$destination/"
        ldd "$program" | grep -o '/[^ ]*' | while read -r file; do
            cp -L "$file" "$destination/"
        done
    done
}

# bench_firmware DESTINATION : the firmware that QEMU needs, and that guests boot by.
bench_firmware() {
    mkdir -p "$1"
    cp -L /usr/share/seabios/bios-256k.bin /usr/share/qemu/{bios-microvm,pvh,linuxboot_dma,kvmvapic}.bin "$1/"
}

# bench_initrd ROOT OUTPUT : the ISO's own initramfs with the folder in a second one behind it. Quick to pack: what is in
# it is not measured.
bench_initrd() {
    local size
    cp "$(bench_iso_file /boot/initrd.zst)" "$2"
    # An archive is found by the kernel at a multiple of four bytes.
    size=$(stat -c %s "$2")
    truncate -s $(((size + 3) / 4 * 4)) "$2"
    initramfs_pack "$1" "$INITRAMFS_EPOCH" | zstd -q -1 -T0 -c >>"$2"
}

# bench_vm NAME OPTION... : runs a virtual machine until it says on its second serial line that it is done; what it said
# there is left in $BENCH/NAME.results.
bench_vm() {
    local name=$1 line lines reader status=0
    shift
    : >"$BENCH/$name.results"
    qemu-system-x86_64 -machine q35 "${BENCH_CLOCK[@]}" -cpu "$BENCH_CPU" -m 3072 -nodefaults -display none \
        -serial "file:$BENCH/$name.console" -serial "file:$BENCH/$name.results" "$@" 2>"$BENCH/$name.errors" &
    BENCH_PID=$!
    # It ends when the machine does.
    exec {lines}< <(exec tail -n +1 -f --pid="$BENCH_PID" "$BENCH/$name.results")
    reader=$!
    while read -r -t "$BENCH_SILENCE" line <&"$lines" || { status=$? && false; }; do
        line=${line%$'\r'}
        case $line in
            DONE) break ;;
            FAILED*) bench_failed "$name" "${line#FAILED }" ;;
            MISSED*) BENCH_MISSED+=("${line#MISSED }") ;;
            LOG*) ;;
            *) note "$line" ;;
        esac
    done
    exec {lines}<&-
    kill "$reader" 2>/dev/null || true
    [[ $status -eq 0 ]] || bench_failed "$name" "the virtual machine ended or fell silent"
    bench_stop
}

# bench_failed NAME WHY : ends with the virtual machine's last words.
bench_failed() {
    cat "$BENCH/$1.errors" >&2
    tail -n 20 "$BENCH/$1.console" >&2
    die "$2 (console: $BENCH/$1.console)"
}

# bench_stop : what a trap calls too.
bench_stop() {
    [[ -n $BENCH_PID ]] || return 0
    kill "$BENCH_PID" 2>/dev/null || true
    wait "$BENCH_PID" 2>/dev/null || true
    BENCH_PID=""
}

# bench_run_guests FIGURES RUNS : guests under Lodge and QEMU in one virtual machine.
bench_run_guests() {
    local root
    say "Gathering monitors and guests"
    root=$(bench_root guests)
    install -m 0755 "$CARGO_IMAGE"/examples/{boot-guest,measure-guest,convert} "$root/bench/"
    bench_guests "$root/bench/guests"
    bench_images "$root/bench/images"
    bench_tools "$root/bench/tools" qemu-system-x86_64 qemu-img iperf3
    bench_firmware "$root/bench/firmware"
    bench_initrd "$root" "$BENCH/guests.initrd"
    say "Measuring guests on the virtual clock ($1)"
    bench_vm guests -kernel "$(bench_iso_file /boot/vmlinuz)" -initrd "$BENCH/guests.initrd" \
        -append "console=ttyS0 quiet panic=-1 cryptomgr.notests rdinit=/bench/init bench=$1 bench.runs=$2"
}

# bench_run_host : the ISO from power-on, as it is but for a first process that measures beside Lodge's own.
bench_run_host() {
    local root config=$BENCH/grub pc efi lock=$ROOT/initramfs/packages.lock
    say "Making an ISO that measures itself"
    root=$(bench_root host)
    install -m 0755 "$CARGO_IMAGE/examples/measure-api" "$root/bench/"
    bench_initrd "$root" "$BENCH/host.initrd"
    rm -rf "$config"
    cp -r "$ROOT/initramfs/grub" "$config"
    sed -i 's|^set options="|&rdinit=/bench/init bench=api |' "$config/options.cfg"
    rm "$config/disk.cfg"
    pc=$(packages_tree "$lock" grub-pc-bin)/usr/lib/grub/i386-pc
    efi=$(packages_tree "$lock" grub-efi-amd64-bin)/usr/lib/grub/x86_64-efi
    iso_build "$pc" "$efi" "$config" "$(bench_iso_file /boot/vmlinuz)" "$BENCH/host.initrd" "$BENCH/host.iso"
    say "Measuring the host on the virtual clock (ready,api)"
    bench_vm host -vga std -netdev user,id=net0 -device virtio-net-pci,netdev=net0 \
        -drive "if=none,id=medium,format=raw,readonly=on,file=$BENCH/host.iso,media=cdrom" \
        -device ide-cd,drive=medium,bootindex=0
}
