//! The Intel network card: registers, rings of descriptors in all their forms, packets both ways.

use std::rc::Rc;
use std::sync::Arc;

use lodge_devices::e1000e::{E1000e, E1000eOptions};
use lodge_devices::fuzzing::{TestLine, TestPlatform};

use crate::board::Host;
use crate::function::{Function, FunctionRig, Slot};
use crate::input::Input;
use crate::operation::{Offer, Piece, run};
use crate::virtio::DATA;
use crate::wire::{HEADER, Wire};

const BASE: u64 = 0xd000_0000;
const VECTORS: u64 = 0xd002_0000;

/// Registers (82574 datasheet, 10.2).
const CTRL: u64 = 0x0000;
const IMC: u64 = 0x00d8;
const RCTL: u64 = 0x0100;
const TCTL: u64 = 0x0400;
/// Rings: base, length, head and tail of the first; the second's are 0x100 further.
const RDBAL: u64 = 0x2800;
const TDBAL: u64 = 0x3800;
const TAIL: u64 = 0x18;
const RFCTL: u64 = 0x5008;

const RESET: u32 = 1 << 26;
const ENABLE: u32 = 1 << 1;
/// Receive everything, also long packets.
const RECEIVE: u32 = ENABLE | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 15;
const EXTENDED: u32 = 1 << 15;

/// Descriptors of each ring, and where the rings are: first the two for sending.
const ENTRIES: u64 = 16;
const RINGS: u64 = 0x1000;
const RING_STRIDE: u64 = 0x1000;
/// Where packets are received, and the room for each.
const BUFFERS: u64 = 0x4_0000;
const ROOM: u64 = 0x2000;

/// Upper halves of descriptors: a packet of a length that ends here and of which its driver wants to hear.
pub const LAST: u64 = (1 << 0 | 1 << 3) << 24;

struct CardRig {
    function: Function<E1000e>,
    wire: Rc<Wire>,
    /// Of the rings for sending, and for receiving.
    tails: [u64; 4],
}

/// A card on a wire.
///
/// # Panics
/// When the device does something wrong.
pub fn card(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(shape) = input.u8() else {
        return;
    };
    let slot = Slot::default();
    let (tap, wire) = Wire::new();
    let wire = Rc::new(wire);
    let function = E1000e::on_socket(E1000eOptions {
        name: "nic0".to_owned(),
        tap,
        mac: [0x52, 0x54, 0, 1, 2, 3],
        memory: slot.ram.clone(),
        platform: TestPlatform::new(),
        line: TestLine::new(),
        memory_bus: Arc::clone(&slot.bus),
        prologue: Arc::new(|| {}),
    })
    .expect("the process has descriptors");
    let heard = Rc::clone(&wire);
    let host: Host = Box::new(move |_, bytes| heard.say(bytes));
    let mut rig = CardRig {
        function: Function::new(function, slot, host, &["config", "msix", "card"]),
        wire,
        tails: [0; 4],
    };
    if shape & 0x80 == 0 {
        rig.start(if shape & 1 == 0 { 0 } else { EXTENDED });
    }
    run(&mut rig, input);
}

impl CardRig {
    /// As drivers do. `form` is that of received descriptors.
    fn start(&mut self, form: u32) {
        self.function.switch_on(&[(0, BASE), (3, VECTORS)]);
        self.set(IMC, u32::MAX);
        self.set(CTRL, RESET);
        for ring in 0..4 {
            let first = registers(ring);
            self.function
                .put(place(ring, 0), &[0; 16 * ENTRIES as usize]);
            for (offset, value) in [
                (0, place(ring, 0) as u32),
                (4, 0),
                (8, 16 * ENTRIES as u32),
                (0x10, 0),
                (TAIL, 0),
            ] {
                self.set(first + offset, value);
            }
        }
        self.tails = [0; 4];
        self.set(RFCTL, form);
        self.set(RCTL, RECEIVE);
        self.set(TCTL, ENABLE);
        for number in 0..ENTRIES - 1 {
            self.prepare(2, BUFFERS + number * ROOM, 0);
        }
        self.show(2);
    }

