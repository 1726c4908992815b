//! Drivers, honest and hostile, on a real tap.

mod driver;
mod hostile;
mod interrupts;
mod lifecycle;
mod offloads;
mod packets;
mod registers;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vm_memory::{Bytes as _, GuestAddress};

use self::driver::*;
use super::registers::at;
use super::*;
use crate::GuestMemory;
use crate::bus::Bus;
use crate::lifecycle::Device;
use crate::pci::PciFunction;
use crate::test_machine::{TestLine, TestPlatform};
use crate::test_wire::{MAC, Wire, frame, is_ours, wire};

/// Where the BARs are.
const BASE: u64 = 0xd000_0000;
const VECTORS: u64 = 0xd002_0000;
/// Two pieces of memory with a hole between them.
const MEMORY: u64 = 8 << 20;
const HIGH: u64 = 16 << 20;
const HIGH_BYTES: u64 = 1 << 20;

/// A machine with a card, and its driver.
struct Rig {
    function: Arc<Mutex<E1000e>>,
    bus: Arc<Bus>,
    memory: GuestMemory,
    line: Arc<TestLine>,
    platform: Arc<TestPlatform>,
    wire: Wire,
    driver: Driver,
}

impl Rig {
    /// Memory decoding and bus mastering are on.
    fn new() -> Self {
        let (tap, wire) = wire();
        let bus = Arc::new(Bus::new());
        let (line, platform) = (TestLine::new(), TestPlatform::new());
        let memory = GuestMemory::from_ranges(&[
            (GuestAddress(0), MEMORY as usize),
            (GuestAddress(HIGH), HIGH_BYTES as usize),
        ])
        .unwrap();
        let function = E1000e::new(E1000eOptions {
            name: "nic0".to_owned(),
            tap,
            mac: MAC,
            memory: memory.clone(),
            platform: Arc::clone(&platform) as _,
            line: Arc::clone(&line) as _,
            memory_bus: Arc::clone(&bus),
            prologue: Arc::new(|| {}),
        });
        let rig = Self {
            function: function.unwrap(),
            bus,
            memory,
            line,
            platform,
            wire,
            driver: Driver::default(),
        };
        rig.power_on();
        rig
    }

    fn power_on(&self) {
        let mut function = self.function.lock().unwrap();
        function.set_bar(0, BASE);
        function.set_bar(3, VECTORS);
        function.config_write(4, &[6, 0]);
    }

    fn config<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        self.function.lock().unwrap().config_read(offset, &mut data);
        data
    }

    fn config_write(&self, offset: usize, data: &[u8]) {
        self.function.lock().unwrap().config_write(offset, data);
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.bus.read(BASE + offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.bus.write(BASE + offset, &value.to_le_bytes());
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn word(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// Waits until `done`.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "no end of waiting for {what}");
            std::thread::yield_now();
        }
    }
}
