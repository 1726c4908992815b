//! Named processors: what a guest may know of the host's, so that it can go on on another host.
//!
//! A baseline is exact. It has the same features on every host that can give them, and leaves tell nothing that differs
//! between hosts of one vendor but sizes of caches, which are for performance only. The vendor is the host's: guests depend on
//! how its processors differ from others'.

use kvm_bindings::kvm_cpuid_entry2;
use lodge_vmm_proto::{CpuConfig, CpuFeature, CpuModel, CpuidRegister, FEATURES};

use super::xsave;

/// The least that any 64-bit system takes for granted, and what KVM gives on every host.
const BASE: &[&str] = &[
    "fpu",
    "de",
    "pse",
    "tsc",
    "msr",
    "pae",
    "mce",
    "cx8",
    "apic",
    "sep",
    "mtrr",
    "pge",
    "mca",
    "cmov",
    "pat",
    "pse36",
    "clflush",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "syscall",
    "nx",
    "lm",
    "x2apic",
    "tsc_deadline_timer",
    "tsc_adjust",
    "hypervisor",
];
const V2: &[&str] = &[
    "sse3", "ssse3", "sse4_1", "sse4_2", "cx16", "popcnt", "lahf_lm",
];
const V3: &[&str] = &[
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "abm",
    "movbe",
    "xsave",
    // All processors since Haswell, Excavator and Zen have these as well.
    "aes",
    "pclmulqdq",
    "rdrand",
    "rdtscp",
    "pdpe1gb",
    "fsgsbase",
    "smep",
    "xsaveopt",
];
const V4: &[&str] = &[
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    // And all since Skylake-SP and Zen 4 these.
    "pcid",
    "invpcid",
    "erms",
    "adx",
    "smap",
    "clflushopt",
    "clwb",
    "xsavec",
    "xgetbv1",
];

/// Bits of leaf 0x8000_0001 EDX that AMD repeats from leaf 1.
const AMD_REPEATS: u32 = 0x0183_f3ff;
/// CMP_LEGACY and TOPOEXT, which are about the topology.
const AMD_TOPOLOGY: u32 = 1 << 1 | 1 << 22;
/// The APIC timer runs in all sleep states.
const ARAT: u32 = 1 << 2;
/// "See leaf 4" in the list of descriptors of leaf 2.
const NO_DESCRIPTORS: u32 = 0xff01;
/// CLFLUSH takes eight quadwords.
const CLFLUSH_SIZE: u32 = 8 << 8;
/// Linear addresses have 48 bits.
const LINEAR_BITS: u32 = 48 << 8;
/// KVM's paravirtual features of every kernel since 5.10: clocks, steal time, ends of interrupts, unhalt, TLB flushes, IPIs,
/// polling, yielding, and that the clock is stable.
const KVM_FEATURES: u32 = 0x0100_3aeb;

