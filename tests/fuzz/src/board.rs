//! Devices on the two buses of a machine, driven by hand.

use std::sync::Arc;

use lodge_devices::GuestMemory;
use lodge_devices::bus::Bus;
use lodge_devices::event_loop::EventLoop;
use lodge_devices::lifecycle::{DeviceSet, SavedDevices, Shared};
use vm_memory::{Bytes, GuestAddress};

use crate::operation::Rig;

/// Turns of the event loop after each operation: a device that keeps it busy for longer has something wrong with it.
const TURNS: usize = 64;

/// Bus (`true` for ports), first address and length of some registers.
pub type Range = (bool, u64, u64);

/// What happens on the host's side.
pub type Host = Box<dyn FnMut(u8, &[u8])>;

/// Some devices.
pub struct Board {
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Memory-mapped registers.
    pub memory: Arc<Bus>,
    /// What devices reach by DMA.
    pub ram: GuestMemory,
    /// All devices.
    pub devices: DeviceSet,
    /// What inputs may address.
    pub ranges: Vec<Range>,
    /// Serves slow devices.
    pub events: EventLoop,
    /// See [`Host`].
    pub host: Host,
    /// What happens after each operation, and after a power cycle.
    pub after: Box<dyn FnMut()>,
    power_on: Option<SavedDevices>,
}

/// Guest memory with an edge in the middle and a hole after it.
///
/// # Panics
/// When the host has no such address space.
pub fn ram() -> GuestMemory {
    let edge = GuestAddress(0x8_0000);
    GuestMemory::from_ranges(&[(GuestAddress(0), 0x8_0000), (edge, 0x2_0000)])
        .expect("memory for a small guest")
}

impl Board {
    /// Without devices.
    ///
    /// # Panics
    /// When the process is out of descriptors.
    pub fn new() -> Self {
        lodge_devices::fuzzing::drive_by_hand();
        Self {
            ports: Arc::new(Bus::new()),
            memory: Arc::new(Bus::new()),
            ram: ram(),
            devices: DeviceSet::new(),
            ranges: Vec::new(),
            events: EventLoop::new().expect("an event loop"),
            host: Box::new(|_, _| {}),
            after: Box::new(|| {}),
            power_on: None,
        }
    }

    /// Adds a device at some ports.
    ///
    /// # Panics
    /// When there is another one.
    pub fn add_ports<D>(&mut self, base: u64, length: u64, device: &Arc<std::sync::Mutex<D>>)
    where
        D: lodge_devices::bus::BusDevice + lodge_devices::lifecycle::Device + 'static,
    {
        self.ports
            .insert(base, length, Arc::clone(device) as _)
            .expect("free ports");
        self.ranges.push((true, base, length));
        self.devices.add(Arc::clone(device) as Shared);
    }

    /// From now on a power cycle must lead to the state that the devices have now.
    pub fn expect_power_on_state(&mut self) {
        self.power_on = Some(self.save());
    }

    /// The state of all devices.
    ///
    /// # Panics
    /// Never: they are paused.
    pub fn save(&mut self) -> SavedDevices {
        self.devices.pause();
        let saved = self.devices.save().expect("devices are paused");
        self.devices.resume();
        saved
    }

    fn bus(&self, ports: bool) -> &Bus {
        if ports { &self.ports } else { &self.memory }
    }

    /// Some accesses begin before a range and some end after it.
    fn place(&self, range: u8, offset: u16) -> (bool, u64) {
        let (ports, base, length) = self.ranges[usize::from(range) % self.ranges.len()];
        (
            ports,
            base.saturating_sub(4) + u64::from(offset) % (length + 8),
        )
    }

    fn settle(&mut self) {
        (self.after)();
        self.events.turn(TURNS).expect("the event loop works");
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig for Board {
    fn read(&mut self, range: u8, offset: u16, data: &mut [u8]) {
        let (ports, address) = self.place(range, offset);
        self.bus(ports).read(address, data);
        self.settle();
    }

    fn write(&mut self, range: u8, offset: u16, data: &[u8]) {
        let (ports, address) = self.place(range, offset);
        self.bus(ports).write(address, data);
        self.settle();
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        // What does not fit is not written.
        let _ = self.ram.write_slice(bytes, GuestAddress(address));
    }

    fn save_restore(&mut self) {
        self.devices.pause();
        let saved = self.devices.save().expect("devices are paused");
        self.devices.restore(&saved).expect("own state is taken");
        assert_eq!(self.devices.save().expect("devices are paused"), saved);
        self.devices.resume();
        self.settle();
    }

    fn power_cycle(&mut self) {
        self.devices.reset();
        self.settle();
        if self.power_on.is_some() {
            assert_eq!(Some(self.save()), self.power_on, "left over from before");
        }
    }

    fn host(&mut self, what: u8, bytes: &[u8]) {
        (self.host)(what, bytes);
        self.settle();
    }

    fn finish(&mut self) {
        self.save_restore();
        self.power_cycle();
    }
}
