//! Leaves that make a guest find Hyper-V, whose paravirtual features Windows knows (Microsoft, Hypervisor Top Level
//! Functional Specification, "Feature and Interface Discovery").
//!
//! KVM's own leaves move up, to where systems that know both look for them.

use kvm_bindings::kvm_cpuid_entry2;

use super::{HYPERVISOR_BASE, KVM_FEATURES};

/// How far apart hypervisors' leaves are, when there are several.
const DISTANCE: u32 = 0x100;
/// KVM's paravirtual features beside those of Hyper-V.
pub const KVM_FEATURES_BESIDE: u32 = KVM_FEATURES + DISTANCE;

const VENDOR: &[u8; 12] = b"Microsoft Hv";
/// "Hv#1": the interface of that specification.
const INTERFACE: u32 = u32::from_le_bytes(*b"Hv#1");
const LAST_LEAF: u32 = HYPERVISOR_BASE + 5;

/// Version 10.0, build 14393, the first that has all of this.
const BUILD: u32 = 14393;
const VERSION: u32 = 10 << 16;

/// Partition privileges: what each virtual processor may use.
const RUN_TIME: u32 = 1 << 0;
const REFERENCE_COUNTER: u32 = 1 << 1;
const SYNTHETIC_INTERRUPTS: u32 = 1 << 2;
const SYNTHETIC_TIMERS: u32 = 1 << 3;
const APIC_REGISTERS: u32 = 1 << 4;
const HYPERCALLS: u32 = 1 << 5;
const PROCESSOR_INDEX: u32 = 1 << 6;
const RESET: u32 = 1 << 7;
const REFERENCE_TSC: u32 = 1 << 9;
const FREQUENCIES: u32 = 1 << 11;

/// Features.
const FREQUENCY_REGISTERS: u32 = 1 << 8;
const CRASH_REGISTERS: u32 = 1 << 10;
const DIRECT_TIMERS: u32 = 1 << 19;

/// Recommendations.
const FLUSH_BY_HYPERCALL: u32 = 1 << 2;
const APIC_BY_REGISTERS: u32 = 1 << 3;
/// Watchdogs are to be patient: a processor may have been away.
const RELAXED_TIMING: u32 = 1 << 5;
const NO_AUTOMATIC_END: u32 = 1 << 9;
const INTERRUPT_BY_HYPERCALL: u32 = 1 << 10;
const LARGE_PROCESSOR_SETS: u32 = 1 << 11;
/// How often to try for a spin lock before the hypervisor is told.
const SPINS: u32 = 0x1fff;

/// Processors of a partition, at most.
const PROCESSORS: u32 = 64;

/// Adds the leaves, if they are not there yet.
pub fn add(entries: &mut Vec<kvm_cpuid_entry2>) {
    if present(entries) {
        return;
    }
    for entry in &mut *entries {
        if (HYPERVISOR_BASE..HYPERVISOR_BASE + DISTANCE).contains(&entry.function) {
            if entry.function == HYPERVISOR_BASE {
                // The last leaf of this range.
                entry.eax = KVM_FEATURES_BESIDE;
            }
            entry.function += DISTANCE;
        }
    }
    let vendor = [0, 4, 8].map(|at| {
        let word = [0, 1, 2, 3].map(|byte| VENDOR[at + byte]);
        u32::from_le_bytes(word)
    });
    let privileges = RUN_TIME
        | REFERENCE_COUNTER
        | SYNTHETIC_INTERRUPTS
        | SYNTHETIC_TIMERS
        | APIC_REGISTERS
        | HYPERCALLS
        | PROCESSOR_INDEX
        | RESET
        | REFERENCE_TSC
        | FREQUENCIES;
    let features = FREQUENCY_REGISTERS | CRASH_REGISTERS | DIRECT_TIMERS;
    let recommendations = FLUSH_BY_HYPERCALL
        | APIC_BY_REGISTERS
        | RELAXED_TIMING
        | NO_AUTOMATIC_END
        | INTERRUPT_BY_HYPERCALL
        | LARGE_PROCESSOR_SETS;
    let leaves = [
        [LAST_LEAF, vendor[0], vendor[1], vendor[2]],
        [INTERFACE, 0, 0, 0],
        [BUILD, VERSION, 0, 0],
        [privileges, 0, 0, features],
        [recommendations, SPINS, 0, 0],
        [PROCESSORS, PROCESSORS, 0, 0],
    ];
    entries.extend(
        (HYPERVISOR_BASE..)
            .zip(leaves)
            .map(|(function, [eax, ebx, ecx, edx])| kvm_cpuid_entry2 {
                function,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            }),
    );
}

/// Whether a guest with these leaves finds Hyper-V.
pub fn present(entries: &[kvm_cpuid_entry2]) -> bool {
    entries
        .iter()
        .any(|entry| entry.function == KVM_FEATURES && entry.eax == INTERFACE)
}
