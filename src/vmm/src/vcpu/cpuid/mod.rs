//! What a vCPU says about itself.
//!
//! The host's own features as far as KVM can give them to a guest, with a
//! topology of one socket, one core per vCPU and one thread per core.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};
use serde::{Deserialize, Serialize};

use crate::kvm::KvmError;

const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF_1_ECX_MONITOR: u32 = 1 << 3;
const LEAF_1_EDX_HTT: u32 = 1 << 28;
const AMD_1_ECX_CMP_LEGACY: u32 = 1 << 1;
const AMD_1_ECX_PERFCTR_CORE: u32 = 1 << 23;
const AMD_1_ECX_PERFCTR_NB: u32 = 1 << 24;

const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// Frequencies, as first defined by VMware and read by many systems.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// Paravirtual features (Linux, Documentation/virt/kvm/x86/cpuid.rst).
const KVM_FEATURES: u32 = 0x4000_0001;
/// The guest ends interrupts by a bit in memory.
const KVM_FEATURE_PV_EOI: u32 = 1 << 6;
/// KVM's APIC timer counts nanoseconds.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// The leaves of a machine's vCPUs, before each gets its own APIC ID.
#[derive(Clone, Serialize, Deserialize)]
pub struct CpuidTemplate {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u32,
    /// Frequency of the time stamp counters in kHz, where it is not just what the host has.
    #[serde(default)]
    tsc_khz: Option<u32>,
}

/// Features that a saved machine has and this host cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest was saved on a processor with features that this one lacks (CPUID leaf {function:#x}.{index}, {register}: {missing:#010x})"
)]
pub struct LacksFeatures {
    function: u32,
    index: u32,
    register: &'static str,
    missing: u32,
}

