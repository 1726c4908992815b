//! The NVM Express controller: registers, doorbells, queues, and commands with their lists of pages.

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use lodge_devices::fuzzing::TestPlatform;
use lodge_devices::nvme::{Nvme, NvmeDiskOptions, NvmeOptions};

use crate::file::{Growing, disk_file};
use crate::function::{Function, FunctionRig, Slot};
use crate::input::Input;
use crate::operation::{Offer, Piece, run};
use crate::virtio::{DATA, readable, writable};

const BASE: u64 = 0xd000_0000;
const BAR: usize = 0;

/// Registers (NVM Express 1.4, 3.1).
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
const MSIX: u64 = 0x2000;
/// Enabled, with the sizes of entries there are.
const ENABLED: u32 = 6 << 16 | 4 << 20 | 1;

/// Queues: that for commands to the controller, and two for data.
const QUEUES: u8 = 3;
/// Entries of each.
const ENTRIES: u32 = 16;
/// Where they are, each in a page of its own, and lists of pages behind them.
const SUBMISSION: u64 = 0x1000;
const COMPLETION: u64 = 0x5000;
const LISTS: u64 = 0x9000;
const PAGE: u64 = 0x1000;

/// Bytes of the disk.
const SIZE: u64 = 1 << 20;

/// Commands (5 and 6).
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const READ: u8 = 0x02;

struct NvmeRig {
    function: Function<Nvme>,
    queues: [Pair; QUEUES as usize],
}

/// Queues of one number as their driver sees them.
#[derive(Debug, Clone, Copy)]
struct Pair {
    tail: u32,
    head: u32,
    phase: bool,
}

const FRESH: Pair = Pair {
    tail: 0,
    head: 0,
    phase: true,
};

/// A controller with a disk that grows.
///
/// # Panics
/// When the device does something wrong.
pub fn disk(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(shape) = input.u8() else {
        return;
    };
    let slot = Slot::default();
    let file = disk_file(SIZE);
    let grow = Growing::new(&file);
    let function = Nvme::new(NvmeOptions {
        name: "disk0".to_owned(),
        image: RawDisk::open(file.into()).expect("a file is a disk"),
        disk: NvmeDiskOptions {
            read_only: shape & 1 != 0,
            serial: "fuzzed".to_owned(),
            queues: 2,
        },
        memory: slot.ram.clone(),
        platform: TestPlatform::new(),
        memory_bus: Arc::clone(&slot.bus),
        prologue: Arc::new(|| {}),
        complain: Arc::new(|_, _| {}),
    })
    .expect("the host has io_uring");
    let handle = function.lock().expect("nobody else has it").handle();
    let host = grow.host(move || handle.refresh_size());
    // What the host has done to the disk stays.
    let forgotten = &["config", "msix", "registers", "status", "events", "session"];
    let mut rig = NvmeRig {
        function: Function::new(function, slot, host, forgotten),
        queues: [FRESH; QUEUES as usize],
    };
    if shape & 0x80 == 0 {
        rig.start();
    }
    run(&mut rig, input);
}

impl NvmeRig {
    /// As drivers do.
    fn start(&mut self) {
        self.function.switch_on(&[(BAR, BASE)]);
        // MSI-X: the only capability.
        self.function.config_write(0x40, &[0x11, 0, 0, 0x80]);
        for vector in 0..u64::from(QUEUES) {
            let entry = BASE + MSIX + vector * 16;
            self.function.write(entry, &0xfee0_0000_u64.to_le_bytes());
            self.function.write(entry + 8, &vector.to_le_bytes());
        }
        for queue in 0..QUEUES {
            let empty = [0; PAGE as usize];
            self.function.put(ring(SUBMISSION, queue), &empty);
            self.function.put(ring(COMPLETION, queue), &empty);
        }
        for (register, value) in [
            (AQA, (ENTRIES - 1) | (ENTRIES - 1) << 16),
            (ASQ, SUBMISSION as u32),
            (ASQ + 4, 0),
            (ACQ, COMPLETION as u32),
            (ACQ + 4, 0),
            (CC, ENABLED),
        ] {
            self.function.set(BASE + register, value);
        }
        self.queues = [FRESH; QUEUES as usize];
        self.function.settle();
        for queue in 1..QUEUES {
            let number = u32::from(queue) | (ENTRIES - 1) << 16;
            let vector = u32::from(queue) << 16 | 3;
            let page = [readable(ring(COMPLETION, queue), &[])];
            self.run(&command(
                0,
                CREATE_COMPLETION_QUEUE,
                &[number, vector],
                &page,
            ));
            let completion = u32::from(queue) << 16 | 1;
            let page = [readable(ring(SUBMISSION, queue), &[])];
            self.run(&command(
                0,
                CREATE_SUBMISSION_QUEUE,
                &[number, completion],
                &page,
            ));
        }
    }

