//! What a vCPU says about itself.
//!
//! The host's own features as far as KVM can give them to a guest, or those of a baseline ([`model`]), and where it
//! sits ([`topology`]).

mod hyperv;
mod model;
#[cfg(test)]
mod tests;
mod topology;
mod xsave;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};
use lodge_vmm_proto::{CpuConfig, CpuTopology};
use serde::{Deserialize, Serialize};

use crate::kvm::KvmError;
pub use model::MissingFeatures;
use topology::Layout;

const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF_1_ECX_MONITOR: u32 = 1 << 3;
const AMD_1_ECX_PERFCTR_CORE: u32 = 1 << 23;
const AMD_1_ECX_PERFCTR_NB: u32 = 1 << 24;

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
    vcpus: u8,
    /// Where they sit; absent: all in one socket, a core each.
    #[serde(default)]
    topology: Option<CpuTopology>,
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
        let mut template = Self {
            entries: supported
                .iter()
                .filter(|entry| !topology_leaf(entry.function))
                .copied()
                .collect(),
            vcpus,
            topology: None,
            tsc_khz: None,
        };
        template.adjust_features(deadline);
        if emulated {
            template.take_paravirtual_eoi();
        }
        template.layout().apply(&mut template.entries);
        template
    }

    /// The processors of a guest that is to have so much memory, given all that this host can give.
    ///
    /// # Errors
    /// Names features that this host lacks.
    pub fn reduced_to(mut self, cpu: &CpuConfig, memory: u64) -> Result<Self, MissingFeatures> {
        model::apply(&mut self.entries, cpu, memory)?;
        if cpu.hyperv {
            hyperv::add(&mut self.entries);
        }
        self.topology = cpu.topology;
        self.entries.retain(|entry| !topology_leaf(entry.function));
        self.layout().apply(&mut self.entries);
        Ok(self)
    }

    /// APIC IDs of all vCPUs, in their order. None is above 127: 64 vCPUs in cores and sockets whose numbers are no powers of two.
    pub fn apic_ids(&self) -> Vec<u8> {
        let layout = self.layout();
        (0..self.vcpus)
            .map(|number| layout.apic_id(number) as u8)
            .collect()
    }

    /// Whether this is about so many vCPUs, and they have a place each. For one that was saved.
    pub fn is_for(&self, vcpus: u8) -> bool {
        let placed = self.topology.is_none_or(|topology| topology.fits(vcpus));
        self.vcpus == vcpus && placed
    }

    /// Whether they have a feature, by its name.
    pub fn has(&self, feature: &str) -> bool {
        model::has(&self.entries, feature)
    }

    /// Whether they find Hyper-V.
    pub fn has_hyperv(&self) -> bool {
        hyperv::present(&self.entries)
    }

    fn layout(&self) -> Layout {
        Layout::new(
            self.topology
                .unwrap_or_else(|| CpuTopology::flat(self.vcpus)),
        )
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
        let mut host = host.clone();
        if self.has_hyperv() {
            hyperv::add(&mut host.entries);
        }
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

    /// The leaves of the vCPU with that APIC ID.
    ///
    /// # Errors
    /// When there are more than KVM takes, which no known host has.
    pub fn for_vcpu(&self, apic_id: u8, tsc_khz: Option<u32>) -> Result<CpuId, KvmError> {
        let layout = self.layout();
        let mut entries = self.entries.clone();
        // Hyper-V has registers for it.
        let timing = tsc_khz.filter(|_| !self.has_hyperv());
        for entry in &mut entries {
            layout.name(entry, u32::from(apic_id));
            if entry.function == HYPERVISOR_BASE && timing.is_some() {
                entry.eax = entry.eax.max(HYPERVISOR_TIMING);
            }
        }
        if let Some(eax) = timing {
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
        for entry in &mut self.entries {
            match entry.function {
                0x1 => {
                    entry.ecx |= LEAF_1_ECX_HYPERVISOR;
                    // MONITOR would leave the guest waiting on the host's core.
                    entry.ecx &= !LEAF_1_ECX_MONITOR;
                    if deadline {
                        entry.ecx |= LEAF_1_ECX_TSC_DEADLINE;
                    }
                }
                // Performance counters are off.
                0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                0x8000_0001 => {
                    entry.ecx &= !(AMD_1_ECX_PERFCTR_CORE | AMD_1_ECX_PERFCTR_NB);
                }
                _ => {}
            }
        }
    }
}

/// Extended topology enumeration.
fn topology_leaf(function: u32) -> bool {
    matches!(function, 0xb | 0x1f)
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
        | (KVM_FEATURES | hyperv::KVM_FEATURES_BESIDE, "eax") => u32::MAX,
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
