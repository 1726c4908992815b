//! The SATA controller with a disk or a CD-ROM drive: registers, command lists, frames, packets and scatter lists.

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use lodge_devices::ahci::{Ahci, AhciOptions, Cdrom, CdromHandle, Disk, DiskOptions, Drive};
use lodge_devices::fuzzing::{TestLine, TestPlatform};

use crate::board::Host;
use crate::file::{Growing, disk_file};
use crate::function::{Function, FunctionRig, Slot};
use crate::input::Input;
use crate::operation::{Offer, Piece, run};
use crate::virtio::{DATA, readable, writable};

const BASE: u64 = 0xd000_0000;
const BAR: usize = 5;
/// The port with the drive.
const PORT: u64 = 0x100;
const LISTS: u64 = 0x1000;
const FRAMES: u64 = 0x1800;
const TABLES: u64 = 0x2000;
const TABLE_BYTES: u64 = 0x180;

/// Registers of a port (AHCI 1.3.1, 3.3).
const CLB: u64 = 0x00;
const FB: u64 = 0x08;
const IE: u64 = 0x14;
const CMD: u64 = 0x18;
const TFD: u64 = 0x20;
const SERR: u64 = 0x30;
const SACT: u64 = 0x34;
const CI: u64 = 0x38;

/// Bytes of a disk, and of a disc: a multiple of both kinds of block.
const SIZE: u64 = 1 << 20;

struct AhciRig {
    function: Function<Ahci>,
    /// A command that every drive carries out.
    honest: u8,
}

/// A disk.
///
/// # Panics
/// When the device does something wrong.
pub fn disk(data: &[u8]) {
    let file = disk_file(SIZE);
    let grow = Growing::new(&file);
    let options = DiskOptions {
        read_only: data.first().is_some_and(|byte| byte & 1 != 0),
        serial: "fuzzed".to_owned(),
    };
    let image = RawDisk::open(file.into()).expect("a file is a disk");
    let disk = Disk::new(image, options);
    let handle = disk.handle();
    let host = grow.host(move || handle.refresh_size());
    drive(Drive::Disk(disk), host, 0xec, data);
}

/// A CD-ROM drive whose disc is changed.
///
/// # Panics
/// When the device does something wrong.
pub fn cdrom(data: &[u8]) {
    let cdrom = Cdrom::new(Some(disc(SIZE)), "fuzzed");
    let handle = cdrom.handle();
    let host: Host = Box::new(move |what, bytes| change_disc(&handle, what, bytes.len() as u64));
    drive(Drive::Cdrom(cdrom), host, 0xa1, data);
}

fn disc(size: u64) -> RawDisk {
    RawDisk::open_for_reading(disk_file(size).into()).expect("a file is a disc")
}

fn change_disc(handle: &CdromHandle, what: u8, more: u64) {
    match what % 3 {
        0 => {
            // Also of less than a block.
            let _ = handle.insert(disc(512 * (1 + more)));
        }
        1 => {
            let _ = handle.eject(what & 0x80 != 0);
        }
        _ => {
            let tray = handle.tray();
            assert!(!tray.ejected || !tray.locked, "locked while it is open");
        }
    }
}

fn drive(drive: Drive, host: Host, honest: u8, data: &[u8]) {
    let slot = Slot::default();
    let mut drives = [const { None }; 6];
    drives[0] = Some(drive);
    let function = Ahci::new(AhciOptions {
        name: "sata".to_owned(),
        drives,
        memory: slot.ram.clone(),
        platform: TestPlatform::new(),
        line: TestLine::new(),
        memory_bus: Arc::clone(&slot.bus),
        prologue: Arc::new(|| {}),
        complain: Arc::new(|_, _| {}),
    })
    .expect("the process has descriptors");
    // What the host has done to the drive stays.
    let function = Function::new(function, slot, host, &["global", "ports"]);
    let mut rig = AhciRig { function, honest };
    let mut input = Input::new(data);
    let Some(shape) = input.u8() else {
        return;
    };
    if shape & 0x80 == 0 {
        rig.start();
    }
    run(&mut rig, input);
}

