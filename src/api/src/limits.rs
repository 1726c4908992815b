//! What disks and network interfaces of guests are held to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Size;

/// Most that a guest does with a disk, reads and writes together; what is absent is not limited. It takes effect at once, also while the
/// guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDiskLimits {
    /// Operations in a second, flushes and discards included: 10 to 10000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 10_000_000)]
    pub iops: Option<u32>,
    /// Operations that it may do at once after a rest, with `iops` only: 1 to 100000000; absent: a tenth of `iops`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000_000)]
    pub iops_burst: Option<u32>,
    /// Bytes in a second: 64 KiB to 64 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Size>,
    /// Bytes that it may move at once after a rest, with `bandwidth` only: up to 1 TiB; absent: a tenth of `bandwidth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_burst: Option<Size>,
}

impl VmDiskLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Most that a guest's network interface moves, in Mbit/s (1,000,000 bits in a second); what is absent is not limited. It takes effect at once,
/// also while the guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmNicLimits {
    /// To the guest: what is too much waits, and is lost when too much of it does. 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub receive_mbps: Option<u32>,
    /// From the guest: what is too much is lost. 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub transmit_mbps: Option<u32>,
}

impl VmNicLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::VmDisk;

    #[test]
    fn sizes_have_units_and_no_limits_are_left_out() {
        let text = r#"{"disk": "data", "limits": {"iops": 500, "bandwidth": "50MiB"}}"#;
        let disk: VmDisk = serde_json::from_str(text).unwrap();
        assert_eq!(disk.limits.iops, Some(500));
        assert_eq!(disk.limits.bandwidth, Some(Size::mib(50)));
        let none: VmDisk = serde_json::from_str(r#"{"disk": "data", "limits": {}}"#).unwrap();
        assert!(none.limits.is_none());
        let json = serde_json::to_value(none).unwrap();
        assert!(json.get("limits").is_none(), "{json}");
    }
}
