//! Disks, on whatever bus.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lodge_block::raw::{RawDisk, RawError};
use lodge_devices::ahci::{self, DiskOptions};
use lodge_devices::nvme::{NvmeDiskOptions, NvmeHandle};
use lodge_devices::on_error::{ErrorPolicy, OnError};
use lodge_devices::throttle::{self, Throttle};
use lodge_devices::virtio::blk::{self, Block, Statistics};
use lodge_vmm_proto::{DiskBus, DiskConfig, DiskLimits, LaunchError, OnDiskError, Rate};

use super::hardware::{Hardware, OnStuck};
use super::plug::{Refusal, flat, free_number, open_image};
use super::workshop::Workshop;
use super::{Failure, slots};
use crate::firmware::DiskPlace;
use crate::saved::Place;

/// A disk to attach.
pub struct Disk {
    /// The opened and claimed image.
    pub disk: RawDisk,
    /// What the guest reaches it by.
    pub bus: DiskBus,
    /// Refuse writes.
    pub read_only: bool,
    /// Serial number the guest reads.
    pub serial: String,
    /// What it is held to at first.
    pub limits: DiskLimits,
    /// What is done with what fails, at first.
    pub on_error: OnDiskError,
}

/// What was done with disks.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskUse {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Time for which queues left requests where they were, in microseconds.
    pub throttled_us: u64,
}

impl DiskUse {
    /// And what was done with this one.
    pub(super) fn add(&mut self, disk: &PluggedDisk) {
        let totals = disk.statistics().totals();
        self.read += totals.read_bytes;
        self.written += totals.write_bytes;
        self.throttled_us += totals.throttled_us;
    }
}

/// A disk of the machine.
pub struct PluggedDisk {
    /// Serial number the guest reads.
    pub serial: String,
    /// Where it is.
    pub at: DiskPlace,
    /// Its device is called by it.
    number: u8,
    /// Queues, of a disk on virtio.
    queues: Option<u16>,
    handle: Handle,
}

/// A way to a disk.
pub(super) enum Handle {
    Virtio(blk::Handle),
    Nvme(NvmeHandle),
    Sata(ahci::DiskHandle),
}

impl PluggedDisk {
    /// The name of its device.
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// What it has read and written.
    pub fn statistics(&self) -> Arc<Statistics> {
        match &self.handle {
            Handle::Virtio(handle) => handle.statistics(),
            Handle::Nvme(handle) => handle.statistics(),
            Handle::Sata(handle) => handle.statistics(),
        }
    }

    fn throttle(&self) -> &Arc<Throttle> {
        match &self.handle {
            Handle::Virtio(handle) => handle.throttle(),
            Handle::Nvme(handle) => handle.throttle(),
            Handle::Sata(handle) => handle.throttle(),
        }
    }

    /// Holds it to these limits from now on.
    pub fn limit(&self, limits: &DiskLimits) {
        let rate = |rate: Rate| throttle::Rate {
            per_second: rate.per_second,
            burst: rate.burst,
        };
        self.throttle().set(throttle::DiskLimits {
            operations: limits.operations.map(rate),
            bytes: limits.bytes.map(rate),
        });
    }

    fn errors(&self) -> &Arc<ErrorPolicy> {
        match &self.handle {
            Handle::Virtio(handle) => handle.errors(),
            Handle::Nvme(handle) => handle.errors(),
            Handle::Sata(handle) => handle.errors(),
        }
    }

    /// Deals so with what fails from now on.
    pub fn deal_with_errors(&self, on_error: OnDiskError) {
        self.errors().set(match on_error {
            OnDiskError::Pause => OnError::HoldBack,
            OnDiskError::Report => OnError::Report,
        });
    }

    /// Lets `on_stuck` hear when it cannot go on.
    fn tell_when_stuck(&self, on_stuck: &OnStuck) {
        let (on_stuck, serial) = (Arc::clone(on_stuck), self.serial.clone());
        let stuck = move |error| on_stuck(&serial, error);
        self.errors().on_stuck(Box::new(stuck));
    }

    /// Looks at its size again, after it was grown, and tells the driver where that is possible.
    ///
    /// # Errors
    /// When the host does not tell; the old size stays.
    pub fn refresh_size(&self) -> Result<u64, RawError> {
        match &self.handle {
            Handle::Virtio(handle) => handle.refresh_size(),
            Handle::Nvme(handle) => handle.refresh_size(),
            Handle::Sata(handle) => handle.refresh_size(),
        }
    }

    /// Where it is, for a machine that goes on from here.
    pub fn place(&self) -> Place {
        Place {
            number: self.number,
            slot: match self.at {
                DiskPlace::Virtio(at) | DiskPlace::Nvme(at) => Some(at.device()),
                DiskPlace::Sata(_) => None,
            },
            queues: self.queues,
        }
    }
}

/// Rings for disks that come later. Each costs every start of a guest most of a millisecond of the processor.
const SPARE_RINGS: usize = 4;

fn name(number: u8) -> String {
    format!("disk{number}")
}

