//! Processors of guests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Processors;

/// What a guest's virtual CPUs can do, where they sit, and what they get of the host's. `shares`, `limit` and `affinity` take effect at once,
/// also while the guest runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCpu {
    /// The model.
    #[serde(default)]
    pub model: CpuModel,
    /// Features beyond the model's, with those they need (`+aes`), or less, with those that need them (`-avx512f`). Names are mostly
    /// those of Linux's `/proc/cpuinfo`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["+aes", "-rdrand"]))]
    pub features: Vec<String>,
    /// Sockets; absent: as many as the others leave, else 1. Sockets times cores times threads are `vcpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u8>,
    /// Cores of a socket; absent: as many as the others leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u8>,
    /// Threads of a core, 1 or 2; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u8>,
    /// Whether the guest finds Hyper-V beside KVM: Windows then knows that it is a guest, and saves itself most exits to its host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hyperv: bool,
    /// Its weight when guests want more processor time than there is, 1 to 10000; absent: 100. A guest with 200 gets twice as much as
    /// one with 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub shares: Option<u16>,
    /// Most processor time it gets, in percent of one of the host's processors: 1 to 10000, 150 is one and a half; absent: as much as
    /// there is. Its monitor's own time counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub limit: Option<u16>,
    /// The host's processors that it runs on; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0-3,8")]
    pub affinity: Option<Processors>,
}

impl VmCpu {
    /// The weight of a guest that was given no `shares`.
    pub const DEFAULT_SHARES: u16 = 100;
}

/// A model of processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CpuModel {
    /// All that the host's processor has. The guest goes on only on hosts that have as much.
    #[default]
    Host,
    /// The level `x86-64-v2` (2009), exactly: the guest goes on on any host of the same vendor that has it.
    #[serde(rename = "x86-64-v2")]
    X86V2,
    /// The level `x86-64-v3` (2015), with AES and what else all such processors have.
    #[serde(rename = "x86-64-v3")]
    X86V3,
    /// The level `x86-64-v4` (2017), likewise.
    #[serde(rename = "x86-64-v4")]
    X86V4,
}

impl CpuModel {
    /// The word used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::X86V2 => "x86-64-v2",
            Self::X86V3 => "x86-64-v3",
            Self::X86V4 => "x86-64-v4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_written_as_they_are_shown() {
        for model in [
            CpuModel::Host,
            CpuModel::X86V2,
            CpuModel::X86V3,
            CpuModel::X86V4,
        ] {
            let json = serde_json::to_value(model).unwrap();
            assert_eq!(json, model.as_str());
            assert_eq!(serde_json::from_value::<CpuModel>(json).unwrap(), model);
        }
        let none: VmCpu = serde_json::from_str("{}").unwrap();
        assert_eq!(none, VmCpu::default());
    }
}
