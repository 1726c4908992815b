//! Devices that come and go while the machine runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use lodge_block::raw::{RawDisk, RawError};
use lodge_devices::hotplug::{
    HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, HOTPLUG_SLOTS, Hotplug, OnEject,
};
use lodge_devices::interrupt::Platform;
use lodge_devices::lifecycle::Shared;
use lodge_devices::pci::{Address, PciRoot};
use lodge_devices::virtio::pci::{VirtioPci, VirtioPciOptions};
use lodge_devices::virtio::{Complain, VirtioDevice};
use lodge_devices::{GuestMemory, bus};
use lodge_vmm_proto::{
    DeviceKey, DiskBus, DiskLimits, ErrorCode, NewDevice, NicModel, OnDiskError, PluggedDevices,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::disks::PluggedDisk;
use super::hardware::Hardware;
use super::{Failure, Machine, Nic};
use crate::descriptors::Descriptors;
use crate::firmware::DiskPlace;
use crate::saved::Layout;

/// A device that is not plugged in, or stays. Nothing has changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// What is wrong, for a person.
    pub message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// There is no room.
    pub(super) fn full(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Busy, message)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(ErrorCode::Internal, failure.message)
    }
}

/// What virtio functions are built from, on any thread.
pub(super) struct VirtioParts {
    pub memory: GuestMemory,
    pub platform: Arc<dyn Platform>,
    pub memory_bus: Arc<bus::Bus>,
    pub complain: Complain,
}

impl VirtioParts {
    /// A function with `device` behind it.
    pub fn build(
        self,
        name: &str,
        device: Box<dyn VirtioDevice>,
    ) -> io::Result<Arc<Mutex<VirtioPci>>> {
        VirtioPci::new(VirtioPciOptions {
            name: name.to_owned(),
            device,
            memory: self.memory,
            platform: self.platform,
            memory_bus: self.memory_bus,
            complain: self.complain,
        })
    }
}

/// What the guest has ejected, from its vCPUs to the main thread, which takes it apart.
pub struct Ejections {
    slots: Mutex<Vec<u8>>,
    event: EventFd,
}

impl Ejections {
    /// None.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            slots: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        }))
    }

    /// Takes what is ejected off the bus at once: the guest finds nothing there when its instruction is done.
    fn hear(self: &Arc<Self>, pci: &Arc<PciRoot>) -> OnEject {
        let (ejections, pci) = (Arc::clone(self), Arc::clone(pci));
        Arc::new(move |slot| {
            if let Some(at) = Address::new(slot, 0) {
                pci.remove(at);
            }
            let slots = ejections.slots.lock();
            slots.unwrap_or_else(PoisonError::into_inner).push(slot);
            let _ = ejections.event.write(1);
        })
    }

    fn take(&self) -> Vec<u8> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.event.read();
        std::mem::take(&mut slots)
    }
}

impl AsRawFd for Ejections {
    /// Readable while there is something to take.
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// The least number that is not taken.
pub(super) fn free_number(taken: &[u8]) -> u8 {
    // There are far fewer devices than numbers.
    (0..u8::MAX)
        .find(|number| !taken.contains(number))
        .unwrap_or(u8::MAX)
}

/// What was built in the workshop, or why not.
pub(super) fn flat<T>(name: &str, built: io::Result<io::Result<T>>) -> Result<T, Refusal> {
    built
        .and_then(|built| built)
        .map_err(|error| Refusal::new(ErrorCode::Internal, format!("{name}: {error}")))
}

/// Opens an image in the jail, where asking a block device about itself is forbidden.
///
/// # Errors
/// When it is no regular file, or no image.
pub fn open_image(
    fd: OwnedFd,
    open: impl FnOnce(OwnedFd) -> Result<RawDisk, RawError>,
) -> io::Result<RawDisk> {
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    open(file.into()).map_err(io::Error::other)
}

impl Hardware {
    /// The registers by which devices come and go.
    pub(super) fn hotplug(
        pm: &Arc<Mutex<lodge_devices::acpi_pm::AcpiPm>>,
        pci: &Arc<PciRoot>,
        ejections: &Arc<Ejections>,
    ) -> Arc<Mutex<Hotplug>> {
        let on_eject = ejections.hear(pci);
        Arc::new(Mutex::new(Hotplug::new(Arc::clone(pm), on_eject)))
    }

