//! Requests about devices that come and go.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use lodge_vmm_proto::{Answer, DeviceKey, DiskLimits, GuestEvent, NewDevice, OnDiskError};

use super::{RunControl, error};
use crate::machine::Refusal;

impl RunControl {
    /// Readable while [`RunControl::hear_ejections`] has something to do.
    #[allow(unsafe_code)]
    pub fn ejections(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the machine, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.machine.ejections().as_raw_fd()) }
    }

    /// Takes apart what the guest has ejected.
    pub fn hear_ejections(&mut self) {
        let gone = self.machine.take_ejected();
        self.detached(gone);
    }

    /// Tells of devices that are out.
    pub(super) fn detached(&mut self, gone: impl IntoIterator<Item = DeviceKey>) {
        for device in gone {
            self.happened(GuestEvent::Detached { device });
        }
    }

    pub(super) fn attach_device(&mut self, device: NewDevice, fds: Vec<OwnedFd>) -> Answer {
        answer(self.machine.attach(device, fds))
    }

    pub(super) fn detach_device(&mut self, device: &DeviceKey, force: bool) -> Answer {
        match self.machine.detach(device, force) {
            Ok(gone) => {
                self.detached(gone);
                Answer::Done
            }
            Err(refusal) => answer(Err(refusal)),
        }
    }

    pub(super) fn keep_device(&mut self, device: &DeviceKey) -> Answer {
        answer(self.machine.keep(device))
    }

    /// Whoever asked for these is gone: the guest keeps what it still has.
    pub fn keep_devices(&mut self, devices: Vec<DeviceKey>) {
        for device in devices {
            self.keep_device(&device);
        }
    }

    pub(super) fn disk_grew(&self, serial: &str) -> Answer {
        answer(self.machine.disk_grew(serial))
    }

    pub(super) fn limit_disk(&self, serial: &str, limits: &DiskLimits) -> Answer {
        answer(self.machine.limit_disk(serial, limits))
    }

    pub(super) fn disk_errors(&self, serial: &str, on_error: OnDiskError) -> Answer {
        answer(self.machine.disk_errors(serial, on_error))
    }

    pub(super) fn set_link(&self, mac: [u8; 6], up: bool) -> Answer {
        answer(self.machine.set_link(mac, up))
    }
}

fn answer(done: Result<(), Refusal>) -> Answer {
    match done {
        Ok(()) => Answer::Done,
        Err(Refusal { code, message }) => error(code, message),
    }
}
