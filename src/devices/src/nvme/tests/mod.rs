//! Drivers, honest and hostile, through the registers.

mod admin;
mod data;
mod driver;
mod held_back;
mod hostile;
mod lifecycle;
mod model;
mod registers;
mod shadow;
mod throttle;
mod transfers;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lodge_block::raw::RawDisk;
use vm_memory::{Bytes, GuestAddress};

use self::driver::*;
use super::*;
use crate::GuestMemory;
use crate::bus::Bus;
use crate::lifecycle::Device;
use crate::pci::PciFunction;
use crate::test_machine::TestPlatform;

const BASE: u64 = 0xd000_0000;
/// Two pieces of memory with a hole between them.
const MEMORY: u64 = 8 << 20;
const HIGH: u64 = 16 << 20;
const HIGH_BYTES: u64 = 1 << 20;
const SIZE: u64 = 4 << 20;

/// A machine with a controller, and its driver.
struct Rig {
    function: Arc<Mutex<Nvme>>,
    handle: NvmeHandle,
    bus: Arc<Bus>,
    memory: GuestMemory,
    platform: Arc<TestPlatform>,
    complaints: Arc<Mutex<Vec<String>>>,
    driver: Mutex<Driver>,
}

fn guest_memory() -> GuestMemory {
    GuestMemory::from_ranges(&[
        (GuestAddress(0), MEMORY as usize),
        (GuestAddress(HIGH), HIGH_BYTES as usize),
    ])
    .unwrap()
}

/// An image of `size` bytes.
fn image(size: u64) -> (File, RawDisk) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let disk = RawDisk::open(file.try_clone().unwrap().into()).unwrap();
    (file, disk)
}

fn disk_options() -> NvmeDiskOptions {
    NvmeDiskOptions {
        read_only: false,
        serial: "disk-0".to_owned(),
        queues: 3,
    }
}

/// A rig with a disk of [`SIZE`] bytes whose driver has enabled the controller and has two pairs of queues.
fn ready() -> (Rig, File) {
    let (file, disk) = image(SIZE);
    let rig = Rig::new(disk, disk_options());
    rig.enable();
    rig.create_pair(1, 64);
    rig.create_pair(2, 64);
    (rig, file)
}

impl Rig {
    /// Memory decoding, bus mastering and MSI-X are on.
    fn new(image: RawDisk, disk: NvmeDiskOptions) -> Self {
        let bus = Arc::new(Bus::new());
        let platform = TestPlatform::new();
        let memory = guest_memory();
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&complaints);
        let function = Nvme::new(NvmeOptions {
            name: "disk0".to_owned(),
            image,
            disk,
            memory: memory.clone(),
            platform: Arc::clone(&platform) as _,
            memory_bus: Arc::clone(&bus),
            prologue: Arc::new(|| {}),
            complain: Arc::new(move |device, what| {
                heard.lock().unwrap().push(format!("{device}: {what}"));
            }),
        });
        let function = function.unwrap();
        let handle = function.lock().unwrap().handle();
        let rig = Self {
            function,
            handle,
            bus,
            memory,
            platform,
            complaints,
            driver: Mutex::default(),
        };
        rig.power_on();
        rig
    }

    fn power_on(&self) {
        {
            let mut function = self.function.lock().unwrap();
            function.set_bar(0, BASE);
            function.config_write(4, &[6, 0]);
            // MSI-X on: the only capability.
            function.config_write(0x42, &[0, 0x80]);
        }
        for vector in 0..4_u64 {
            self.bus
                .write(BASE + 0x2000 + vector * 16, &0xfee0_0000_u64.to_le_bytes());
            self.bus
                .write(BASE + 0x2008 + vector * 16, &vector.to_le_bytes());
        }
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

    /// Interrupts of a vector so far.
    fn interrupts(&self, vector: usize) -> u32 {
        self.platform.vector(vector).sent
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
