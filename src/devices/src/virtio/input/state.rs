//! Saved state of a tablet.

use serde::{Deserialize, Serialize};

use super::config::Selection;
use super::report::{Report, Reports};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-input";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct State {
    selection: Selection,
    driven: bool,
    /// What the driver knows.
    told: Report,
    /// What it has to hear yet, in order.
    waiting: Vec<Report>,
}

pub(super) fn save(selection: Selection, reports: &Reports) -> DeviceState {
    let state = State {
        selection,
        driven: reports.driven,
        told: reports.told,
        waiting: reports.waiting.iter().copied().collect(),
    };
    DeviceState::new(KIND, VERSION, &state)
}

pub(super) fn restore(state: &DeviceState) -> Result<(Selection, Reports), RestoreError> {
    let state: State = state.decode(KIND, VERSION)?;
    let reports = Reports {
        driven: state.driven,
        told: state.told,
        waiting: state.waiting.into(),
    };
    match reports.problem() {
        None => Ok((state.selection, reports)),
        Some(problem) => Err(RestoreError::Invalid {
            kind: KIND,
            problem: problem.to_owned(),
        }),
    }
}
