//! Drivers that break the rules. Each ends in a request for a reset, and the
//! device works again after it.

use proptest::prelude::*;

use super::*;
use crate::virtio::test_driver::{INDIRECT, NEXT, WRITE};

/// The device asks for a reset, gives its queue back, and serves a new driver.
fn breaks(mut rig: Rig, expected: &str) {
    rig.queue.kick();
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    assert_eq!(rig.device.deactivate().len(), 1);
    let size = rig.queue.size;
    rig.memory
        .write_slice(&[0; 0x4000], GuestAddress(RINGS))
        .unwrap();
    rig.queue = DriverQueue::new(&rig.memory, RINGS, size);
    rig.events = Arc::default();
    let queue = rig.queue.device_side();
    rig.activate(queue);
    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
    assert!(!rig.events.broken());
}

#[test]
fn no_room_for_the_status() {
    let mut rig = Rig::new(1 << 20);
    rig.queue.offer(&[readable(HEADERS, 16)]).unwrap();
    breaks(rig, "1 bytes needed, 0 given");
}

#[test]
fn half_a_header() {
    let mut rig = Rig::new(1 << 20);
    let chain = [readable(HEADERS, 15), writable(HEADERS + 16, 1)];
    rig.queue.offer(&chain).unwrap();
    breaks(rig, "16 bytes needed, 15 given");
}

#[test]
fn buffers_outside_memory() {
    for (address, length) in [
        (MEMORY as u64, 512),
        (MEMORY as u64 - 511, 512),
        (u64::MAX - 511, 512),
        (u64::MAX, 512),
        (0xfee0_0000, 512),
    ] {
        for direction in [readable, writable] {
            let mut rig = Rig::new(1 << 20);
            rig.offer(0, IN, 0, &[direction(address, length)]);
            breaks(rig, "outside guest memory");
        }
    }
}

#[test]
fn a_chain_that_loops() {
    let mut rig = Rig::new(1 << 20);
    let table = rig.queue.descriptors;
    rig.queue
        .put_descriptor(table, 0, readable(HEADERS, 16), NEXT, 1);
    rig.queue
        .put_descriptor(table, 1, readable(DATA, 16), NEXT, 0);
    rig.queue.make_available(0);
    breaks(rig, "loops");
}

#[test]
fn an_index_outside_the_table() {
    let mut rig = Rig::new(1 << 20);
    rig.queue.make_available(64);
    breaks(rig, "descriptor index 64");
}

#[test]
fn readable_after_writable() {
    let mut rig = Rig::new(1 << 20);
    let chain = [
        readable(HEADERS, 16),
        writable(HEADERS + 16, 1),
        readable(DATA, 512),
    ];
    rig.queue.offer(&chain).unwrap();
    breaks(rig, "readable descriptor after");
}

#[test]
fn an_index_that_jumps() {
    let rig = Rig::new(1 << 20);
    rig.queue.publish(65);
    breaks(rig, "ring");
}

#[test]
fn the_same_chain_twice_in_flight() {
    // Completed twice, it would have two requests share and free the same buffers.
    let mut rig = Rig::new(1 << 20);
    let head = rig.offer(0, IN, 0, &[writable(DATA, 4096)]);
    rig.queue.make_available(head);
    breaks(rig, "in flight");
}

#[test]
fn indirect_tables_in_indirect_tables() {
    let mut rig = Rig::new(1 << 20);
    let table = rig.queue.descriptors;
    rig.queue
        .put_descriptor(table, 0, readable(TABLES, 32), INDIRECT, 0);
    rig.queue
        .put_descriptor(TABLES, 0, readable(TABLES, 32), INDIRECT, 0);
    rig.queue.make_available(0);
    breaks(rig, "nested");
}

#[test]
fn more_data_than_a_request_may_have() {
    let mut rig = Rig::new(1 << 20);
    // The same 3 MiB 1024 times over: 3 GiB from little memory.
    let table = rig.queue.descriptors;
    for index in 0..300 {
        let piece = readable(0, 3 << 20);
        rig.queue
            .put_descriptor(TABLES, index, piece, NEXT, index + 1);
    }
    rig.queue
        .put_descriptor(table, 0, readable(TABLES, 300 * 16), INDIRECT, 0);
    rig.queue.make_available(0);
    breaks(rig, "more than");
}

#[derive(Debug, Clone)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        6 => HEADERS..HEADERS + 0x1000,
        3 => DATA..DATA + 0x1000,
        // Rings that are data, and data that is rings.
        1 => 0..0x1000_u64,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![
        4 => prop::sample::select(vec![1_u32, 16, 17, 32, 512, 1024, 4096]),
        1 => 0..100_u32,
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![
        4 => prop::sample::select(vec![0, NEXT, WRITE, NEXT | WRITE]),
        1 => 0..8_u16,
        1 => any::<u16>(),
    ];
    let next = prop_oneof![8 => 0..16_u16, 1 => any::<u16>()];
    (address, length, flags, next).prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever a driver puts in its rings, the device neither dies (its thread
    /// would take the test down with it) nor hangs (the queue comes back).
    #[test]
    fn random_rings_do_no_harm(
        descriptors in prop::collection::vec(descriptor(), 16),
        headers in prop::collection::vec((0..16_u32, any::<u64>()), 16),
        heads in prop::collection::vec(prop_oneof![9 => 0..16_u16, 1 => any::<u16>()], 1..16),
        jump in prop_oneof![4 => Just(0_u16), 1 => any::<u16>()],
    ) {
        let mut rig = Rig::idle(1 << 20, options(), 16);
        for (index, descriptor) in (0..).zip(&descriptors) {
            let piece = Piece {
                address: descriptor.address,
                length: descriptor.length,
                writable: false,
            };
            let table = rig.queue.descriptors;
            rig.queue.put_descriptor(table, index, piece, descriptor.flags, descriptor.next);
        }
        for (index, (kind, sector)) in (0_u64..).zip(&headers) {
            rig.put(HEADERS + index * 256, &kind.to_le_bytes());
            rig.put(HEADERS + index * 256 + 8, &(sector % 4096).to_le_bytes());
        }
        let queue = rig.queue.device_side();
        rig.activate(queue);
        for head in &heads {
            rig.queue.make_available(*head);
        }
        rig.queue.kick();
        if jump != 0 {
            rig.queue.publish(jump);
            rig.queue.kick();
        }
        let queues = rig.device.deactivate();
        prop_assert_eq!(queues.len(), 1);
        if !rig.events.broken() {
            prop_assert_eq!(queues[0].next_avail(), queues[0].next_used());
        }
    }
}
