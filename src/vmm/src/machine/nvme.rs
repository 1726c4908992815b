//! Disks on NVM Express: a controller for each.

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use lodge_devices::interrupt::Platform;
use lodge_devices::nvme::{Nvme, NvmeDiskOptions, NvmeHandle, NvmeOptions};
use lodge_devices::pci::Address;
use lodge_vmm_proto::LaunchError;

use super::Failure;
use super::hardware::Hardware;
use super::slots;

impl Hardware {
    /// Adds a controller with its disk, to `slot` if it is given; returns where it is.
    ///
    /// # Errors
    /// When the host is out of threads or descriptors, or all slots are taken.
    pub fn add_nvme_disk(
        &mut self,
        name: &str,
        image: RawDisk,
        mut options: NvmeDiskOptions,
        slot: Option<u8>,
    ) -> Result<(Address, NvmeHandle), Failure> {
        // Systems refuse the second of two controllers that are called the same.
        if options.serial.is_empty() {
            options.serial = name.to_owned();
        }
        let surroundings = &self.surroundings;
        let controller = Nvme::new(NvmeOptions {
            name: name.to_owned(),
            image,
            disk: options,
            memory: surroundings.memory.clone(),
            platform: Arc::new(surroundings.interrupts.clone()) as Arc<dyn Platform>,
            memory_bus: Arc::clone(&self.buses.memory),
            prologue: Arc::clone(&surroundings.queue_prologue),
            complain: Arc::clone(&surroundings.complain),
        })
        .map_err(Failure::doing(LaunchError::Disk, name))?;
        let handle = controller.lock().unwrap().handle();
        let at = self.add_in_slot(name, controller, slots::DISKS, slot, LaunchError::Disk)?;
        Ok((at, handle))
    }
}
