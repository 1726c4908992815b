//! NVMe over TCP (NVM Express over Fabrics 1.1a, NVM Express TCP Transport 1.0): disks of other machines, and disks of this one for others.
//!
//! Disks are the kernel's: it is told of a connection by a line written to `/dev/nvme-fabrics`, and of an export in configfs. The kernel
//! says of a connection that fails only that it did, after as long as it likes; so a target is first asked by this program itself
//! ([`Association`]), which hears why not. What targets offer is asked for in the same way.

mod association;
mod connection;
mod discovery;
mod export_disk;
mod name;
mod pdu;
mod target;
#[cfg(test)]
mod test_target;

pub use association::{Association, ConnectError};
pub use connection::{
    Controller, ControllerState, FAIL_AFTER, Wanted, connect, controllers, disconnect,
};
pub use discovery::{Offer, discover};
pub use export_disk::{export_of, find_export, make_export};
pub use name::{HostIdentity, Nqn, NqnError};
pub use target::{Allowed, Export, TargetError, export, exported_devices, unexport};

/// Where targets listen (IANA: nvme).
pub const PORT: u16 = 4420;