    pub(super) fn add_hotplug(&mut self) -> Result<(), Failure> {
        let device = Arc::clone(&self.hotplug);
        self.place(HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, device)?;
        self.devices.add(Arc::clone(&self.hotplug) as Shared);
        Ok(())
    }

    pub(super) fn virtio_parts(&self) -> VirtioParts {
        let surroundings = &self.surroundings;
        VirtioParts {
            memory: surroundings.memory.clone(),
            platform: Arc::new(surroundings.interrupts.clone()),
            memory_bus: Arc::clone(&self.buses.memory),
            complain: Arc::clone(&surroundings.complain),
        }
    }

    /// Where disks and network interfaces are.
    pub fn layout(&self) -> Layout {
        Layout {
            disks: self.disks.iter().map(|disk| disk.place()).collect(),
            nics: self.nics.iter().map(|nic| nic.place()).collect(),
        }
    }

    /// What can be named by a key.
    pub fn plugged(&self) -> PluggedDevices {
        PluggedDevices {
            disks: self.disks.iter().map(|disk| disk.serial.clone()).collect(),
            nics: self.nics.iter().map(|nic| nic.mac).collect(),
        }
    }

    /// The slot of a device that may leave.
    fn slot_of(&self, key: &DeviceKey) -> Result<Address, Refusal> {
        let refuse = |what: &str| Err(Refusal::new(ErrorCode::WrongState, what));
        let at = match key {
            DeviceKey::Disk(serial) => {
                match self.disks.iter().find(|disk| disk.serial == *serial) {
                    None => return refuse("the guest has no such disk"),
                    Some(disk) => match disk.at {
                        DiskPlace::Virtio(at) => at,
                        _ => return refuse("only disks on virtio leave a guest that runs"),
                    },
                }
            }
            DeviceKey::Nic(mac) => match self.nics.iter().find(|nic| nic.mac == *mac) {
                None => return refuse("the guest has no such network interface"),
                Some(nic) if nic.model != NicModel::Virtio => {
                    return refuse("only virtio network interfaces leave a guest that runs");
                }
                Some(nic) => nic.at,
            },
        };
        if !HOTPLUG_SLOTS.contains(&at.device()) {
            return refuse("the device is in a slot from which none leaves");
        }
        Ok(at)
    }

    /// Takes apart what was in a slot. vCPUs may run.
    fn take_out(&mut self, slot: u8) -> Option<DeviceKey> {
        let at = Address::new(slot, 0)?;
        self.pci.remove(at);
        let disk = |disk: &PluggedDisk| disk.at == DiskPlace::Virtio(at);
        let (key, name) = if let Some(found) = self.disks.iter().position(disk) {
            let disk = self.disks.remove(found);
            self.use_of_gone.add(&disk);
            (DeviceKey::Disk(disk.serial.clone()), disk.name())
        } else {
            let found = self.nics.iter().position(|nic| nic.at == at)?;
            let nic = self.nics.remove(found);
            (DeviceKey::Nic(nic.mac), nic.name())
        };
        if let Some(device) = self.devices.remove(&name) {
            // It answers at its addresses until then, and is kept alive by that.
            device.lock().unwrap().reset();
        }
        self.slots.give_back(at);
        Some(key)
    }
}

impl Machine {
    /// Plugs a device in.
    ///
    /// # Errors
    /// [`Refusal`], and nothing has changed.
    pub fn attach(&mut self, device: NewDevice, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let bad = |message: String| Refusal::new(ErrorCode::BadRequest, message);
        let checked = device.validate(fds.len());
        checked.map_err(|error| bad(error.to_string()))?;
        if self.hardware.plugged().has(&device.key()) {
            let message = "the guest has a device with this key already";
            return Err(Refusal::new(ErrorCode::WrongState, message));
        }
        let mut fds = Descriptors::new(fds);
        match device {
            NewDevice::Disk(disk) if disk.bus == DiskBus::Virtio => {
                let file = fds.take(disk.file)?;
                let (workshop, hardware) = (&self.workshop, &mut self.hardware);
                hardware.plug_disk(workshop, file, &disk)
            }
            NewDevice::Nic(nic) if nic.model == NicModel::Virtio => {
                let nic = Nic::new(&nic, &mut fds)?;
                self.hardware.plug_nic(&self.workshop, nic)
            }
            _ => Err(bad(
                "only virtio devices come to a guest that runs".to_owned()
            )),
        }
    }

