//! A machine of every device that sits on a bus.

use std::cell::RefCell;

use lodge_devices::event_loop::EventLoop;
use lodge_devices::fuzzing::{self, Machine};
use lodge_devices::lifecycle::SavedDevices;
use lodge_devices::state::DeviceState;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::board::Range;
use crate::operation::Rig;

/// Turns of the event loop after each operation.
const TURNS: usize = 64;

/// The machine.
pub struct Whole {
    /// What the buses lead to.
    pub machine: Machine,
    events: EventLoop,
    wanted: fn(&Range) -> bool,
    power_on: SavedDevices,
}

/// What a power cycle leaves: memory on a battery, the time that a timer has run for, which machine it is, what
/// became of a drive's disc.
const STAY: [&str; 4] = ["cmos", "acpi-pm", "vmgenid", "sata"];

thread_local! {
    /// The machine between inputs. Its buses and devices hold each other, so one that was dropped would leave its
    /// descriptors behind.
    static MACHINE: RefCell<Option<Whole>> = const { RefCell::new(None) };
}

impl Whole {
    /// Has `act` do something with a machine after power-on, of which inputs address the ranges that are `wanted`.
    ///
    /// # Panics
    /// When the process is out of descriptors, or a device does something wrong.
    pub fn with(wanted: fn(&Range) -> bool, act: impl FnOnce(&mut Self)) {
        let mut whole = MACHINE.take().unwrap_or_else(Self::build);
        whole.wanted = wanted;
        whole.begin();
        act(&mut whole);
        MACHINE.set(Some(whole));
    }

    fn build() -> Self {
        fuzzing::drive_by_hand();
        let events = EventLoop::new().expect("an event loop");
        let mut machine = fuzzing::machine(&events.handle());
        machine.devices.pause();
        let power_on = machine.devices.save().expect("devices are paused");
        machine.devices.resume();
        Self {
            machine,
            events,
            wanted: |_| true,
            power_on,
        }
    }

    /// Nothing of the last input may be left: the same input always does the same.
    fn begin(&mut self) {
        let devices = &mut self.machine.devices;
        devices.pause();
        devices.restore(&self.power_on).expect("own state is taken");
        devices.resume();
        for region in self.machine.ram.iter() {
            let zeroes = vec![0; region.len() as usize];
            let written = self.machine.ram.write_slice(&zeroes, region.start_addr());
            written.expect("zeroes as long as the region");
        }
        self.settle();
    }

    /// The states of devices that forget everything when they are switched off.
    fn forgetful(saved: &SavedDevices) -> impl Iterator<Item = &(String, DeviceState)> {
        let stays = |(name, _): &&(String, DeviceState)| !STAY.contains(&name.as_str());
        saved.devices.iter().filter(stays)
    }

    fn place(&self, range: u8, offset: u16) -> (bool, u64) {
        let mut ranges = self.machine.ranges();
        ranges.retain(self.wanted);
        let (ports, base, length) = ranges[usize::from(range) % ranges.len()];
        // Some accesses begin before the range and some end after it.
        (
            ports,
            base.saturating_sub(4) + u64::from(offset) % (length + 8),
        )
    }

    fn settle(&mut self) {
        self.events.turn(TURNS).expect("the event loop works");
    }
}

impl Rig for Whole {
    fn read(&mut self, range: u8, offset: u16, data: &mut [u8]) {
        let (ports, address) = self.place(range, offset);
        self.machine.bus(ports).read(address, data);
        self.settle();
    }

    fn write(&mut self, range: u8, offset: u16, data: &[u8]) {
        let (ports, address) = self.place(range, offset);
        self.machine.bus(ports).write(address, data);
        self.settle();
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        // What does not fit is not written.
        let _ = self.machine.ram.write_slice(bytes, GuestAddress(address));
    }

    fn save_restore(&mut self) {
        let devices = &mut self.machine.devices;
        devices.pause();
        let saved = devices.save().expect("devices are paused");
        devices.restore(&saved).expect("own state is taken");
        assert_eq!(devices.save().expect("devices are paused"), saved);
        devices.resume();
        self.settle();
    }

    fn power_cycle(&mut self) {
        self.machine.power_cycle();
        self.settle();
        let devices = &mut self.machine.devices;
        devices.pause();
        let now = devices.save().expect("devices are paused");
        devices.resume();
        for (now, then) in Self::forgetful(&now).zip(Self::forgetful(&self.power_on)) {
            assert_eq!(now, then, "left over from before");
        }
    }

    fn finish(&mut self) {
        self.save_restore();
        self.power_cycle();
    }
}
