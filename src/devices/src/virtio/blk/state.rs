//! Saved state of a block device: what the driver was promised and a disk must still keep.

use lodge_block::raw::RawDisk;
use serde::{Deserialize, Serialize};

use super::Options;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-blk";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// Size of the disk in bytes.
    size: u64,
    /// Logical block size in bytes.
    logical_block: u32,
    read_only: bool,
    queues: u16,
}

pub(super) fn save(disk: &RawDisk, options: &Options) -> DeviceState {
    let state = State {
        size: disk.size(),
        logical_block: disk.logical_block(),
        read_only: options.read_only,
        queues: options.queues,
    };
    DeviceState::new(KIND, VERSION, &state)
}

/// A disk behind a restored guest may have grown (the driver sees it when it asks) but not shrunk.
pub(super) fn check(
    state: &DeviceState,
    disk: &RawDisk,
    options: &Options,
) -> Result<(), RestoreError> {
    let state: State = state.decode(KIND, VERSION)?;
    let invalid = |problem| {
        Err(RestoreError::Invalid {
            kind: KIND,
            problem,
        })
    };
    if disk.size() < state.size {
        return invalid(format!(
            "the disk had {} bytes, this one has {}",
            state.size,
            disk.size()
        ));
    }
    if disk.logical_block() != state.logical_block {
        return invalid(format!(
            "the disk had blocks of {} bytes, this one has {}",
            state.logical_block,
            disk.logical_block()
        ));
    }
    if options.read_only != state.read_only || options.queues != state.queues {
        return invalid(format!(
            "the device had read_only {} and {} queues, this one has {} and {}",
            state.read_only, state.queues, options.read_only, options.queues
        ));
    }
    Ok(())
}
