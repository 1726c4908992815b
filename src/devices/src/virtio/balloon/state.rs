//! Saved state of a balloon. Statistics are not kept: the driver gives new ones.

use serde::{Deserialize, Serialize};

use super::Handle;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-balloon";
const VERSION: u32 = 1;

/// Sizes in pages of 4 KiB.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    target: u32,
    /// The target the driver has been told; another one is news to it.
    told: u32,
    actual: u32,
}

pub(super) fn save(handle: &Handle) -> DeviceState {
    let [target, told, actual] = handle.saved();
    let state = State {
        target,
        told,
        actual,
    };
    DeviceState::new(KIND, VERSION, &state)
}

pub(super) fn restore(handle: &Handle, state: &DeviceState) -> Result<(), RestoreError> {
    let State {
        target,
        told,
        actual,
    } = state.decode(KIND, VERSION)?;
    handle.restore([target, told, actual]);
    Ok(())
}
