//! UEFI variables of a guest.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A UEFI variable, without its data.
///
/// In paths it is `NAME-GUID`, as Linux calls it below `/sys/firmware/efi/efivars`:
/// `BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmVariableInfo {
    /// Its name.
    pub name: String,
    /// Whose name that is: the vendor's GUID.
    pub guid: Uuid,
    /// Attributes as a number (UEFI 2.10, 8.2): 1 non-volatile, 2 for boot services, 4 for runtime, 8 hardware error record,
    /// 32 authenticated by time.
    pub attributes: u32,
    /// Bytes of its data.
    pub size: u64,
}

/// A UEFI variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmVariable {
    /// What it is.
    #[serde(flatten)]
    pub info: VmVariableInfo,
    /// Its data, two hexadecimal digits for each byte.
    pub data: String,
}

/// Body of `PUT /v1/vms/{vm}/nvram/{variable}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmVariableSet {
    /// The data, two hexadecimal digits for each byte; 1 to 32768 bytes.
    pub data: String,
    /// Attributes, see [`VmVariableInfo::attributes`]. Absent: those it has, or 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<u32>,
}

impl VmVariableSet {
    /// Most bytes of data.
    pub const MOST: usize = 32 << 10;
}