impl Hardware {
    /// Adds a disk, at `place` if it is given, with `queues` unless that says otherwise.
    ///
    /// # Errors
    /// When the host cannot serve it, or its bus is full.
    pub fn add_disk(
        &mut self,
        disk: Disk,
        queues: u16,
        place: Option<&Place>,
    ) -> Result<(), Failure> {
        let Disk {
            disk,
            bus,
            read_only,
            serial,
            limits,
            on_error,
        } = disk;
        let number = place.map_or(self.disks.len() as u8, |place| place.number);
        let slot = place.and_then(|place| place.slot);
        let queues = place.and_then(|place| place.queues).unwrap_or(queues);
        let key = serial.clone();
        let name = name(number);
        let (at, handle) = match bus {
            DiskBus::Sata => {
                let options = DiskOptions { read_only, serial };
                let (port, handle) = self.add_sata_disk(disk, options)?;
                (DiskPlace::Sata(port), Handle::Sata(handle))
            }
            DiskBus::Nvme => {
                let options = NvmeDiskOptions {
                    read_only,
                    serial,
                    queues,
                };
                let (at, handle) = self.add_nvme_disk(&name, disk, options, slot)?;
                (DiskPlace::Nvme(at), Handle::Nvme(handle))
            }
            DiskBus::Virtio => {
                let options = blk::Options {
                    read_only,
                    serial,
                    queues,
                };
                let prologue = Arc::clone(&self.surroundings.queue_prologue);
                let block = Block::with_spares(disk, options, prologue, &self.spares)
                    .map_err(Failure::doing(LaunchError::Disk, &name))?;
                let handle = block.handle();
                let function = self
                    .virtio_parts()
                    .build(&name, Box::new(block))
                    .map_err(Failure::doing(LaunchError::Disk, &name))?;
                let range = slots::DISKS;
                let at = self.add_in_slot(&name, function, range, slot, LaunchError::Disk)?;
                (DiskPlace::Virtio(at), Handle::Virtio(handle))
            }
        };
        self.place.disks.push(at);
        let disk = PluggedDisk {
            serial: key,
            at,
            number,
            queues: (bus == DiskBus::Virtio).then_some(queues),
            handle,
        };
        disk.limit(&limits);
        disk.deal_with_errors(on_error);
        disk.tell_when_stuck(&self.surroundings.on_stuck);
        self.disks.push(disk);
        Ok(())
    }

    /// Gets ready for disks that come later, as far as the host allows. A host that gives no ring runs the guest all the same.
    pub fn lay_in_rings(&self) {
        if let Err(error) = self.spares.add(SPARE_RINGS) {
            let rings = self.spares.left();
            tracing::warn!(%error, rings, "not all disks can be plugged into the guest while it runs");
        }
    }

    /// Plugs a disk on virtio into the machine, which runs. It has one queue, as there are spare rings for.
    ///
    /// # Errors
    /// When the descriptor is no disk, or there is no room.
    pub fn plug_disk(
        &mut self,
        workshop: &Workshop,
        file: OwnedFd,
        config: &DiskConfig,
    ) -> Result<(), Refusal> {
        let taken: Vec<u8> = self.disks.iter().map(|disk| disk.number).collect();
        let number = free_number(&taken);
        let name = name(number);
        let full = |what: &str| Refusal::full(format!("{name}: {what}"));
        if self.spares.left() == 0 {
            let most = "no ring is left: four disks more than it was started with are the most until it is started anew";
            return Err(full(most));
        }
        let at = self.slots.take_of(slots::HOT_DISKS);
        let at = at.ok_or_else(|| full("all slots for disks are taken"))?;
        let options = blk::Options {
            read_only: config.read_only,
            serial: config.serial.clone(),
            queues: 1,
        };
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let (parts, spares, called) = (self.virtio_parts(), self.spares.clone(), name.clone());
        let built = workshop.run(move || {
            let disk = open_image(file, RawDisk::open)?;
            disk.claim().map_err(io::Error::other)?;
            let block = Block::with_spares(disk, options, prologue, &spares)?;
            let handle = block.handle();
            Ok((parts.build(&called, Box::new(block))?, handle))
        });
        let added = flat(&name, built).and_then(|(function, handle)| {
            self.add_function(at, function)?;
            Ok(handle)
        });
        let handle = added.inspect_err(|_| self.slots.give_back(at))?;
        let disk = PluggedDisk {
            serial: config.serial.clone(),
            at: DiskPlace::Virtio(at),
            number,
            queues: Some(1),
            handle: Handle::Virtio(handle),
        };
        disk.limit(&config.limits);
        disk.deal_with_errors(config.on_error);
        disk.tell_when_stuck(&self.surroundings.on_stuck);
        self.disks.push(disk);
        self.hotplug.lock().unwrap().added(at.device());
        Ok(())
    }

    /// What was done with all disks, those that are out included.
    pub fn disk_use(&self) -> DiskUse {
        let mut all = self.use_of_gone;
        for disk in &self.disks {
            all.add(disk);
        }
        all
    }
}