    /// Asks the guest to give a device up, or takes it out at once.
    ///
    /// # Errors
    /// [`Refusal`] of devices that do not leave.
    pub fn detach(&mut self, key: &DeviceKey, force: bool) -> Result<Option<DeviceKey>, Refusal> {
        let at = self.hardware.slot_of(key)?;
        let slot = at.device();
        if !force {
            self.hardware.hotplug.lock().unwrap().ask(slot);
            return Ok(None);
        }
        if let Some(function) = self.hardware.pci.remove(at) {
            for range in function.lock().unwrap().bar_ranges() {
                self.hardware.buses.memory.leave_ghost(range);
            }
        }
        let gone = self.hardware.take_out(slot);
        self.hardware.hotplug.lock().unwrap().gone(slot);
        Ok(gone)
    }

    /// Asks for a device no longer.
    ///
    /// # Errors
    /// [`Refusal`] when it is out.
    pub fn keep(&mut self, key: &DeviceKey) -> Result<(), Refusal> {
        let slot = self.hardware.slot_of(key)?.device();
        self.hardware.hotplug.lock().unwrap().withdraw(slot);
        Ok(())
    }

    /// Readable while [`Machine::take_ejected`] has something to do.
    pub fn ejections(&self) -> &impl AsRawFd {
        &self.hardware.ejections
    }

    /// Takes apart what the guest has ejected.
    pub fn take_ejected(&mut self) -> Vec<DeviceKey> {
        let slots = self.hardware.ejections.take();
        let out = slots.into_iter();
        out.filter_map(|slot| self.hardware.take_out(slot))
            .collect()
    }

    /// Takes out what the guest was asked for: a reset empties the slots. vCPUs are held.
    pub(super) fn take_leaving(&mut self) -> Vec<DeviceKey> {
        let mut gone = self.take_ejected();
        let leaving = self.hardware.hotplug.lock().unwrap().leaving();
        let leaving = leaving.into_iter();
        gone.extend(leaving.filter_map(|slot| self.hardware.take_out(slot)));
        gone
    }

    /// What can be named by a key.
    pub fn plugged(&self) -> PluggedDevices {
        self.hardware.plugged()
    }

    /// Looks at the size of a disk again, which was grown.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such disk, or the host does not tell.
    pub fn disk_grew(&self, serial: &str) -> Result<(), Refusal> {
        self.disk(serial)?
            .refresh_size()
            .map(drop)
            .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))
    }

    /// Holds a disk to other limits.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such disk, or the limits cannot be.
    pub fn limit_disk(&self, serial: &str, limits: &DiskLimits) -> Result<(), Refusal> {
        limits
            .validate("limits")
            .map_err(|error| Refusal::new(ErrorCode::BadRequest, error.to_string()))?;
        self.disk(serial)?.limit(limits);
        Ok(())
    }

    /// Deals otherwise with what of a disk fails.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such disk.
    pub fn disk_errors(&self, serial: &str, on_error: OnDiskError) -> Result<(), Refusal> {
        self.disk(serial)?.deal_with_errors(on_error);
        Ok(())
    }

    /// Shows the guest the link of a network interface up, or down.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such interface.
    pub fn set_link(&self, mac: [u8; 6], up: bool) -> Result<(), Refusal> {
        let mut nics = self.hardware.nics.iter();
        let Some(nic) = nics.find(|nic| nic.mac == mac) else {
            let message = "the guest has no such network interface";
            return Err(Refusal::new(ErrorCode::WrongState, message));
        };
        nic.set_link(up);
        Ok(())
    }

    fn disk(&self, serial: &str) -> Result<&PluggedDisk, Refusal> {
        let mut disks = self.hardware.disks.iter();
        let found = disks.find(|disk| disk.serial == serial);
        found.ok_or_else(|| Refusal::new(ErrorCode::WrongState, "the guest has no such disk"))
    }
}
