//! Saved state of a network device: what its driver knows of it, and has told it.

use serde::{Deserialize, Serialize};

use super::Options;
use super::filter::Rules;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-net";
/// Version of a device without a control queue: what every release reads.
const VERSION_PLAIN: u32 = 1;
/// Version of a device with one.
const VERSION_CONTROLLED: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    mac: [u8; 6],
    mtu: u16,
    /// Whether the driver finds the link up.
    #[serde(default = "up")]
    link_up: bool,
    /// What the driver has said by the control queue; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

/// What a driver says by the control queue, and is forgotten at a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Pairs of queues it uses.
    pub enabled_pairs: usize,
    /// Which packets it wants.
    pub rules: Rules,
}

/// Before links could be down.
fn up() -> bool {
    true
}

pub(super) fn save(options: Options, link_up: bool, told: Option<Told>) -> DeviceState {
    let version = match told {
        None => VERSION_PLAIN,
        Some(_) => VERSION_CONTROLLED,
    };
    let state = State {
        mac: options.mac,
        mtu: options.mtu,
        link_up,
        told,
    };
    DeviceState::new(KIND, version, &state)
}

/// Whether its driver knows the link to be up, and what it has told a device with so many pairs of queues.
pub(super) fn check(
    state: &DeviceState,
    options: Options,
    pairs: usize,
) -> Result<(bool, Option<Told>), RestoreError> {
    let state: State = state.decode(KIND, VERSION_CONTROLLED)?;
    let invalid = |problem| {
        Err(RestoreError::Invalid {
            kind: KIND,
            problem,
        })
    };
    if state.mac != options.mac || state.mtu != options.mtu {
        return invalid(format!(
            "the interface had MAC {:02x?} and MTU {}, this one has {:02x?} and {}",
            state.mac, state.mtu, options.mac, options.mtu
        ));
    }
    if let Some(Told {
        enabled_pairs,
        rules,
    }) = &state.told
    {
        if !(1..=pairs).contains(enabled_pairs) {
            return invalid(format!(
                "{enabled_pairs} pairs of queues in use, of {pairs}"
            ));
        }
        if !rules.possible() {
            return invalid("addresses that no driver could have set".to_owned());
        }
    }
    Ok((state.link_up, state.told))
}
