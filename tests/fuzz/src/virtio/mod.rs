//! Virtio devices, each behind its transport: registers, rings and requests.

mod driver;
mod rig;

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use lodge_devices::virtio::balloon::{self, Balloon};
use lodge_devices::virtio::blk::{self, Block};
use lodge_devices::virtio::console::VirtioConsole;
use lodge_devices::virtio::net::{self, Net};
use lodge_devices::virtio::rng::Rng;
use lodge_devices::virtio::vsock::Vsock;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

pub use driver::DATA;
use rig::{Surroundings, drive};

use crate::board::Board;
use crate::chipset::typed_console;
use crate::file::{Growing, disk_file};
use crate::operation::{Offer, Piece};
use crate::wire::{HEADER, Wire};

/// Size of a disk in bytes.
pub const DISK: u64 = 1 << 20;

/// A request of one buffer that every driver may make.
fn honest(queue: u8, pieces: Vec<Piece>) -> Option<Offer> {
    Some(Offer {
        queue,
        indirect: false,
        pieces,
    })
}

/// A buffer for the device to read.
pub fn readable(address: u64, content: &[u8]) -> Piece {
    Piece {
        writable: false,
        address,
        length: content.len() as u32,
        content: content.to_vec(),
    }
}

/// A buffer for the device to write.
pub fn writable(address: u64, length: u32) -> Piece {
    Piece {
        writable: true,
        address,
        length,
        content: Vec::new(),
    }
}

/// The header of a request to a block device.
pub fn block_header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// The entropy device.
///
/// # Panics
/// When the device does something wrong.
pub fn rng(data: &[u8]) {
    let mut surroundings = Surroundings::new();
    surroundings.honest = honest(0, vec![writable(DATA, 16)]);
    let rng = Rng::new(&surroundings.events.handle());
    drive(Box::new(rng), surroundings, data);
}

/// The console, with somebody who types.
///
/// # Panics
/// When the device does something wrong.
pub fn console(data: &[u8]) {
    let mut board = Board::new();
    let text = typed_console(&mut board);
    let device = VirtioConsole::new(&board.events.handle(), &text);
    let surroundings = Surroundings {
        ram: board.ram,
        events: board.events,
        host: board.host,
        honest: honest(1, vec![readable(DATA, b"login: ")]),
        threads: false,
    };
    drive(Box::new(device), surroundings, data);
}

/// A disk with two queues.
///
/// # Panics
/// When the device does something wrong.
pub fn block(data: &[u8]) {
    let mut surroundings = Surroundings::new();
    let request = vec![
        readable(DATA, &block_header(0, 1)),
        writable(DATA + 0x1000, 512),
        writable(DATA + 0x2000, 1),
    ];
    surroundings.honest = honest(0, request);
    surroundings.threads = true;
    let file = disk_file(DISK);
    let grow = Growing::new(&file);
    let disk = RawDisk::open(file.into()).expect("a file is a disk");
    let options = blk::Options {
        read_only: data.first().is_some_and(|byte| byte & 0x80 != 0),
        serial: "fuzzed".to_owned(),
        queues: 2,
    };
    let device = Block::new(disk, options, Arc::new(|| {})).expect("the host has io_uring");
    let handle = device.handle();
    surroundings.host = grow.host(move || handle.refresh_size());
    drive(Box::new(device), surroundings, data);
}

/// An interface with two pairs of queues, and a wire on which anybody sends anything.
///
/// # Panics
/// When the device does something wrong.
pub fn network(data: &[u8]) {
    let mut surroundings = Surroundings::new();
    let packet = [[0; HEADER].as_slice(), &[0xff; 60]].concat();
    surroundings.honest = honest(1, vec![readable(DATA, &packet)]);
    surroundings.threads = true;
    let ((first, wire), (second, other)) = (Wire::new(), Wire::new());
    surroundings.host = Box::new(move |what, bytes| {
        let wire = if what & 1 == 0 { &wire } else { &other };
        wire.say(bytes);
    });
    let options = net::Options {
        mac: [0x52, 0x54, 0, 1, 2, 3],
        mtu: 1500,
    };
    let control = surroundings.events.handle();
    let device = Net::on_sockets(vec![first, second], &control, options).expect("sockets");
    drive(Box::new(device), surroundings, data);
}

/// The balloon, with a host that wishes for this and that.
///
/// # Panics
/// When the device does something wrong, e.g. gives up memory that the guest does not have.
pub fn balloon(data: &[u8]) {
    let mut surroundings = Surroundings::new();
    surroundings.honest = honest(0, vec![readable(DATA, &[1, 0, 0, 0])]);
    surroundings.threads = true;
    let discard: balloon::Discard = Arc::new(|memory, range| {
        assert!(range.start % balloon::PAGE == 0 && range.end % balloon::PAGE == 0);
        let length = range.end.checked_sub(range.start).expect("a range");
        assert!(memory.check_range(GuestAddress(range.start), length as usize));
        Ok(())
    });
    let device = Balloon::new(Arc::new(|| {}), discard).expect("descriptors");
    let handle = device.handle();
    surroundings.host = Box::new(move |what, bytes| {
        if what & 1 == 0 {
            let mut target = [0; 8];
            target
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            handle.set_target(u64::from_le_bytes(target));
        } else {
            handle.ask_statistics();
        }
        let _ = handle.condition();
    });
    drive(Box::new(device), surroundings, data);
}

/// The part of the socket device that is not the host's kernel.
///
/// # Panics
/// When the device does something wrong.
pub fn vsock(data: &[u8]) {
    let surroundings = Surroundings::new();
    let device = Vsock::parked(&surroundings.events.handle());
    drive(Box::new(device), surroundings, data);
}
