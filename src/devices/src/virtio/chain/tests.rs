use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::virtio::test_driver::{DriverQueue, INDIRECT, NEXT, Piece, readable, writable};

const RINGS: u64 = 0x1000;
const TABLE: u64 = 0x8000;
const SIZE: u16 = 8;
/// 64 KiB, a hole, 64 KiB.
const HOLE: std::ops::Range<u64> = 0x1_0000..0x2_0000;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[
        (GuestAddress(0), HOLE.start as usize),
        (GuestAddress(HOLE.end), 0x1_0000),
    ])
    .unwrap()
}

struct Rig {
    driver: DriverQueue,
    queue: Queue,
    memory: GuestMemory,
    limits: Limits,
}

fn rig() -> Rig {
    let memory = memory();
    let driver = DriverQueue::new(&memory, RINGS, SIZE);
    Rig {
        queue: driver.device_side().queue,
        driver,
        memory,
        limits: Limits::default(),
    }
}

impl Rig {
    fn pop(&mut self) -> Result<Option<Chain>, ChainError> {
        let mut chain = Chain::default();
        let found = pop(&mut self.queue, &self.memory, self.limits, &mut chain)?;
        Ok(found.then_some(chain))
    }

    /// Offers descriptor 0 after writing it raw.
    fn raw(&mut self, piece: Piece, flags: u16, next: u16) -> Result<Option<Chain>, ChainError> {
        self.driver.put_descriptor(RINGS, 0, piece, flags, next);
        self.driver.make_available(0);
        self.pop()
    }
}

fn spans(buffers: &Buffers) -> Vec<(u64, u32)> {
    let span = |segment: &Segment| (segment.address.0, segment.length);
    buffers.segments().iter().map(span).collect()
}

#[test]
fn takes_chains_in_order() {
    let mut rig = rig();
    assert_eq!(rig.pop(), Ok(None));
    let first = rig
        .driver
        .offer(&[
            readable(0x4000, 16),
            readable(0x5000, 0),
            writable(0x6000, 1),
        ])
        .unwrap();
    let second = rig.driver.offer(&[writable(HOLE.end, 0x1_0000)]).unwrap();
    assert_eq!(available(&rig.queue, &rig.memory), Ok(2));
    let chain = rig.pop().unwrap().unwrap();
    assert_eq!(chain.head, first);
    assert_eq!(
        spans(&chain.readable),
        [(0x4000, 16)],
        "an empty buffer is left out"
    );
    assert_eq!(
        (spans(&chain.writable), chain.writable.len()),
        (vec![(0x6000, 1)], 1)
    );
    let chain = rig.pop().unwrap().unwrap();
    assert_eq!((chain.head, chain.writable.len()), (second, 0x1_0000));
    assert_eq!(rig.pop(), Ok(None));
    assert_eq!(finish(&mut rig.queue, &rig.memory, second, 7), Ok(true));
    assert_eq!(rig.driver.take_used(), Some((second, 7)));
}

#[test]
fn follows_an_indirect_table() {
    let mut rig = rig();
    // Longer than the queue, which is allowed to nobody but harmless.
    for index in 0..20_u16 {
        let piece = Piece {
            address: 0x4000 + 16 * u64::from(index),
            length: 16,
            writable: index >= 5,
        };
        let flags = if index < 19 { NEXT } else { 0 };
        rig.driver
            .put_descriptor(TABLE, index, piece, flags, index + 1);
    }
    let chain = rig.raw(readable(TABLE, 320), INDIRECT, 0).unwrap().unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (80, 240));
    // A direct descriptor before the table.
    rig.driver
        .put_descriptor(RINGS, 1, readable(TABLE, 320), INDIRECT, 0);
    let chain = rig.raw(readable(0x4000, 1), NEXT, 1).unwrap().unwrap();
    assert_eq!(chain.readable.len(), 81);
}

