//! How a monitor treats all devices alike: reset, pause, save, restore.
//!
//! Order of calls. A new device is *running*. The monitor stops all vCPUs, then
//! calls [`Device::pause`]; the device finishes what it has in flight and touches
//! guest memory no more. Only then may it be saved or restored, and
//! [`Device::resume`] starts it again. [`Device::reset`] is allowed running or paused
//! (a paused device stays paused) and needs stopped vCPUs too. `pause` and
//! `resume` may be repeated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::state::{DeviceState, RestoreError};

/// A part of the machine with state.
pub trait Device: Send {
    /// Unique within the machine and stable between releases, e.g. `com1` or `disk0`.
    fn name(&self) -> &str;

    /// Back to the state at power-on.
    fn reset(&mut self);

    /// Comes to rest. Devices without threads or requests in flight have nothing to do.
    fn pause(&mut self) {}

    /// Carries on after [`Device::pause`] or [`Device::restore`].
    fn resume(&mut self) {}

    /// The state, while paused.
    fn save(&self) -> DeviceState;

    /// Takes back what [`Device::save`] gave, while paused.
    ///
    /// # Errors
    /// The state is not this device's, or makes no sense; the device is unchanged.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;

    /// Whether states of earlier releases may lack the device, which is then as at power-on. For devices that every machine was given
    /// later than others.
    fn came_later(&self) -> bool {
        false
    }
}

/// A device shared with the buses that address it.
pub type Shared = Arc<Mutex<dyn Device>>;

/// All devices of one machine.
#[derive(Default)]
pub struct DeviceSet {
    devices: Vec<Shared>,
    paused: bool,
}

/// The saved state of a machine's devices, in the order they were added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedDevices {
    /// Name and state of each device.
    pub devices: Vec<(String, DeviceState)>,
}

/// Saving or restoring a machine failed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// [`DeviceSet::pause`] comes first.
    #[error("devices are running; pause them first")]
    Running,
    /// The saved machine has another set of devices.
    #[error("the saved machine has {found}, this one has {expected}")]
    Devices {
        /// Devices here.
        expected: String,
        /// Devices in the state.
        found: String,
    },
    /// A device refused its state. Devices before it were restored: the
    /// machine must be reset or dropped.
    #[error("{name}: {source}")]
    Restore {
        /// Which device.
        name: String,
        /// Why.
        source: RestoreError,
    },
}

impl DeviceSet {
    /// No devices, running.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a device, which must be running as it is when new. Where the others are paused, it comes to rest.
    pub fn add(&mut self, device: Shared) {
        if self.paused {
            device.lock().unwrap().pause();
        }
        self.devices.push(device);
    }

    /// Removes a device, as it is, by its name.
    pub fn remove(&mut self, name: &str) -> Option<Shared> {
        let named = |device: &Shared| device.lock().unwrap().name() == name;
        let at = self.devices.iter().position(named)?;
        Some(self.devices.remove(at))
    }

    /// The devices in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Shared> {
        self.devices.iter()
    }

    /// Brings every device to rest. vCPUs are stopped.
    pub fn pause(&mut self) {
        for device in &self.devices {
            device.lock().unwrap().pause();
        }
        self.paused = true;
    }

    /// Starts every device again. vCPUs are still stopped.
    pub fn resume(&mut self) {
        self.paused = false;
        for device in &self.devices {
            device.lock().unwrap().resume();
        }
    }

    /// Back to power-on. vCPUs are stopped.
    pub fn reset(&mut self) {
        for device in &self.devices {
            device.lock().unwrap().reset();
        }
    }

    /// The state of every device.
    ///
    /// # Errors
    /// [`LifecycleError::Running`].
    pub fn save(&self) -> Result<SavedDevices, LifecycleError> {
        if !self.paused {
            return Err(LifecycleError::Running);
        }
        let devices = self.devices.iter().map(|device| {
            let device = device.lock().unwrap();
            (device.name().to_owned(), device.save())
        });
        Ok(SavedDevices {
            devices: devices.collect(),
        })
    }

    /// Gives every device its state back.
    ///
    /// # Errors
    /// [`LifecycleError`]; only [`LifecycleError::Restore`] leaves changes behind.
    pub fn restore(&self, saved: &SavedDevices) -> Result<(), LifecycleError> {
        if !self.paused {
            return Err(LifecycleError::Running);
        }
        for (device, state) in self.devices.iter().zip(self.states(saved)?) {
            let mut device = device.lock().unwrap();
            let Some(state) = state else {
                device.reset();
                continue;
            };
            let restored = device.restore(state);
            restored.map_err(|source| LifecycleError::Restore {
                name: device.name().to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// The state for each device; none for those that came later. Devices may have been saved in another order: some were
    /// plugged in when the machine ran already.
    fn states<'a>(
        &self,
        saved: &'a SavedDevices,
    ) -> Result<Vec<Option<&'a DeviceState>>, LifecycleError> {
        let each = saved.devices.iter();
        let mut left: BTreeMap<&str, &DeviceState> =
            each.map(|(name, state)| (name.as_str(), state)).collect();
        let mut fits = left.len() == saved.devices.len();
        let mut states = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            let device = device.lock().unwrap();
            let state = left.remove(device.name());
            fits &= state.is_some() || device.came_later();
            states.push(state);
        }
        if fits && left.is_empty() {
            return Ok(states);
        }
        let found: Vec<&str> = saved
            .devices
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        Err(LifecycleError::Devices {
            expected: self.names().join(", "),
            found: found.join(", "),
        })
    }

    fn names(&self) -> Vec<String> {
        self.devices
            .iter()
            .map(|device| device.lock().unwrap().name().to_owned())
            .collect()
    }
}
