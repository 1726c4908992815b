# shellcheck shell=bash
# The virtual machine that the bench measures in, and what is put into it.
#
# Needs log.sh, packages.sh, initramfs.sh, iso.sh, qemu.sh, cargo.sh, guest-images/lib/kernel.sh, ROOT, CACHE, and BENCH:
# a folder for everything that is made here.

# shellcheck disable=SC2153 # ROOT is the script's
BENCH_HERE=$ROOT/scripts/bench.d
BENCH_LOCK=$BENCH_HERE/packages.lock
# How long the virtual machine may say nothing, in seconds: a start of a guest takes one minute on an idle machine.
BENCH_SILENCE=1200
# One processor that counts instructions, two nanoseconds each, and skips the time in which it would sleep.
BENCH_CLOCK=(-accel "tcg,thread=single" -icount "shift=1,sleep=off" -smp 1)
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
    cargo_image -p lodge-vmm -p lodge-client --example boot-guest --example measure-guest --example measure-api
}

# bench_root NAME : a fresh folder with what every archive has; prints it.
bench_root() {
    local root=$BENCH/$1.root
    rm -rf "$root"
    mkdir -p "$root/bench/guests"
    install -m 0755 "$(packages_tree "$BENCH_LOCK" busybox-static)/bin/busybox" "$root/bench/busybox"
    install -m 0755 "$BENCH_HERE/vm-init" "$root/bench/init"
    bench_exit_cost "$root/bench/guests/exit-cost"
    printf '%s\n' "$root"
}

# bench_exit_cost OUTPUT : the guest that measures exits.
bench_exit_cost() {
    as --64 -o "$BENCH/exit-cost.o" "$BENCH_HERE/exit-cost.s"
    # The linker dislikes memory that is both writable and executable. It is a guest without paging.
    ld -m elf_x86_64 --no-warn-rwx-segments -z max-page-size=4096 --build-id=none \
        -T "$BENCH_HERE/exit-cost.ld" -o "$1" "$BENCH/exit-cost.o"
}

# bench_reference : prints the folder of the kernel that Firecracker's figure was taken with.
bench_reference() {
    packages_tree "$BENCH_LOCK" "$(packages_kernel "$BENCH_LOCK")"
}

# bench_guests DESTINATION : the guests whose start is measured.
bench_guests() {
    local tree root=$BENCH/guest.root
    tree=$(bench_reference)
    kernel_unpack "$tree/boot/vmlinuz-$(modules_release "$tree")" "$1/reference"
    cp "$ROOT/build/guests/vmlinux" "$ROOT/build/guests/vmlinuz" "$1/"
    rm -rf "$root"
    mkdir -p "$root/bin"
    install -m 0755 "$(packages_tree "$BENCH_LOCK" busybox-static)/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    install -m 0755 "$BENCH_HERE/guest-init" "$root/init"
    initramfs_pack "$root" "$INITRAMFS_EPOCH" | gzip -n -9 >"$1/initrd"
}

# bench_qemu DESTINATION : the QEMU of this machine, its libraries and the firmware it needs.
bench_qemu() {
    local program file
    program=$(command -v qemu-system-x86_64)
    mkdir -p "$1/firmware"
    cp -L "$program" "$1/"
    ldd "$program" | grep -o '/[^ ]*' | while read -r file; do
        cp -L "$file" "$1/"
    done
    cp -L /usr/share/seabios/bios-256k.bin /usr/share/qemu/{bios-microvm,pvh,linuxboot_dma,kvmvapic}.bin "$1/firmware/"
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
    qemu-system-x86_64 -machine q35 "${BENCH_CLOCK[@]}" -cpu "$(qemu_cpu tcg)" -m 3072 -nodefaults -display none \
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
    install -m 0755 "$CARGO_IMAGE"/examples/{boot-guest,measure-guest} "$root/bench/"
    bench_guests "$root/bench/guests"
    bench_qemu "$root/bench/qemu"
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
    sed -i 's|^set options="|&rdinit=/bench/init bench=api |' "$config/grub.cfg"
    pc=$(packages_tree "$lock" grub-pc-bin)/usr/lib/grub/i386-pc
    efi=$(packages_tree "$lock" grub-efi-amd64-bin)/usr/lib/grub/x86_64-efi
    iso_build "$pc" "$efi" "$config" "$(bench_iso_file /boot/vmlinuz)" "$BENCH/host.initrd" "$BENCH/host.iso"
    say "Measuring the host on the virtual clock (ready,api)"
    bench_vm host -vga std -netdev user,id=net0 -device virtio-net-pci,netdev=net0 \
        -drive "if=none,id=medium,format=raw,readonly=on,file=$BENCH/host.iso,media=cdrom" \
        -device ide-cd,drive=medium,bootindex=0
}
