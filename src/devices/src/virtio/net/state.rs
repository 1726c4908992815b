//! Saved state of a network device: what its driver knows of it.

use serde::{Deserialize, Serialize};

use super::Options;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-net";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    mac: [u8; 6],
    mtu: u16,
    /// Whether the driver finds the link up.
    #[serde(default = "up")]
    link_up: bool,
}

/// Before links could be down.
fn up() -> bool {
    true
}

pub(super) fn save(options: Options, link_up: bool) -> DeviceState {
    let state = State {
        mac: options.mac,
        mtu: options.mtu,
        link_up,
    };
    DeviceState::new(KIND, VERSION, &state)
}

/// Whether its driver knows the link to be up.
pub(super) fn check(state: &DeviceState, options: Options) -> Result<bool, RestoreError> {
    let state: State = state.decode(KIND, VERSION)?;
    if state.mac != options.mac || state.mtu != options.mtu {
        return Err(RestoreError::Invalid {
            kind: KIND,
            problem: format!(
                "the interface had MAC {:02x?} and MTU {}, this one has {:02x?} and {}",
                state.mac, state.mtu, options.mac, options.mtu
            ),
        });
    }
    Ok(state.link_up)
}
