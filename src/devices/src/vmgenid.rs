//! The generation id of a virtual machine (Microsoft, "Virtual Machine Generation ID").
//!
//! A number that is another one whenever the guest goes on from a state that may have been gone on from before. Two
//! guests restored from one state would otherwise draw the same random numbers and take each other's place. It stays while the
//! guest runs, is paused or resets.
//!
//! It is in a page of memory that the guest reads and cannot write; ACPI tables tell where, and a general purpose event that there
//! is a new one. The page is the monitor's ([`IdPage`]).

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::acpi_pm::AcpiPm;
use crate::lifecycle::Device;
use crate::random::random;
use crate::state::{DeviceState, RestoreError};

/// Length of an id in bytes.
pub const ID_LENGTH: usize = 16;

/// The general purpose event of a new id.
pub const EVENT: u8 = 5;

const NAME: &str = "vmgenid";

/// Where the guest reads the id.
pub trait IdPage: Send {
    /// Shows the guest this id. vCPUs are stopped.
    fn set(&mut self, id: [u8; ID_LENGTH]);
}

/// The id, in its page.
pub struct VmGenId {
    page: Box<dyn IdPage>,
    pm: Arc<Mutex<AcpiPm>>,
    id: [u8; ID_LENGTH],
}

#[derive(Serialize, Deserialize)]
struct State {
    id: [u8; ID_LENGTH],
}

impl VmGenId {
    /// Shows a new id. Events are raised in `pm`.
    ///
    /// # Errors
    /// When the host has no random numbers yet.
    pub fn new(mut page: Box<dyn IdPage>, pm: Arc<Mutex<AcpiPm>>) -> io::Result<Self> {
        let id = new_id()?;
        page.set(id);
        Ok(Self { page, pm, id })
    }

    /// Shows another id and raises the event, so that the guest looks at it when it goes on. To be called after all devices are restored:
    /// the power management block then keeps the event.
    ///
    /// # Errors
    /// When the host has no random numbers. The guest must not go on with the old id.
    pub fn renew(&mut self) -> io::Result<()> {
        self.show(new_id()?);
        self.pm.lock().unwrap().raise_gpe(EVENT);
        Ok(())
    }

    fn show(&mut self, id: [u8; ID_LENGTH]) {
        self.id = id;
        self.page.set(id);
    }
}

/// Random, so that no two instances of any guest have the same.
fn new_id() -> io::Result<[u8; ID_LENGTH]> {
    let mut id = [0; ID_LENGTH];
    // So few bytes the kernel gives whole.
    let count = random(&mut id)?;
    (count == ID_LENGTH)
        .then_some(id)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Device for VmGenId {
    fn name(&self) -> &str {
        NAME
    }

    /// The same guest boots again.
    fn reset(&mut self) {}

    fn save(&self) -> DeviceState {
        DeviceState::new(NAME, 1, &State { id: self.id })
    }

    /// The saved id again. Whoever restores it in another place than where it was paused calls [`VmGenId::renew`].
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State { id } = state.decode(NAME, 1)?;
        self.show(id);
        Ok(())
    }

    fn came_later(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi_pm::GPE0;
    use crate::bus::BusDevice;
    use crate::test_machine::{TestLine, TestPage, TestPower};

    #[test]
    fn a_new_id_is_told_and_stays_over_resets() {
        let (page, sci) = (TestPage::new(), TestLine::new());
        let pm = Arc::new(Mutex::new(AcpiPm::new(sci.clone(), TestPower::new())));
        let status = || {
            let mut status = [0];
            pm.lock().unwrap().read(GPE0, &mut status);
            status[0]
        };
        let mut device = VmGenId::new(Box::new(page.clone()), pm.clone()).unwrap();
        let first = page.id();
        assert_ne!(first, [0; 16]);
        assert_eq!(status(), 0);
        let saved = device.save();
        device.renew().unwrap();
        let second = page.id();
        assert_ne!(second, first);
        assert_eq!(status(), 1 << EVENT);
        // Enabled late, as by a guest that was restored while it booted.
        assert!(!sci.high());
        pm.lock().unwrap().write(GPE0 + 8, &[1 << EVENT]);
        assert!(sci.high());
        device.reset();
        assert_eq!(page.id(), second);
        device.restore(&saved).unwrap();
        assert_eq!((page.id(), device.save()), (first, saved));
    }

    #[test]
    fn a_state_that_is_no_id_changes_nothing() {
        let page = TestPage::new();
        let pm = AcpiPm::new(TestLine::new(), TestPower::new());
        let pm = Arc::new(Mutex::new(pm));
        let mut device = VmGenId::new(Box::new(page.clone()), pm).unwrap();
        let id = page.id();
        for body in [
            serde_json::json!({}),
            serde_json::json!({"id": vec![0; 15]}),
            serde_json::json!({"id": vec![256; 16]}),
            serde_json::json!({"id": "0123456789abcdef"}),
        ] {
            let kind = NAME.to_owned();
            let state = DeviceState {
                kind,
                version: 1,
                body,
            };
            assert!(device.restore(&state).is_err());
            assert_eq!(page.id(), id);
        }
    }
}
