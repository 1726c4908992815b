//! Drivers, honest and hostile, through the registers.

mod cdrom;
mod disk;
mod driver;
mod held_back;
mod hostile;
mod interrupts;
mod lifecycle;
mod model;
mod registers;
mod throttle;

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
use crate::test_machine::{TestLine, TestPlatform};
use crate::virtio::blk::Totals;

const BASE: u64 = 0xd000_0000;
/// Two pieces of memory with a hole between them.
const MEMORY: u64 = 8 << 20;
const HIGH: u64 = 16 << 20;
const HIGH_BYTES: u64 = 1 << 20;

/// A machine with a controller, and its driver.
struct Rig {
    function: Arc<Mutex<Ahci>>,
    bus: Arc<Bus>,
    memory: GuestMemory,
    line: Arc<TestLine>,
    platform: Arc<TestPlatform>,
    complaints: Arc<Mutex<Vec<String>>>,
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

fn disk_options() -> DiskOptions {
    DiskOptions {
        read_only: false,
        serial: "disk-0".to_owned(),
    }
}

/// A rig with a disk of `size` bytes at port 0, ready for commands.
fn disk_rig(size: u64) -> (Rig, DiskHandle, File) {
    let (file, disk) = image(size);
    let disk = Disk::new(disk, disk_options());
    let handle = disk.handle();
    let rig = Rig::new([Some(Drive::Disk(disk)), None, None, None, None, None]);
    rig.start_port(0);
    (rig, handle, file)
}

impl Rig {
    /// Memory decoding and bus mastering are on.
    fn new(drives: [Option<Drive>; PORTS]) -> Self {
        let bus = Arc::new(Bus::new());
        let (line, platform) = (TestLine::new(), TestPlatform::new());
        let memory = guest_memory();
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&complaints);
        let function = Ahci::new(AhciOptions {
            name: "sata".to_owned(),
            drives,
            memory: memory.clone(),
            platform: Arc::clone(&platform) as _,
            line: Arc::clone(&line) as _,
            memory_bus: Arc::clone(&bus),
            prologue: Arc::new(|| {}),
            complain: Arc::new(move |device, what| {
                heard.lock().unwrap().push(format!("{device}: {what}"));
            }),
        });
        let rig = Self {
            function: function.unwrap(),
            bus,
            memory,
            line,
            platform,
            complaints,
        };
        rig.power_on();
        rig
    }

    fn power_on(&self) {
        let mut function = self.function.lock().unwrap();
        function.set_bar(5, BASE);
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

    fn port(&self, port: u64, offset: u64) -> u32 {
        self.read(0x100 + port * 0x80 + offset)
    }

    fn set_port(&self, port: u64, offset: u64, value: u32) {
        self.write(0x100 + port * 0x80 + offset, value);
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

    /// Waits until `done`.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "no end of waiting for {what}");
            std::thread::yield_now();
        }
    }
}
