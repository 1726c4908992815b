//! Whether guests can run on this machine, and if not, why.

mod diagnose;
mod processor;

use serde::{Deserialize, Serialize};

pub use diagnose::diagnose;
pub use processor::cpu_vendor;

/// What is known about KVM here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmStatus {
    /// Usable, or the kind of obstacle.
    pub state: KvmState,
    /// One or two sentences for people: what it is, and what to do about it.
    pub message: String,
    /// The processor's maker.
    pub vendor: CpuVendor,
    /// The hypervisor this machine itself runs under, e.g. `KVMKVMKVM`; `None` on real hardware.
    #[serde(default)]
    pub hypervisor: Option<String>,
    /// Version of the KVM interface, 12 wherever it works.
    #[serde(default)]
    pub api_version: Option<i32>,
    /// Whether the processor translates guest addresses itself (EPT, NPT); `None` when not known.
    #[serde(default)]
    pub nested_paging: Option<bool>,
}

/// Usable, or the kind of obstacle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvmState {
    /// Guests can run.
    Usable,
    /// The processor (or the virtual machine this runs in) has neither VT-x nor AMD-V.
    NoCpuSupport,
    /// The processor has it and the firmware switched it off.
    DisabledInFirmware,
    /// The kernel refused the module; the message holds its words.
    ModuleRefused,
    /// There is no KVM module for this kernel.
    ModuleMissing,
    /// `/dev/kvm` is there and this user may not open it.
    PermissionDenied,
    /// `/dev/kvm` is there and does not answer as it should.
    Broken,
}

/// Who made the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuVendor {
    /// `GenuineIntel` and compatible VT-x (Zhaoxin).
    Intel,
    /// `AuthenticAMD` and compatible AMD-V (Hygon).
    Amd,
    /// Any other.
    Other,
}

impl KvmStatus {
    /// Whether guests can run.
    pub fn usable(&self) -> bool {
        self.state == KvmState::Usable
    }
}
