//! Numbers of the `ioctl(2)` requests a monitor makes (Linux, `linux/kvm.h`, `linux/vhost.h`, `linux/if_tun.h`).

use kvm_bindings::{
    kvm_clock_data, kvm_debugregs, kvm_ioeventfd, kvm_irq_level, kvm_irq_routing, kvm_irqchip,
    kvm_irqfd, kvm_lapic_state, kvm_mp_state, kvm_msrs, kvm_pit_state2, kvm_regs, kvm_sregs,
    kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

const KVM: u32 = 0xae;
const VHOST: u32 = 0xaf;
const TUN: u32 = b'T' as u32;

const fn none(kind: u32, number: u32) -> u32 {
    (kind << 8) | number
}

/// The request hands over a `T`.
const fn write<T>(kind: u32, number: u32) -> u32 {
    (1 << 30) | ((size_of::<T>() as u32) << 16) | none(kind, number)
}

/// The request returns a `T`.
const fn read<T>(kind: u32, number: u32) -> u32 {
    (2 << 30) | ((size_of::<T>() as u32) << 16) | none(kind, number)
}

/// Enter the guest.
pub const KVM_RUN: u32 = none(KVM, 0x80);

/// Interrupts and doorbells, which devices use from any thread.
pub const KVM_INTERRUPTS: &[u32] = &[
    write::<kvm_irq_level>(KVM, 0x61),
    write::<kvm_irq_routing>(KVM, 0x6a),
    write::<kvm_irqfd>(KVM, 0x76),
    write::<kvm_ioeventfd>(KVM, 0x79),
];

/// Showing and hiding the cells of the flash chip.
pub const KVM_MEMORY: &[u32] = &[write::<kvm_userspace_memory_region>(KVM, 0x46)];

/// Where a vCPU stands, for the message when it cannot go on.
pub const KVM_INSPECT: &[u32] = &[read::<kvm_regs>(KVM, 0x81), read::<kvm_sregs>(KVM, 0x83)];

/// Everything a reset sets.
pub const KVM_RESET: &[u32] = &[
    write::<kvm_regs>(KVM, 0x82),
    write::<kvm_sregs>(KVM, 0x84),
    write::<kvm_msrs>(KVM, 0x89),
    write::<kvm_lapic_state>(KVM, 0x8f),
    write::<kvm_mp_state>(KVM, 0x99),
    write::<kvm_vcpu_events>(KVM, 0xa0),
    write::<kvm_debugregs>(KVM, 0xa2),
    write::<kvm_xsave>(KVM, 0xa5),
    write::<kvm_xcrs>(KVM, 0xa7),
    // Declared with the wrong direction, for ever.
    read::<kvm_irqchip>(KVM, 0x63),
    write::<kvm_pit_state2>(KVM, 0xa0),
    // A pause is explained to the guest's clock.
    none(KVM, 0xad),
];

/// Everything that is saved.
pub const KVM_SAVE: &[u32] = &[
    read::<kvm_regs>(KVM, 0x81),
    read::<kvm_sregs>(KVM, 0x83),
    // Both ways: the list says which.
    (3 << 30) | write::<kvm_msrs>(KVM, 0x88),
    read::<kvm_lapic_state>(KVM, 0x8e),
    read::<kvm_mp_state>(KVM, 0x98),
    read::<kvm_vcpu_events>(KVM, 0x9f),
    read::<kvm_debugregs>(KVM, 0xa1),
    none(KVM, 0xa3),
    read::<kvm_xsave>(KVM, 0xa4),
    read::<kvm_xcrs>(KVM, 0xa6),
    (3 << 30) | write::<kvm_irqchip>(KVM, 0x62),
    read::<kvm_pit_state2>(KVM, 0x9f),
    read::<kvm_clock_data>(KVM, 0x7c),
];

/// Starting and stopping network interfaces, and sockets between guest and host.
pub const NETWORK: &[u32] = &[
    write::<u64>(VHOST, 0x00),
    write::<u64>(VHOST, 0x03),
    write::<[u32; 2]>(VHOST, 0x10),
    write::<[u64; 5]>(VHOST, 0x11),
    write::<[u32; 2]>(VHOST, 0x12),
    (3 << 30) | write::<[u32; 2]>(VHOST, 0x12),
    write::<[u32; 2]>(VHOST, 0x20),
    write::<[u32; 2]>(VHOST, 0x21),
    write::<[u32; 2]>(VHOST, 0x22),
    write::<[u32; 2]>(VHOST, 0x30),
    write::<i32>(VHOST, 0x61),
    write::<u32>(TUN, 208),
    write::<u32>(TUN, 209),
    write::<i32>(TUN, 216),
    write::<i32>(TUN, 217),
];

/// Looking at what network interfaces are built from, and making it ours.
pub const NEW_NETWORK: &[u32] = &[
    read::<u64>(VHOST, 0x00),
    none(VHOST, 0x01),
    read::<u32>(TUN, 210),
];