impl CpuidTemplate {
    /// What this host can give to each of `vcpus` vCPUs.
    ///
    /// # Errors
    /// When KVM does not tell.
    pub fn new(kvm: &Kvm, vcpus: u8) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::call("KVM_GET_SUPPORTED_CPUID"))?;
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self::from_supported(supported.as_slice(), vcpus, deadline))
    }

    fn from_supported(supported: &[kvm_cpuid_entry2], vcpus: u8, deadline: bool) -> Self {
        Self::from_leaves(supported, vcpus, deadline, is_emulated())
    }

    fn from_leaves(
        supported: &[kvm_cpuid_entry2],
        vcpus: u8,
        deadline: bool,
        emulated: bool,
    ) -> Self {
        let topology_leaf = |function| matches!(function, 0xb | 0x1f);
        let mut template = Self {
            entries: supported
                .iter()
                .filter(|entry| !topology_leaf(entry.function))
                .copied()
                .collect(),
            vcpus: u32::from(vcpus),
            tsc_khz: None,
        };
        template.adjust_features(deadline);
        if emulated {
            template.take_paravirtual_eoi();
        }
        template.set_topology();
        template
    }

    /// The same for guests that are to find their time stamp counter as it was.
    pub fn with_tsc_khz(mut self, tsc_khz: Option<u32>) -> Self {
        self.tsc_khz = tsc_khz;
        self
    }

    /// The frequency of the time stamp counter that the guest is to have.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    /// Checks that this host, of which `host` is the template, can give every feature of a saved one.
    ///
    /// # Errors
    /// The first features that are missing.
    pub fn check_features(&self, host: &Self) -> Result<(), LacksFeatures> {
        for saved in self.entries.iter().filter(|entry| has_features(entry)) {
            let found = host
                .entries
                .iter()
                .find(|entry| entry.function == saved.function && entry.index == saved.index)
                .copied()
                .unwrap_or_default();
            for (register, wanted, here) in [
                ("eax", saved.eax, found.eax),
                ("ebx", saved.ebx, found.ebx),
                ("ecx", saved.ecx, found.ecx),
                ("edx", saved.edx, found.edx),
            ] {
                let missing = wanted & !here & feature_bits(saved.function, register);
                if missing != 0 {
                    return Err(LacksFeatures {
                        function: saved.function,
                        index: saved.index,
                        register,
                        missing,
                    });
                }
            }
        }
        Ok(())
    }

    /// Bits of a guest-physical address.
    pub fn physical_address_bits(&self) -> u32 {
        self.entries
            .iter()
            .find(|entry| entry.function == 0x8000_0008)
            .map_or(36, |entry| entry.eax & 0xff)
    }

    /// The leaves of vCPU `id`.
    ///
    /// # Errors
    /// When there are more than KVM takes, which no known host has.
    pub fn for_vcpu(&self, id: u8, tsc_khz: Option<u32>) -> Result<CpuId, KvmError> {
        let apic_id = u32::from(id);
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                0x1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (apic_id << 24),
                0xb | 0x1f => entry.edx = apic_id,
                0x8000_001e => {
                    entry.eax = apic_id;
                    // One thread per core.
                    entry.ebx = apic_id & 0xff;
                    entry.ecx = 0;
                }
                HYPERVISOR_BASE if tsc_khz.is_some() => {
                    entry.eax = entry.eax.max(HYPERVISOR_TIMING);
                }
                _ => {}
            }
        }
        if let Some(eax) = tsc_khz {
            entries.push(kvm_cpuid_entry2 {
                function: HYPERVISOR_TIMING,
                eax,
                ebx: APIC_BUS_KHZ,
                ..Default::default()
            });
        }
        CpuId::from_entries(&entries).map_err(|_| KvmError::Call {
            call: "CPUID",
            source: std::io::Error::other("too many leaves"),
        })
    }

    /// QEMU's emulator (up to 10.0 at least) delivers an interrupt twice now and then, whether or not interrupts are enabled, when a nested
    /// guest has not left it since the first time. Linux died of it in the first instructions of system calls. An end of
    /// interrupt that leaves the guest makes that all but impossible.
    fn take_paravirtual_eoi(&mut self) {
        for entry in &mut self.entries {
            if entry.function == KVM_FEATURES {
                entry.eax &= !KVM_FEATURE_PV_EOI;
            }
        }
    }

    fn adjust_features(&mut self, deadline: bool) {
        let many = self.vcpus > 1;
        let count = self.vcpus;
        for entry in &mut self.entries {
            match entry.function {
                0x1 => {
                    entry.ecx |= LEAF_1_ECX_HYPERVISOR;
                    // MONITOR would leave the guest waiting on the host's core.
                    entry.ecx &= !LEAF_1_ECX_MONITOR;
                    if deadline {
                        entry.ecx |= LEAF_1_ECX_TSC_DEADLINE;
                    }
                    set(&mut entry.edx, LEAF_1_EDX_HTT, many);
                    entry.ebx = (entry.ebx & 0xff00_ffff) | (count << 16);
                }
                // Performance counters are off.
                0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                0x8000_0001 => {
                    if !many {
                        entry.ecx &= !AMD_1_ECX_CMP_LEGACY;
                    }
                    entry.ecx &= !(AMD_1_ECX_PERFCTR_CORE | AMD_1_ECX_PERFCTR_NB);
                }
                _ => {}
            }
        }
    }

    fn set_topology(&mut self) {
        let count = self.vcpus;
        let shift = core_shift(count);
        for entry in &mut self.entries {
            match entry.function {
                // Deterministic cache parameters: levels 1 and 2 are a core's
                // own, the last level belongs to all.
                0x4 if entry.eax & 0x1f != 0 => {
                    let level = (entry.eax >> 5) & 0x7;
                    let sharing = if level >= 3 { (1 << shift) - 1 } else { 0 };
                    let cores = (1 << shift) - 1;
                    entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26);
                }
                0x8000_001d if entry.eax & 0x1f != 0 => {
                    let level = (entry.eax >> 5) & 0x7;
                    let sharing = if level >= 3 { count - 1 } else { 0 };
                    entry.eax = (entry.eax & 0x3fff) | (sharing << 14);
                }
                0x8000_0008 => {
                    entry.ecx = (entry.ecx & !0xf0ff) | (shift << 12) | (count - 1);
                }
                _ => {}
            }
        }
        let max_leaf = self.max_leaf();
        for function in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= max_leaf) {
            self.entries.extend(topology(function, count, shift));
        }
    }

    fn max_leaf(&self) -> u32 {
        self.entries
            .iter()
            .find(|entry| entry.function == 0)
            .map_or(0, |entry| entry.eax)
    }
}

/// Leaves whose bits each stand for a feature.
fn has_features(entry: &kvm_cpuid_entry2) -> bool {
    ["eax", "ebx", "ecx", "edx"]
        .iter()
        .any(|register| feature_bits(entry.function, register) != 0)
}

/// Which bits of a leaf's register stand for features (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E).
fn feature_bits(function: u32, register: &str) -> u32 {
    match (function, register) {
        (0x1 | 0x8000_0001, "ecx" | "edx")
        | (0x7, "ebx" | "ecx" | "edx")
        | (0x8000_0008, "ebx")
        | (KVM_FEATURES, "eax") => u32::MAX,
        // XSAVEOPT, XSAVEC and so on; the state components of subleaf 0 are a set as well.
        (0xd, "eax") => 0xffff,
        _ => 0,
    }
}

