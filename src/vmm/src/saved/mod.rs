//! A machine's saved state: everything but its memory and its disks.
//!
//! Two files. The *state* is what this module describes; the *memory* is the guest's memory as it lies in its address
//! space, low memory first, high memory right behind it, with holes where nothing was ever written.
//!
//! # Format of the state
//!
//! | offset | length | what |
//! | --- | --- | --- |
//! | 0 | 8 | `LODGEVMS` |
//! | 8 | 4 | version of the format, little-endian: 1 |
//! | 12 | 4 | CRC-32C of the body |
//! | 16 | 8 | length of the body in bytes, little-endian |
//! | 24 | – | the body: [`SavedMachine`] as JSON |
//!
//! # Rules of the schema
//!
//! Fields have names, not positions. A field is never given another meaning, and its name is not used again when it is gone.
//! A new field has a default that means what was before it, so a state of any earlier release is read by any later one. A field
//! that this release does not know is ignored: whoever adds one that must not be ignored raises the version of the device it
//! is in, or of the format, and an older release refuses the state and says so. Parts that are structures of the
//! kernel's interface are its bytes; the kernel only ever adds to their end.

mod file;
mod layout;
mod memory;

use std::io;

use lodge_devices::lifecycle::{LifecycleError, SavedDevices};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kvm::{ChipsetState, KvmError};
use crate::vcpu::{CpuidTemplate, LacksFeatures, VcpuState};
#[cfg(feature = "fuzzing")]
pub use file::with_header;
pub use file::{read, write};
pub use layout::{Layout, Place};
pub use memory::{Pagemap, copy as copy_memory};

/// A machine at a moment in which it was held.
#[derive(Serialize, Deserialize)]
pub struct SavedMachine {
    /// Whose state it is: the guest's id.
    pub id: Uuid,
    /// Bytes of its memory.
    pub memory: u64,
    /// When, in nanoseconds of Unix time.
    pub at: u64,
    /// What the machine's clock said, in nanoseconds.
    pub clock: u64,
    /// What its processors could do.
    pub cpuid: CpuidTemplate,
    /// Its processors, in order.
    pub vcpus: Vec<VcpuState>,
    /// Interrupt controllers and timer in the kernel.
    pub chipset: ChipsetState,
    /// All other devices.
    pub devices: SavedDevices,
    /// Where disks and network interfaces are; empty where their order says it.
    #[serde(default)]
    pub layout: Layout,
}

/// A state that cannot be saved, read or given to this machine.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a state at all.
    #[error("this is not a saved state of a guest")]
    Foreign,
    /// Written by a later release.
    #[error("the state has format {found}; this release knows formats up to {known}")]
    Version {
        /// What the file says.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// Cut short, or changed since it was written.
    #[error("the saved state is damaged: {0}")]
    Damaged(String),
    /// The guest is not what it was.
    #[error("the state was saved with {field} {saved}, the guest has {present} now")]
    Differs {
        /// Of what.
        field: &'static str,
        /// When it was saved.
        saved: String,
        /// Now.
        present: String,
    },
    /// Another kind of processor.
    #[error(transparent)]
    Features(#[from] LacksFeatures),
    /// KVM does not take or give something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device does not.
    #[error(transparent)]
    Devices(#[from] LifecycleError),
}

impl SavedMachine {
    /// Checks that a machine of this many vCPUs and this much memory is the one that was saved.
    ///
    /// # Errors
    /// [`StateError::Differs`].
    pub fn check(&self, vcpus: u8, memory: u64) -> Result<(), StateError> {
        let differs = |field, saved: String, present: String| StateError::Differs {
            field,
            saved,
            present,
        };
        if self.memory != memory {
            let bytes = |bytes: u64| format!("{bytes} bytes");
            return Err(differs("memory of", bytes(self.memory), bytes(memory)));
        }
        if self.vcpus.len() != usize::from(vcpus) {
            let saved = self.vcpus.len().to_string();
            return Err(differs("vcpus", saved, vcpus.to_string()));
        }
        Ok(())
    }

    /// How long ago it was saved, in nanoseconds. A clock that was set back meanwhile counts as no time.
    pub fn age(&self) -> u64 {
        unix_time().saturating_sub(self.at)
    }
}

/// Nanoseconds since 1970.
pub fn unix_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