#[test]
fn refuses_bad_tables() {
    let mut rig = rig();
    let mut refuse = |piece, flags, expected| {
        rig.driver
            .put_descriptor(TABLE, 0, readable(0x4000, 1), 0, 0);
        assert_eq!(rig.raw(piece, flags, 0), Err(expected));
    };
    let length = ChainError::Indirect("length is not a multiple of 16");
    refuse(readable(TABLE, 0), INDIRECT, length.clone());
    refuse(readable(TABLE, 15), INDIRECT, length);
    refuse(
        readable(TABLE, 16 << 16),
        INDIRECT,
        ChainError::Indirect("more than 65535 entries"),
    );
    refuse(
        readable(TABLE, 16),
        INDIRECT | NEXT,
        ChainError::Indirect("linked onwards"),
    );
    for outside in [HOLE.start, u64::MAX, u64::MAX - 15, HOLE.start - 8] {
        refuse(
            readable(outside, 32),
            INDIRECT,
            ChainError::Memory { address: outside },
        );
    }
    rig.driver
        .put_descriptor(TABLE, 0, readable(TABLE, 16), INDIRECT, 0);
    assert_eq!(
        rig.raw(readable(TABLE, 16), INDIRECT, 0),
        Err(ChainError::Indirect("nested"))
    );
    rig.driver
        .put_descriptor(TABLE, 0, readable(0x4000, 1), NEXT, 2);
    assert_eq!(
        rig.raw(readable(TABLE, 32), INDIRECT, 0),
        Err(ChainError::Index {
            index: 2,
            entries: 2
        })
    );
    rig.driver
        .put_descriptor(TABLE, 0, readable(0x4000, 1), NEXT, 0);
    assert_eq!(
        rig.raw(readable(TABLE, 32), INDIRECT, 0),
        Err(ChainError::Loop)
    );
}

#[test]
fn refuses_loops_and_bad_indices() {
    let mut rig = rig();
    assert_eq!(rig.raw(readable(0x4000, 1), NEXT, 0), Err(ChainError::Loop));
    rig.driver
        .put_descriptor(RINGS, 3, readable(0x4000, 0), NEXT, 0);
    assert_eq!(
        rig.raw(readable(0x4000, 0), NEXT, 3),
        Err(ChainError::Loop),
        "even of nothing"
    );
    let beyond = ChainError::Index {
        index: 8,
        entries: SIZE,
    };
    assert_eq!(rig.raw(readable(0x4000, 1), NEXT, 8), Err(beyond.clone()));
    rig.driver.make_available(8);
    assert_eq!(rig.pop(), Err(beyond));
    rig.driver.make_available(0xffff);
    assert_eq!(
        rig.pop(),
        Err(ChainError::Index {
            index: 0xffff,
            entries: SIZE
        })
    );
}

#[test]
fn refuses_memory_that_is_not_there() {
    let mut rig = rig();
    for (address, length) in [
        (HOLE.start, 1),
        (HOLE.start - 1, 2),
        (HOLE.end - 1, 2),
        (HOLE.start - 1, 0x1_0002),
        (0x3_0000, 1),
        (0x2_ffff, 2),
        (0, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX - 15, 16),
        (u64::MAX - 15, 17),
        (1 << 63, u32::MAX),
    ] {
        for piece in [readable(address, length), writable(address, length)] {
            assert_eq!(rig.raw(piece, 0, 0), Err(ChainError::Memory { address }));
        }
    }
}

#[test]
fn refuses_disorder_and_excess() {
    let mut rig = rig();
    rig.driver
        .offer(&[writable(0x4000, 1), readable(0x4000, 1)]);
    assert_eq!(rig.pop(), Err(ChainError::Order));
    rig.limits = Limits {
        segments: 2,
        bytes: 100,
    };
    rig.driver
        .offer(&[readable(0x4000, 50), writable(0x4000, 50)]);
    assert!(
        rig.pop().unwrap().is_some(),
        "overlapping buffers are counted each"
    );
    rig.driver
        .offer(&[readable(0x4000, 50), writable(0x4000, 51)]);
    assert_eq!(rig.pop(), Err(ChainError::TooLong { limit: 100 }));
    let mut rig = tests::rig();
    rig.limits.segments = 2;
    rig.driver.offer(&[
        readable(0x4000, 1),
        writable(0x4000, 1),
        writable(0x4000, 1),
    ]);
    assert_eq!(rig.pop(), Err(ChainError::TooMany { limit: 2 }));
    // Over 4 GiB in all, though each buffer is within memory.
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x100_0000)]).unwrap();
    let mut driver = DriverQueue::new(&memory, RINGS, SIZE);
    let mut queue = driver.device_side().queue;
    let (table, entries) = (0x10_0000, 300_u16);
    for index in 0..entries {
        driver.put_descriptor(table, index, writable(0, 0x100_0000), NEXT, index + 1);
    }
    driver.put_descriptor(
        RINGS,
        0,
        readable(table, u32::from(entries) * 16),
        INDIRECT,
        0,
    );
    driver.make_available(0);
    let limit = Limits::default().bytes;
    assert_eq!(
        pop(
            &mut queue,
            &memory,
            Limits::default(),
            &mut Chain::default()
        ),
        Err(ChainError::TooLong { limit })
    );
}

