//! The SATA controller with its disks and CD-ROM drives, on machines that have any.

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use lodge_devices::ahci::{
    Ahci, AhciOptions, Cdrom, CdromHandle, Disk, DiskHandle, DiskOptions, Drive, PORTS,
};
use lodge_devices::interrupt::Platform;
use lodge_vmm_proto::LaunchError;

use super::Failure;
use super::hardware::Hardware;

/// What is plugged into the controller so far.
#[derive(Default)]
pub struct Sata {
    drives: Vec<Drive>,
    /// Ways to the CD-ROM drives, in order.
    pub cdroms: Vec<CdromHandle>,
}

/// The next free port.
fn port(sata: &Sata) -> Result<u8, Failure> {
    let port = sata.drives.len();
    if port >= PORTS {
        return Err(Failure::new(
            LaunchError::Disk,
            format!("the SATA controller has {PORTS} ports"),
        ));
    }
    Ok(port as u8)
}

impl Hardware {
    /// Adds a disk to the SATA controller; returns its port and a way to it.
    ///
    /// # Errors
    /// When all ports are taken.
    pub fn add_sata_disk(
        &mut self,
        image: RawDisk,
        options: DiskOptions,
    ) -> Result<(u8, DiskHandle), Failure> {
        let port = port(&self.sata)?;
        let disk = Disk::new(image, options);
        let handle = disk.handle();
        self.sata.drives.push(Drive::Disk(disk));
        Ok((port, handle))
    }

    /// Adds a CD-ROM drive to the SATA controller.
    ///
    /// # Errors
    /// When all ports are taken.
    pub fn add_cdrom(&mut self, disc: Option<RawDisk>) -> Result<(), Failure> {
        let port = port(&self.sata)?;
        let cdrom = Cdrom::new(disc, &format!("cdrom{}", self.sata.cdroms.len()));
        self.sata.cdroms.push(cdrom.handle());
        self.sata.drives.push(Drive::Cdrom(cdrom));
        self.place.cdroms.push(port);
        Ok(())
    }

    /// Builds the controller, if anything is plugged in.
    ///
    /// # Errors
    /// When the host is out of threads or descriptors.
    pub fn finish_sata(&mut self) -> Result<(), Failure> {
        let plugged = std::mem::take(&mut self.sata.drives);
        if plugged.is_empty() {
            return Ok(());
        }
        let mut drives = [const { None }; PORTS];
        for (port, drive) in drives.iter_mut().zip(plugged) {
            *port = Some(drive);
        }
        let surroundings = &self.surroundings;
        let controller = Ahci::new(AhciOptions {
            name: "sata".to_owned(),
            drives,
            memory: surroundings.memory.clone(),
            platform: Arc::new(surroundings.interrupts.clone()) as Arc<dyn Platform>,
            line: self.pirqs.pin(Ahci::ADDRESS.device()),
            memory_bus: Arc::clone(&self.buses.memory),
            prologue: Arc::clone(&surroundings.queue_prologue),
            complain: Arc::clone(&surroundings.complain),
        })
        .map_err(Failure::doing(LaunchError::Disk, "the SATA controller"))?;
        self.add_function(Ahci::ADDRESS, controller)
    }
}