/// Whether this host's processor is itself emulated by QEMU.
fn is_emulated() -> bool {
    let name = std::arch::x86_64::__cpuid(HYPERVISOR_BASE);
    let bytes = [name.ebx, name.ecx, name.edx].map(u32::to_le_bytes);
    bytes.concat() == b"TCGTCGTCGTCG"
}

/// Extended topology enumeration: threads of a core, cores of the socket, the end.
fn topology(function: u32, count: u32, shift: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index, kind, eax, ebx| kvm_cpuid_entry2 {
        function,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | (kind << 8),
        ..Default::default()
    };
    [
        level(0, LEVEL_THREAD, 0, 1),
        level(1, LEVEL_CORE, shift, count),
        level(2, 0, 0, 0),
    ]
}

/// Bits of the APIC ID that number the cores.
fn core_shift(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<kvm_cpuid_entry2> {
        let leaf = |function, index, eax| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ..Default::default()
        };
        vec![
            leaf(0, 0, 0x1f),
            leaf(1, 0, 0),
            leaf(4, 0, 0x21),
            leaf(4, 3, 0x63),
            leaf(0xb, 0, 99),
            leaf(HYPERVISOR_BASE, 0, 0x4000_0001),
            leaf(0x8000_0008, 0, 0x3030),
            leaf(0x8000_001e, 0, 0),
        ]
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found: Vec<_> = cpuid
            .as_slice()
            .iter()
            .filter(|entry| entry.function == function && entry.index == index)
            .collect();
        assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
        *found[0]
    }

    #[test]
    fn emulated_hosts_get_every_end_of_interrupt() {
        let leaf = kvm_cpuid_entry2 {
            function: KVM_FEATURES,
            eax: 0xff,
            ..Default::default()
        };
        for (emulated, features) in [(false, 0xff), (true, 0xbf)] {
            let template = CpuidTemplate::from_leaves(&[leaf], 1, true, emulated);
            let cpuid = template.for_vcpu(0, None).unwrap();
            assert_eq!(find(&cpuid, KVM_FEATURES, 0).eax, features);
        }
    }

    #[test]
    fn a_host_must_have_every_feature_of_a_saved_machine() {
        let template = |ecx| {
            let mut leaves = host();
            leaves[1].ecx = ecx;
            CpuidTemplate::from_supported(&leaves, 1, true)
        };
        let saved = template(0b0011);
        assert_eq!(saved.check_features(&template(0b0111)), Ok(()));
        let error = saved.check_features(&template(0b0110)).unwrap_err();
        assert_eq!((error.function, error.missing), (1, 1));
        // Not features: the APIC ID of the processor that was asked, addresses of caches.
        let mut leaves = host();
        leaves[1].ebx = 77 << 24;
        let other = CpuidTemplate::from_supported(&leaves, 1, true);
        assert_eq!(other.check_features(&template(0)), Ok(()));
    }

    #[test]
    fn topology_leaves_agree_for_every_count() {
        for count in 1..=64_u8 {
            let template = CpuidTemplate::from_supported(&host(), count, true);
            for id in [0, count / 2, count - 1] {
                let cpuid = template.for_vcpu(id, Some(2_000_000)).unwrap();
                let n = u32::from(count);
                let apic_id = u32::from(id);
                let shift = find(&cpuid, 0xb, 1).eax;
                assert!(n <= 1 << shift && (shift == 0 || n > 1 << (shift - 1)));
                assert_eq!(find(&cpuid, 0xb, 1).ebx, n);
                assert_eq!(find(&cpuid, 0x1f, 0).edx, apic_id);
                assert_eq!(find(&cpuid, 1, 0).ebx >> 24, apic_id);
                assert_eq!((find(&cpuid, 1, 0).ebx >> 16) & 0xff, n);
                assert_eq!(find(&cpuid, 1, 0).edx & LEAF_1_EDX_HTT != 0, n > 1);
                assert_eq!(find(&cpuid, 4, 0).eax >> 26, (1 << shift) - 1);
                assert_eq!((find(&cpuid, 4, 0).eax >> 14) & 0xfff, 0);
                assert_eq!((find(&cpuid, 4, 3).eax >> 14) & 0xfff, (1 << shift) - 1);
                assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xff, n - 1);
                assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, apic_id);
                assert_eq!(find(&cpuid, HYPERVISOR_TIMING, 0).eax, 2_000_000);
                assert_eq!(find(&cpuid, HYPERVISOR_BASE, 0).eax, HYPERVISOR_TIMING);
            }
        }
    }
}