#[test]
fn refuses_an_index_that_jumps() {
    for jump in [SIZE + 1, 0x7fff, 0xffff] {
        let mut rig = rig();
        rig.driver.publish(jump);
        assert!(matches!(rig.pop(), Err(ChainError::Ring(_))), "{jump}");
        assert!(matches!(
            available(&rig.queue, &rig.memory),
            Err(ChainError::Ring(_))
        ));
    }
    let mut rig = rig();
    rig.driver
        .put_descriptor(RINGS, 0, readable(0x4000, 1), 0, 0);
    rig.driver.publish(SIZE);
    for _ in 0..SIZE {
        assert!(rig.pop().unwrap().is_some());
    }
    assert_eq!(rig.pop(), Ok(None));
    assert!(finish(&mut rig.queue, &rig.memory, SIZE, 0).is_err());
}

#[test]
fn knows_what_is_in_flight() {
    let mut flight = InFlight::default();
    for head in [0, 63, 64, 0xffff] {
        assert!(!flight.give_back(head));
        flight.take(head).unwrap();
        assert_eq!(flight.take(head), Err(ChainError::InFlight(head)));
    }
    assert_eq!(flight.len(), 4);
    for head in [0, 63, 64, 0xffff] {
        assert!(flight.give_back(head));
        assert!(!flight.give_back(head));
    }
    assert!(flight.is_empty());
}

fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        4 => 0..0x3_0000_u64,
        1 => Just(TABLE),
        1 => any::<u64>(),
    ];
    let length = prop_oneof![4 => 0..0x200_u32, 1 => Just(64_u32), 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0..4_u16, 1 => Just(INDIRECT), 1 => any::<u16>()];
    let next = prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    (address, length, flags, next)
}

proptest! {
    /// Random rings: what comes out lies in guest memory and within the limits, always ends, and
    /// the iovecs add up.
    #[test]
    fn survives_random_rings(
        direct in proptest::collection::vec(descriptor(), SIZE as usize),
        indirect in proptest::collection::vec(descriptor(), 8),
        heads in proptest::collection::vec(prop_oneof![8 => 0..SIZE, 1 => any::<u16>()], 1..8),
        segments in 1..10_usize,
        bytes in 1..0x1000_u64,
    ) {
        let mut rig = rig();
        rig.limits = Limits { segments, bytes };
        for (table, list) in [(RINGS, direct), (TABLE, indirect)] {
            for (index, (address, length, flags, next)) in list.into_iter().enumerate() {
                let piece = Piece { address, length, writable: false };
                rig.driver.put_descriptor(table, index as u16, piece, flags, next);
            }
        }
        for head in heads {
            rig.driver.make_available(head);
            let Ok(Some(chain)) = rig.pop() else { continue };
            let total = chain.readable.len() + chain.writable.len();
            prop_assert!(total <= bytes);
            let mut iovecs = Vec::new();
            for buffers in [&chain.readable, &chain.writable] {
                buffers.iovecs(&rig.memory, &mut iovecs).unwrap();
                let mut copy = vec![0; buffers.len() as usize];
                buffers.read_at(&rig.memory, 0, &mut copy).unwrap();
            }
            let mapped: usize = iovecs.iter().map(|iovec| iovec.iov_len).sum();
            prop_assert_eq!(mapped as u64, total);
            prop_assert!(chain.readable.segments().len() + chain.writable.segments().len() <= segments);
        }
    }

    /// Random available rings and indices.
    #[test]
    fn survives_random_indices(start: u16, publish: u16, entries in proptest::collection::vec(any::<u16>(), SIZE as usize)) {
        let memory = memory();
        let driver = DriverQueue::new(&memory, RINGS, SIZE);
        let mut queue = driver.device_side_at(start, start).queue;
        for (slot, entry) in entries.iter().enumerate() {
            memory.write_obj(*entry, GuestAddress(driver.available + 4 + 2 * slot as u64)).unwrap();
        }
        driver.publish(publish);
        let mut chain = Chain::default();
        let mut taken = 0;
        while pop(&mut queue, &memory, Limits::default(), &mut chain).is_ok_and(|found| found) {
            taken += 1;
            prop_assert!(taken <= SIZE);
        }
    }
}
