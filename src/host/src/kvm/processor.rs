//! What the processor itself says: CPUID and the two model-specific registers with the firmware's switch.

use std::arch::x86_64::{__cpuid, CpuidResult};
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::CpuVendor;

/// Intel SDM volume 4, `IA32_FEATURE_CONTROL`: bit 0 locks it, bit 2 allows VMX outside SMX.
const IA32_FEATURE_CONTROL: u64 = 0x3a;
/// AMD APM volume 2 section 15.30.1, `VM_CR`: bit 4 (SVMDIS) makes setting EFER.SVME fault.
const VM_CR: u64 = 0xc001_0114;

/// What matters for KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processor {
    pub(super) vendor: CpuVendor,
    /// VT-x or AMD-V in CPUID.
    pub(super) virtualization: bool,
    /// The hypervisor's signature, when there is one below us.
    pub(super) hypervisor: Option<String>,
    /// Whether the firmware switched virtualization off; `None` when the registers cannot be read.
    pub(super) disabled: Option<bool>,
}

/// The processor's maker.
pub fn cpu_vendor() -> CpuVendor {
    let leaf = __cpuid(0);
    let mut name = [0; 12];
    for (chunk, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        chunk.copy_from_slice(&register.to_le_bytes());
    }
    match &name {
        b"GenuineIntel" | b"CentaurHauls" | b"  Shanghai  " => CpuVendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => CpuVendor::Amd,
        _ => CpuVendor::Other,
    }
}

impl Processor {
    /// Asks the processor this runs on.
    pub(super) fn read() -> Self {
        let vendor = cpu_vendor();
        let features = __cpuid(1).ecx;
        let virtualization = match vendor {
            CpuVendor::Intel => features & (1 << 5) != 0,
            CpuVendor::Amd => extended(0x8000_0001).is_some_and(|leaf| leaf.ecx & (1 << 2) != 0),
            CpuVendor::Other => false,
        };
        Self {
            vendor,
            virtualization,
            hypervisor: (features & (1 << 31) != 0).then(hypervisor),
            disabled: disabled(vendor),
        }
    }
}

/// An extended CPUID leaf, if the processor has it.
fn extended(leaf: u32) -> Option<CpuidResult> {
    (__cpuid(0x8000_0000).eax >= leaf).then(|| __cpuid(leaf))
}

fn hypervisor() -> String {
    let leaf = __cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let printable = |b: &&u8| b.is_ascii_graphic() || **b == b' ';
    bytes
        .iter()
        .filter(printable)
        .map(|b| char::from(*b))
        .collect()
}

/// Reads the firmware's switch through the `msr` module's device.
fn disabled(vendor: CpuVendor) -> Option<bool> {
    let device = File::open("/dev/cpu/0/msr").ok()?;
    let read = |register: u64| {
        let mut value = [0; 8];
        device.read_exact_at(&mut value, register).ok()?;
        Some(u64::from_le_bytes(value))
    };
    match vendor {
        // Unlocked is fine: the kernel sets it as it needs.
        CpuVendor::Intel => {
            read(IA32_FEATURE_CONTROL).map(|value| value & 1 != 0 && value & (1 << 2) == 0)
        }
        CpuVendor::Amd => read(VM_CR).map(|value| value & (1 << 4) != 0),
        CpuVendor::Other => None,
    }
}