    fn set(&self, register: u64, value: u32) {
        self.function.set(BASE + register, value);
    }

    /// Puts a descriptor into a ring, and returns where it is.
    fn prepare(&mut self, ring: u8, low: u64, high: u64) -> u64 {
        let tail = &mut self.tails[usize::from(ring)];
        let descriptor = place(ring, *tail);
        *tail = (*tail + 1) % ENTRIES;
        self.function.put(descriptor, &low.to_le_bytes());
        self.function.put(descriptor + 8, &high.to_le_bytes());
        descriptor
    }

    /// Shows the card what was prepared.
    fn show(&self, ring: u8) {
        let tail = self.tails[usize::from(ring)] as u32;
        self.set(registers(ring) + TAIL, tail);
        self.function.settle();
    }
}

impl FunctionRig for CardRig {
    type Tested = E1000e;

    fn function(&mut self) -> &mut Function<E1000e> {
        &mut self.function
    }

    /// Ranges are groups of registers, and the vectors.
    fn place(&self, range: u8, offset: u64) -> u64 {
        match range % 8 {
            0 => BASE + offset % 0x204,
            1 => BASE + RDBAL + offset % 0x140,
            2 => BASE + TDBAL + offset % 0x140,
            // Statistics; filters and whatever else there is.
            3 => BASE + 0x4000 + offset % 0x134,
            4 => BASE + 0x5000 + offset % 0xc00,
            5 => VECTORS + offset % 0x4004,
            6 => BASE + 0x1_0000 + offset,
            _ => BASE + offset,
        }
    }

    /// Descriptors in ring `queue`, those for receiving from 2 on: the first buffer has their upper halves, the others
    /// are the data.
    fn offer(&mut self, offer: &Offer) {
        let Some((uppers, data)) = offer.pieces.split_first() else {
            return;
        };
        let mut uppers = uppers.content.chunks(8);
        for piece in data {
            let mut upper = [0; 8];
            let given = uppers.next().unwrap_or_default();
            upper[..given.len()].copy_from_slice(given);
            let upper = u64::from_le_bytes(upper) | u64::from(piece.length & 0xf_ffff);
            self.prepare(offer.queue % 4, piece.address, upper);
        }
    }

    fn ring(&mut self, queue: u8) {
        self.wire.drain();
        self.show(queue % 4);
    }

    /// The next driver sends and receives.
    fn serves_the_next(&mut self) {
        self.wire.drain();
        self.start(0);
        let frame = [[0xff; 12].as_slice(), &[0x88, 0xb5], &[7; 46]].concat();
        self.function.put(DATA, &frame);
        let descriptor = self.prepare(0, DATA, LAST | frame.len() as u64);
        self.show(0);
        assert_eq!(
            self.function.byte(descriptor + 12) & 1,
            1,
            "nothing is sent"
        );
        let sent = self.wire.drain().expect("a packet");
        assert_eq!(sent[HEADER..], frame);
        // A packet from before may be in the way, and takes the first descriptor then.
        self.wire.send(&sent);
        self.function.settle();
        assert_eq!(
            self.function.byte(place(2, 0) + 12) & 1,
            1,
            "nothing is received"
        );
    }
}

/// Where descriptor `number` of a ring is.
fn place(ring: u8, number: u64) -> u64 {
    RINGS + u64::from(ring) * RING_STRIDE + number * 16
}

/// Where a ring's registers are.
fn registers(ring: u8) -> u64 {
    let first = if ring < 2 { TDBAL } else { RDBAL };
    first + 0x100 * u64::from(ring % 2)
}

/// Descriptors for sending, with an upper half for each piece of data.
pub fn descriptors(ring: u8, uppers: &[u64], data: &[Piece]) -> Offer {
    let content: Vec<u8> = uppers
        .iter()
        .flat_map(|upper| upper.to_le_bytes())
        .collect();
    let mut pieces = vec![crate::virtio::readable(DATA - 0x100, &content)];
    pieces.extend_from_slice(data);
    Offer {
        queue: ring,
        indirect: false,
        pieces,
    }
}
