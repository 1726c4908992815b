//! State components that XSAVE saves (Intel SDM volume 1, 13.2), in leaf 0xd.

use kvm_bindings::kvm_cpuid_entry2;

/// Those of x87 and SSE, which are always there.
pub const LEGACY: u64 = 0b11;
/// Where the first of the others begins in an area: behind the legacy region and the header.
const FIRST: u32 = 576;
/// The component is one of XSS, not of XCR0.
const SUPERVISOR: u32 = 1;

/// The component that holds a feature's registers.
pub fn component(feature: &str) -> u64 {
    match feature {
        "avx" => 1 << 2,
        "mpx" => 0b11 << 3,
        "avx512f" => 0b111 << 5,
        "pku" => 1 << 9,
        _ => 0,
    }
}

/// Those of XCR0 that a processor with these leaves has.
pub fn components(entries: &[kvm_cpuid_entry2]) -> u64 {
    let mut leaves = entries.iter();
    let leaf = leaves.find(|entry| entry.function == 0xd && entry.index == 0);
    leaf.map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax))
}

/// Whether a leaf's component is one of XSS, not of XCR0.
pub fn is_supervisor(entry: &kvm_cpuid_entry2) -> bool {
    entry.ecx & SUPERVISOR != 0
}

/// Leaves only those of `kept`, and makes the sizes fit. All of the leaf is empty without XSAVE.
pub fn restrict(entries: &mut Vec<kvm_cpuid_entry2>, kept: u64) {
    let kept = if super::model::has(entries, "xsave") {
        kept & components(entries)
    } else {
        0
    };
    entries.retain(|entry| match (entry.function, entry.index) {
        (0xd, 0 | 1) => true,
        (0xd, 2..64) => kept != 0 && (is_supervisor(entry) || kept >> entry.index & 1 != 0),
        (0xd, _) => false,
        _ => true,
    });
    let end = |entry: &kvm_cpuid_entry2| match (entry.function, entry.index) {
        (0xd, 2..) if !is_supervisor(entry) => entry.ebx.saturating_add(entry.eax),
        _ => 0,
    };
    let size = entries.iter().map(end).fold(FIRST, u32::max);
    for entry in entries.iter_mut().filter(|entry| entry.function == 0xd) {
        match entry.index {
            0 | 1 if kept == 0 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0 => {
                (entry.eax, entry.edx) = (kept as u32, (kept >> 32) as u32);
                // KVM makes EBX what is enabled in XCR0 at the moment.
                (entry.ebx, entry.ecx) = (size, size);
            }
            _ => {}
        }
    }
}
