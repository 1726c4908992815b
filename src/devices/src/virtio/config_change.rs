//! Telling a driver that its device's configuration space has changed, as soon as it can be told.

use std::sync::{Arc, Mutex};

use super::DeviceEvents;

/// What there is to tell, and the way to the driver.
#[derive(Default)]
pub(super) struct ConfigChange {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The way to it, while the device serves it.
    events: Option<Arc<dyn DeviceEvents>>,
    /// There was a change since it was last told: while the guest is paused, nobody can be.
    untold: bool,
}

impl ConfigChange {
    /// The device begins to serve a driver, or ends.
    pub fn attach(&self, events: Option<Arc<dyn DeviceEvents>>) {
        let mut state = self.state.lock().unwrap();
        state.events = events;
        state.tell();
    }

    /// Something has changed.
    pub fn tell(&self) {
        let mut state = self.state.lock().unwrap();
        state.untold = true;
        state.tell();
    }
}

impl State {
    fn tell(&mut self) {
        if let Some(events) = self.events.as_ref().filter(|_| self.untold) {
            events.config_changed();
            self.untold = false;
        }
    }
}
