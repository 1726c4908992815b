//! A PCI function with registers behind its BARs, driven by hand.

use std::sync::{Arc, Mutex, MutexGuard};

use lodge_devices::GuestMemory;
use lodge_devices::bus::Bus;
use lodge_devices::lifecycle::Device;
use lodge_devices::pci::PciFunction;
use lodge_devices::state::DeviceState;
use vm_memory::{Bytes, GuestAddress};

use crate::board::{Host, ram};
use crate::operation::{Offer, Rig};

/// Offset of the command register, and what a driver switches on in it: answers to memory accesses, and its own.
const COMMAND: usize = 4;
const MEMORY_AND_MASTER: [u8; 2] = [6, 0];

/// Where a function is: what it is built with.
pub struct Slot {
    /// Where its registers answer.
    pub bus: Arc<Bus>,
    /// What it reaches by DMA.
    pub ram: GuestMemory,
}

impl Default for Slot {
    fn default() -> Self {
        lodge_devices::fuzzing::drive_by_hand();
        Self {
            bus: Arc::new(Bus::new()),
            ram: ram(),
        }
    }
}

/// The function. What it would do by threads it does when something has happened.
pub struct Function<F: PciFunction + Device> {
    function: Arc<Mutex<F>>,
    slot: Slot,
    host: Host,
    power_on: DeviceState,
    /// Parts of its state that a power cycle takes back to what they were.
    forgotten: &'static [&'static str],
}

impl<F: PciFunction + Device> Function<F> {
    /// A function that was just built in `slot`.
    pub fn new(
        function: Arc<Mutex<F>>,
        slot: Slot,
        host: Host,
        forgotten: &'static [&'static str],
    ) -> Self {
        let power_on = {
            let mut function = function.lock().expect("nobody else has it");
            function.pause();
            let power_on = function.save();
            function.resume();
            power_on
        };
        Self {
            function,
            slot,
            host,
            power_on,
            forgotten,
        }
    }

    fn lock(&self) -> MutexGuard<'_, F> {
        self.function.lock().expect("nobody else has it")
    }

    /// What firmware does: places for the BARs, and the function switched on.
    pub fn switch_on(&self, bars: &[(usize, u64)]) {
        let mut function = self.lock();
        for (index, base) in bars {
            function.set_bar(*index, *base);
        }
        function.config_write(COMMAND, &MEMORY_AND_MASTER);
    }

    /// Has the function look at its work.
    pub fn settle(&self) {
        let mut function = self.lock();
        function.pause();
        function.resume();
    }

    /// Reads configuration space as the bus splits it.
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        let width = data.len().min(4);
        self.lock()
            .config_read(usize::from(offset % 0x1000) & !3, &mut data[..width]);
    }

    /// Writes configuration space as the bus splits it.
    pub fn config_write(&self, offset: u16, data: &[u8]) {
        let width = data.len().min(4);
        self.lock()
            .config_write(usize::from(offset % 0x1000) & !3, &data[..width]);
    }

    /// Reads a register.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.slot.bus.read(address, data);
    }

    /// Writes a register.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.slot.bus.write(address, data);
    }

    /// Reads a doubleword.
    pub fn get(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.read(address, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a doubleword.
    pub fn set(&self, address: u64, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    /// Writes to memory; what does not fit is not written.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        let _ = self.slot.ram.write_slice(bytes, GuestAddress(address));
    }

    /// A byte of memory, 0 where there is none.
    pub fn byte(&self, address: u64) -> u8 {
        self.slot
            .ram
            .read_obj(GuestAddress(address))
            .unwrap_or_default()
    }

    /// Saves the function and has it go on from that.
    ///
    /// # Panics
    /// When it does not take its own state, or becomes another by it.
    pub fn save_restore(&self) {
        {
            let mut function = self.lock();
            function.pause();
            let saved = function.save();
            function.restore(&saved).expect("own state is taken");
            assert_eq!(function.save(), saved);
            function.resume();
        }
        self.settle();
    }

    /// Switches the machine off and on.
    ///
    /// # Panics
    /// When something is left that should not be.
    pub fn power_cycle(&self) {
        {
            let mut function = self.lock();
            function.pause();
            function.reset();
            let (now, then) = (function.save(), &self.power_on);
            for part in self.forgotten {
                assert_eq!(now.body[part], then.body[part], "left over from before");
            }
            function.resume();
        }
        self.settle();
    }

    /// Something happens on the host's side.
    pub fn host(&mut self, what: u8, bytes: &[u8]) {
        (self.host)(what, bytes);
        self.settle();
    }
}

/// A function with what its target knows of it. Of the ranges that inputs address, those from 0x80 on are configuration space.
pub trait FunctionRig {
    /// What is under test.
    type Tested: PciFunction + Device;

    /// The function.
    fn function(&mut self) -> &mut Function<Self::Tested>;

    /// The address of a register; some lie before a range, or after it.
    fn place(&self, range: u8, offset: u64) -> u64;

    /// See [`Operation::Offer`](crate::operation::Operation::Offer).
    fn offer(&mut self, offer: &Offer);

    /// See [`Operation::Ring`](crate::operation::Operation::Ring).
    fn ring(&mut self, queue: u8);

    /// The next driver finds a function that works. It was just switched on.
    fn serves_the_next(&mut self);
}

impl<R: FunctionRig> Rig for R {
    fn read(&mut self, range: u8, offset: u16, data: &mut [u8]) {
        if range & 0x80 == 0 {
            let place = self.place(range, offset.into());
            self.function().read(place, data);
        } else {
            self.function().config_read(offset, data);
        }
    }

    fn write(&mut self, range: u8, offset: u16, data: &[u8]) {
        if range & 0x80 == 0 {
            let place = self.place(range, offset.into());
            self.function().write(place, data);
        } else {
            self.function().config_write(offset, data);
        }
        self.function().settle();
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        self.function().put(address, bytes);
    }

    fn offer(&mut self, offer: &Offer) {
        FunctionRig::offer(self, offer);
    }

    fn ring(&mut self, queue: u8) {
        FunctionRig::ring(self, queue);
    }

    fn save_restore(&mut self) {
        self.function().save_restore();
    }

    fn power_cycle(&mut self) {
        self.function().power_cycle();
    }

    fn host(&mut self, what: u8, bytes: &[u8]) {
        self.function().host(what, bytes);
    }

    fn finish(&mut self) {
        self.save_restore();
        self.power_cycle();
        self.serves_the_next();
    }
}

impl<F: PciFunction + Device> Drop for Function<F> {
    fn drop(&mut self) {
        // The bus holds the function as long as its BAR is mapped. One that failed stays as it is.
        if let Ok(mut function) = self.function.lock() {
            function.config_write(COMMAND, &[0, 0]);
        }
    }
}
