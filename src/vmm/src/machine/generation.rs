//! The generation id in the machine: its page, and when it is a new one.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;
use lodge_devices::lifecycle::Shared;
use lodge_devices::vmgenid::{ID_LENGTH, IdPage, VmGenId};
use lodge_vmm_proto::LaunchError;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::Failure;
use super::hardware::Hardware;
use crate::layout::GENERATION_ID;
use crate::memory::PAGE;
use crate::slot::{self, ReadOnlySlot};

/// The page, which the guest reads without leaving.
struct Page(ReadOnlySlot);

impl Page {
    fn map(vm: &Arc<VmFd>) -> Result<Self, Failure> {
        let mapping = MmapRegion::new(PAGE as usize)
            .map_err(Failure::doing(LaunchError::Memory, "the generation id"))?;
        let slot = ReadOnlySlot::new(vm, slot::GENERATION_ID, GENERATION_ID, mapping);
        slot.show(true)?;
        Ok(Self(slot))
    }
}

impl IdPage for Page {
    fn set(&mut self, id: [u8; ID_LENGTH]) {
        let page = self.0.mapping().as_volatile_slice();
        if let Err(error) = page.write_slice(&id, 0) {
            tracing::error!(%error, "the page of the generation id");
        }
    }
}

impl Hardware {
    /// Adds the generation id, a new one.
    ///
    /// # Errors
    /// When the host or KVM refuses a page.
    pub fn add_generation_id(&mut self, vm: &Arc<VmFd>) -> Result<(), Failure> {
        let page = Box::new(Page::map(vm)?);
        let device = VmGenId::new(page, Arc::clone(&self.pm))?;
        let device = Arc::new(Mutex::new(device));
        self.devices.add(Arc::clone(&device) as Shared);
        self.generation = Some(device);
        Ok(())
    }

    /// Gives the guest a new id, and tells it.
    ///
    /// # Errors
    /// When the host has no random numbers.
    pub fn renew_generation(&self) -> io::Result<()> {
        match &self.generation {
            Some(device) => device.lock().unwrap().renew(),
            None => Ok(()),
        }
    }
}