    /// A command from its offer to its end.
    fn run(&mut self, offer: &Offer) {
        self.offer(offer);
        self.ring(offer.queue);
    }

    /// Takes the completions there are, and returns the status of the last.
    fn reap(&mut self, queue: u8) -> Option<u16> {
        let mut last = None;
        // What a driver wrote over its own ring may look like completions without end.
        for _ in 0..ENTRIES {
            let pair = &mut self.queues[usize::from(queue)];
            let status = ring(COMPLETION, queue) + u64::from(pair.head) * 16 + 14;
            let status =
                u16::from_le_bytes([self.function.byte(status), self.function.byte(status + 1)]);
            if (status & 1 != 0) != pair.phase {
                break;
            }
            pair.head = (pair.head + 1) % ENTRIES;
            pair.phase ^= pair.head == 0;
            let doorbell = BASE + DOORBELLS + u64::from(queue) * 8 + 4;
            self.function.set(doorbell, pair.head);
            last = Some(status >> 1);
        }
        last
    }

    /// A list of pages for the data of one command.
    fn list(&self, queue: u8, pages: &[Piece]) -> u64 {
        let list = LISTS + u64::from(queue) * PAGE;
        let addresses = pages.iter().flat_map(|page| page.address.to_le_bytes());
        self.function.put(list, &addresses.collect::<Vec<_>>());
        list
    }
}

impl FunctionRig for NvmeRig {
    type Tested = Nvme;

    fn function(&mut self) -> &mut Function<Nvme> {
        &mut self.function
    }

    /// Ranges are the controller's registers, doorbells, vectors, all of them.
    fn place(&self, range: u8, offset: u64) -> u64 {
        match range % 4 {
            0 => BASE + offset % 0x40,
            1 => BASE + DOORBELLS + offset % 0x30,
            2 => BASE + MSIX + offset % 0x1040,
            _ => BASE + offset % 0x4004,
        }
    }

    /// A command in a queue: the first buffer is the command, to which the addresses of the others are added: the
    /// second as PRP 1, the third as PRP 2, which is a list if there are more.
    fn offer(&mut self, offer: &Offer) {
        let queue = offer.queue % QUEUES;
        let Some((command, data)) = offer.pieces.split_first() else {
            return;
        };
        let mut entry = [0; 64];
        let count = command.content.len().min(entry.len());
        entry[..count].copy_from_slice(&command.content[..count]);
        if let Some((first, rest)) = data.split_first() {
            let second = match rest {
                [] => 0,
                [one] => one.address,
                pages => self.list(queue, pages),
            };
            entry[24..32].copy_from_slice(&first.address.to_le_bytes());
            entry[32..40].copy_from_slice(&second.to_le_bytes());
        }
        let pair = &mut self.queues[usize::from(queue)];
        let place = ring(SUBMISSION, queue) + u64::from(pair.tail) * 64;
        pair.tail = (pair.tail + 1) % ENTRIES;
        self.function.put(place, &entry);
    }

    /// Rings a queue's doorbell, and takes what has come of it unless the number is 0x80 or more.
    fn ring(&mut self, queue: u8) {
        let number = queue & 0x7f;
        let tail = self.queues[usize::from(number % QUEUES)].tail;
        let doorbell = BASE + DOORBELLS + u64::from(number % QUEUES) * 8;
        self.function.set(doorbell, tail);
        self.function.settle();
        if queue & 0x80 == 0 {
            self.reap(number % QUEUES);
            self.function.settle();
        }
    }

    /// The next driver finds a controller that says what it is, and a disk that can be read.
    fn serves_the_next(&mut self) {
        self.start();
        assert_eq!(self.function.get(BASE + CSTS), 1, "not ready, or broken");
        let page = [writable(DATA, PAGE as u32)];
        for offer in [
            command(0, IDENTIFY, &[1], &page),
            command(1, READ, &[0, 0, 7], &page),
        ] {
            self.offer(&offer);
            self.ring(0x80 | offer.queue);
            assert_eq!(self.reap(offer.queue), Some(0), "a command fails");
        }
    }
}

fn ring(first: u64, queue: u8) -> u64 {
    first + u64::from(queue) * PAGE
}

/// A command in a queue, with doublewords from the 10th on. Those to the controller are for no namespace.
pub fn command(queue: u8, opcode: u8, words: &[u32], data: &[Piece]) -> Offer {
    let mut bytes = [0; 64];
    bytes[0] = opcode;
    bytes[4] = u8::from(queue != 0);
    for (word, at) in words.iter().zip((40..).step_by(4)) {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    // Its place in memory does not matter.
    let mut pieces = vec![readable(DATA - PAGE, &bytes)];
    pieces.extend_from_slice(data);
    Offer {
        queue,
        indirect: false,
        pieces,
    }
}