impl AhciRig {
    /// As drivers do.
    fn start(&self) {
        self.function.switch_on(&[(BAR, BASE)]);
        for (register, value) in [
            (CLB, LISTS as u32),
            (CLB + 4, 0),
            (FB, FRAMES as u32),
            (FB + 4, 0),
            (CMD, 0x10),
            (SERR, u32::MAX),
            (0x10, u32::MAX),
            (IE, 0x7dc0_007f),
            (CMD, 0x11),
        ] {
            self.set(register, value);
        }
        // Interrupts, in the controller.
        self.function.set(BASE + 4, 0x8000_0002);
        self.function.settle();
    }

    fn set(&self, register: u64, value: u32) {
        self.function.set(BASE + PORT + register, value);
    }

    fn get(&self, register: u64) -> u32 {
        self.function.get(BASE + PORT + register)
    }
}

impl FunctionRig for AhciRig {
    type Tested = Ahci;

    fn function(&mut self) -> &mut Function<Ahci> {
        &mut self.function
    }

    /// Ranges are the controller's registers, those of the port, all of them.
    fn place(&self, range: u8, offset: u64) -> u64 {
        match range % 4 {
            0 => BASE + offset % 0x30,
            1 | 2 => BASE + PORT + offset % 0x48,
            _ => BASE + offset % 0x1004,
        }
    }

    /// A command in slot `queue`: the first buffer is the frame, with the flags of the header in its
    /// address; with a packet in the second if the flags say so; the others are data.
    fn offer(&mut self, offer: &Offer) {
        let slot = u64::from(offer.queue % 32);
        let Some((frame, data)) = offer.pieces.split_first() else {
            return;
        };
        let table = TABLES + slot * TABLE_BYTES;
        let first = (frame.address as u32 & 0xffff) | (data.len() as u32) << 16;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&first.to_le_bytes());
        header[8..].copy_from_slice(&table.to_le_bytes());
        self.function.put(LISTS + slot * 32, &header);
        // Frame and packet, as far as they go, with the list of data behind.
        let mut content = [0; 0x80];
        let count = frame.content.len().min(content.len());
        content[..count].copy_from_slice(&frame.content[..count]);
        self.function.put(table, &content);
        for (index, piece) in (0..).zip(data) {
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&piece.address.to_le_bytes());
            entry[12..].copy_from_slice(&piece.length.wrapping_sub(1).to_le_bytes());
            self.function.put(table + 0x80 + 16 * index, &entry);
        }
    }

    /// Issues the command in slot `queue`; from 0x80 on as a queued one.
    fn ring(&mut self, queue: u8) {
        let slot = 1 << (queue % 32);
        if queue & 0x80 != 0 {
            self.set(SACT, slot);
        }
        self.set(CI, slot);
        self.function.settle();
    }

    /// The next driver finds a drive that says what it is.
    fn serves_the_next(&mut self) {
        self.start();
        let mut frame = command_frame(self.honest, 0, 0, 0);
        frame.resize(64, 0);
        self.offer(&command(0, 5, &frame, &[writable(DATA, 512)]));
        self.ring(0);
        assert_eq!(self.get(CI), 0, "a command does not end");
        assert_eq!(self.get(TFD) & 0x89, 0, "a drive does not say what it is");
    }
}

/// A frame with a command for 48-bit addresses.
pub fn command_frame(code: u8, features: u16, lba: u64, count: u16) -> Vec<u8> {
    let lba = lba.to_le_bytes();
    let (features, count) = (features.to_le_bytes(), count.to_le_bytes());
    let mut frame = vec![0x27, 0x80, code, features[0]];
    frame.extend([lba[0], lba[1], lba[2], 0x40, lba[3], lba[4], lba[5]]);
    frame.extend([features[1], count[0], count[1]]);
    frame.resize(20, 0);
    frame
}

/// A command in a slot, with the flags of its header.
pub fn command(slot: u8, flags: u64, frame: &[u8], data: &[Piece]) -> Offer {
    let mut pieces = vec![readable(flags, frame)];
    pieces.extend_from_slice(data);
    Offer {
        queue: slot,
        indirect: false,
        pieces,
    }
}
