# shellcheck shell=bash
# What every script that starts a virtual bare-metal machine has to know about QEMU.

# Emulation on one thread for all processors: with a thread for each, QEMU 7.2 now and then runs an instruction which the
# other processor is just patching, and hosts with many guests crashed within minutes.
QEMU_TCG=tcg,thread=single

# qemu_accel : kvm where this machine's KVM can nest (a Lodge in it needs its own KVM), else QEMU_TCG.
qemu_accel() {
    local vendor
    if [[ -w /dev/kvm ]]; then
        for vendor in intel amd; do
            # 1 on kernels where it is a number, Y where it is a switch.
            [[ $(cat "/sys/module/kvm_$vendor/parameters/nested" 2>/dev/null) == [1Y] ]] && echo kvm && return 0
        done
    fi
    echo "$QEMU_TCG"
}

# qemu_cpu ACCEL : the processor model, with the virtualization extensions that Lodge needs.
# Without cx16: QEMU 7.2 (Debian 12) corrupts the flags register when cmpxchg16b faults, and Linux 6.12 uses that
# instruction in its memory allocator: half of all boots crashed in kmem_cache_alloc. Kernels do without it when told.
# Without erms: `rep stosb` is emulated byte by byte, and a kernel that is told it is fast clears all its pages with it. A
# guest's start takes a third of the time without.
qemu_cpu() {
    case $1 in
        kvm) echo host ;;
        *) echo max,+svm,-cx16,-erms ;;
    esac
}

# qemu_processors ACCEL : how many the machine has. Emulated on one thread, two only wait for each other.
qemu_processors() {
    case $1 in
        kvm) echo 2 ;;
        *) echo 1 ;;
    esac
}