/// Features that are wanted and this host cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host's processor lacks {} of what the guest's is to have; choose another model, or leave them out with `-`",
    .0.join(", ")
)]
pub struct MissingFeatures(Vec<&'static str>);

/// Makes the leaves of the host those of the processor that is wanted for a guest with so much memory.
pub fn apply(
    entries: &mut Vec<kvm_cpuid_entry2>,
    wanted: &CpuConfig,
    memory: u64,
) -> Result<(), MissingFeatures> {
    let features = Set::wanted(entries, wanted);
    let missing = features.missing(entries);
    if !missing.is_empty() {
        return Err(MissingFeatures(missing));
    }
    if wanted.model == CpuModel::Host {
        if !wanted.remove.is_empty() {
            let removed = Set::with_dependents(&wanted.remove);
            removed.clear(entries);
            xsave::restrict(entries, xsave::components(entries) & !removed.components());
        }
        return Ok(());
    }
    reduce(entries, wanted.model, &features, memory);
    xsave::restrict(entries, features.components() | xsave::LEGACY);
    Ok(())
}

/// Whether a guest with these leaves has a feature.
pub fn has(entries: &[kvm_cpuid_entry2], name: &str) -> bool {
    CpuFeature::named(name).is_some_and(|feature| present(entries, feature))
}

/// Some features, each once.
struct Set(Vec<&'static CpuFeature>);

impl Set {
    fn wanted(entries: &[kvm_cpuid_entry2], wanted: &CpuConfig) -> Self {
        let baseline: Vec<&[&str]> = match wanted.model {
            CpuModel::Host => Vec::new(),
            CpuModel::X86V2 => vec![BASE, V2],
            CpuModel::X86V3 => vec![BASE, V2, V3],
            CpuModel::X86V4 => vec![BASE, V2, V3, V4],
        };
        let host = wanted.model == CpuModel::Host;
        let mut names: Vec<&str> = baseline.concat();
        names.extend(wanted.add.iter().map(String::as_str));
        let added = |feature: &&CpuFeature| names.iter().any(|&name| needs(name, feature.name));
        let removed = Self::with_dependents(&wanted.remove);
        let all = FEATURES.iter().filter(|feature| {
            (added(feature) || host && present(entries, feature)) && !removed.0.contains(feature)
        });
        Self(all.collect())
    }

    /// Those named, and all that are nothing without them.
    fn with_dependents(names: &[String]) -> Self {
        let all = FEATURES
            .iter()
            .filter(|feature| names.iter().any(|name| needs(feature.name, name)));
        Self(all.collect())
    }

    fn missing(&self, entries: &[kvm_cpuid_entry2]) -> Vec<&'static str> {
        let missing = self.0.iter().filter(|feature| !present(entries, feature));
        missing.map(|feature| feature.name).collect()
    }

    /// The bits of a register that stand for them.
    fn bits(&self, leaf: u32, index: u32, register: CpuidRegister) -> u32 {
        let here = self.0.iter().filter(|feature| {
            feature.leaf == leaf && feature.index == index && feature.register == register
        });
        here.fold(0, |bits, feature| bits | 1 << feature.bit)
    }

    fn clear(&self, entries: &mut [kvm_cpuid_entry2]) {
        for entry in entries {
            let (leaf, index) = (entry.function, entry.index);
            entry.eax &= !self.bits(leaf, index, CpuidRegister::Eax);
            entry.ebx &= !self.bits(leaf, index, CpuidRegister::Ebx);
            entry.ecx &= !self.bits(leaf, index, CpuidRegister::Ecx);
            entry.edx &= !self.bits(leaf, index, CpuidRegister::Edx);
        }
    }

    /// State components of XCR0 that hold their registers.
    fn components(&self) -> u64 {
        let components = self.0.iter().map(|feature| xsave::component(feature.name));
        components.fold(0, |all, component| all | component)
    }
}

/// Whether `name` is `other`, or is nothing without it.
fn needs(name: &str, other: &str) -> bool {
    let mut next = Some(name);
    while let Some(name) = next {
        if name == other {
            return true;
        }
        next = CpuFeature::named(name).and_then(|feature| feature.needs);
    }
    false
}

fn present(entries: &[kvm_cpuid_entry2], feature: &CpuFeature) -> bool {
    let mut leaves = entries.iter();
    let leaf = leaves.find(|entry| entry.function == feature.leaf && entry.index == feature.index);
    let register = leaf.map(|leaf| match feature.register {
        CpuidRegister::Eax => leaf.eax,
        CpuidRegister::Ebx => leaf.ebx,
        CpuidRegister::Ecx => leaf.ecx,
        CpuidRegister::Edx => leaf.edx,
    });
    register.is_some_and(|register| register >> feature.bit & 1 != 0)
}

/// Takes away all that is not the baseline's.
fn reduce(entries: &mut Vec<kvm_cpuid_entry2>, model: CpuModel, features: &Set, memory: u64) {
    let intel = entries
        .iter()
        .any(|entry| entry.function == 0 && entry.ebx == u32::from_le_bytes(*b"Genu"));
    let (signature, brand) = identity(model, intel);
    let more = features.bits(7, 1, CpuidRegister::Eax) != 0;
    entries.retain(|entry| match entry.function {
        0x7 => entry.index == 0 || entry.index == 1 && more,
        0xd => entry.index < 2 || !xsave::is_supervisor(entry),
        0x0..=0x2 | 0x4 | 0x6 | 0x4000_0000..=0x4000_00ff | 0x8000_0000..=0x8000_0008 => true,
        0x8000_001d | 0x8000_001e => !intel,
        _ => false,
    });
    for entry in entries {
        let bits = |register| features.bits(entry.function, entry.index, register);
        let (eax, ebx) = (bits(CpuidRegister::Eax), bits(CpuidRegister::Ebx));
        let (ecx, edx) = (bits(CpuidRegister::Ecx), bits(CpuidRegister::Edx));
        let registers = match (entry.function, entry.index) {
            (0x0, _) => (entry.eax.min(0xd), entry.ebx, entry.ecx, entry.edx),
            (0x1, _) => (signature, CLFLUSH_SIZE, ecx, edx),
            (0x2, _) => (if intel { NO_DESCRIPTORS } else { 0 }, 0, 0, 0),
            (0x6, _) => (entry.eax & ARAT, 0, 0, 0),
            (0x7, 0) => (u32::from(more), ebx, ecx, edx),
            (0x7, _) => (eax, 0, 0, 0),
            (0xd, 1) => (eax, 0, 0, 0),
            (0x4000_0001, _) => (entry.eax & KVM_FEATURES, 0, 0, 0),
            (0x8000_0000, _) => (
                if intel {
                    0x8000_0008
                } else {
                    entry.eax.min(0x8000_001e)
                },
                entry.ebx,
                entry.ecx,
                entry.edx,
            ),
            (0x8000_0001, _) => {
                let repeated = features.bits(1, 0, CpuidRegister::Edx) & AMD_REPEATS;
                let topology = entry.ecx & AMD_TOPOLOGY;
                (
                    if intel { 0 } else { signature },
                    0,
                    ecx | topology,
                    edx | if intel { 0 } else { repeated },
                )
            }
            (0x8000_0002..=0x8000_0004, _) => words(brand, entry.function - 0x8000_0002),
            (0x8000_0007, _) => (0, 0, 0, 0),
            (0x8000_0008, _) => (
                address_bits(memory).min(entry.eax & 0xff) | LINEAR_BITS,
                ebx,
                entry.ecx,
                0,
            ),
            // Sizes of caches, topology, names of leaves, state components.
            _ => (entry.eax, entry.ebx, entry.ecx, entry.edx),
        };
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = registers;
    }
}

/// Family, model and stepping of the first processors of a level, and a name.
fn identity(model: CpuModel, intel: bool) -> (u32, &'static str) {
    match (model, intel) {
        (CpuModel::Host | CpuModel::X86V2, true) => (0x0001_06a5, "x86-64-v2"),
        (CpuModel::Host | CpuModel::X86V2, false) => (0x0060_0f12, "x86-64-v2"),
        (CpuModel::X86V3, true) => (0x0003_06c3, "x86-64-v3"),
        (CpuModel::X86V3, false) => (0x0080_0f12, "x86-64-v3"),
        (CpuModel::X86V4, true) => (0x0005_0654, "x86-64-v4"),
        (CpuModel::X86V4, false) => (0x00a1_0f11, "x86-64-v4"),
    }
}

/// A third of a processor's name of 48 characters.
fn words(name: &str, third: u32) -> (u32, u32, u32, u32) {
    let mut bytes = name.bytes().skip(third as usize * 16);
    let mut word = || u32::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0)));
    (word(), word(), word(), word())
}

/// 39, which the smallest of today's processors have, or as many as the memory needs with the window for devices above it.
fn address_bits(memory: u64) -> u32 {
    const WINDOW: u64 = 64 << 30;
    let end = memory.saturating_add(WINDOW);
    (u64::BITS - end.leading_zeros()).max(39)
}
