//! Privileges, and the roles that bundle them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a method of the API can require of its caller. Every method requires
/// exactly one, which the OpenAPI document names as `x-privilege`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Read the host's condition, log, metrics and events.
    SystemRead,
    /// Change the host's settings.
    SystemConfigure,
    /// Power the host off or restart it.
    SystemPower,
    /// Read guests.
    VmRead,
    /// Create, change and delete guests.
    VmConfigure,
    /// Start, stop, reset, pause and resume guests.
    VmPower,
    /// Read and type on guests' consoles, screens and keyboards.
    VmConsole,
    /// Read images and disks.
    StorageRead,
    /// Upload, create, change and delete images and disks.
    StorageWrite,
    /// Read networks.
    NetworkRead,
    /// Create, change and delete networks.
    NetworkWrite,
    /// Read operations.
    OperationRead,
    /// Cancel operations.
    OperationControl,
    /// Manage users and other users' tokens.
    UserManage,
    /// Manage one's own password, sessions and tokens.
    SelfManage,
}

impl Privilege {
    /// All privileges.
    pub const ALL: [Self; 15] = [
        Self::SystemRead,
        Self::SystemConfigure,
        Self::SystemPower,
        Self::VmRead,
        Self::VmConfigure,
        Self::VmPower,
        Self::VmConsole,
        Self::StorageRead,
        Self::StorageWrite,
        Self::NetworkRead,
        Self::NetworkWrite,
        Self::OperationRead,
        Self::OperationControl,
        Self::UserManage,
        Self::SelfManage,
    ];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SystemRead => "system_read",
            Self::SystemConfigure => "system_configure",
            Self::SystemPower => "system_power",
            Self::VmRead => "vm_read",
            Self::VmConfigure => "vm_configure",
            Self::VmPower => "vm_power",
            Self::VmConsole => "vm_console",
            Self::StorageRead => "storage_read",
            Self::StorageWrite => "storage_write",
            Self::NetworkRead => "network_read",
            Self::NetworkWrite => "network_write",
            Self::OperationRead => "operation_read",
            Self::OperationControl => "operation_control",
            Self::UserManage => "user_manage",
            Self::SelfManage => "self_manage",
        }
    }
}

/// A named bundle of privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Administrator,
    /// Everything about guests, images, disks; reads the rest.
    Operator,
    /// Reads everything but consoles.
    Viewer,
}

impl Role {
    /// Whether the role carries a privilege.
    pub fn grants(self, privilege: Privilege) -> bool {
        use Privilege as P;
        match self {
            Self::Administrator => true,
            Self::Operator => !matches!(
                privilege,
                P::SystemConfigure | P::SystemPower | P::NetworkWrite | P::UserManage
            ),
            Self::Viewer => matches!(
                privilege,
                P::SystemRead
                    | P::VmRead
                    | P::StorageRead
                    | P::NetworkRead
                    | P::OperationRead
                    | P::SelfManage
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_change_nothing_but_themselves() {
        for privilege in [
            Privilege::SystemConfigure,
            Privilege::SystemPower,
            Privilege::VmConfigure,
            Privilege::VmPower,
            Privilege::VmConsole,
            Privilege::StorageWrite,
            Privilege::NetworkWrite,
            Privilege::OperationControl,
            Privilege::UserManage,
        ] {
            assert!(!Role::Viewer.grants(privilege));
            assert!(Role::Administrator.grants(privilege));
        }
    }
}
