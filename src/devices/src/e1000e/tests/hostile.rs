//! Drivers that break the rules. The card neither dies (its thread would take the test down with
//! it) nor hangs, and works again after a reset.

use proptest::prelude::*;

use super::*;

/// Places where no descriptor or buffer is, or only the begin of one.
const NOWHERE: [u64; 6] = [
    MEMORY,
    MEMORY - 0x70,
    HIGH - 0x10,
    HIGH + HIGH_BYTES - 0x20,
    BASE,
    !0xf,
];

#[test]
fn rings_that_are_nowhere() {
    let mut rig = Rig::started();
    for base in NOWHERE {
        rig.set_ring(at::TDBAL, base, RING * 16);
        rig.set_ring(at::RDBAL, base, RING * 16);
        rig.write(RDT, RING - 1);
        rig.write(TDT, RING - 1);
        rig.wire.send(&frame(100, 1));
        rig.function.lock().unwrap().pause();
        rig.function.lock().unwrap().resume();
        rig.works();
    }
}

#[test]
fn heads_and_tails_beyond_the_end() {
    let mut rig = Rig::started();
    for (length, head, tail) in [
        (0, 0, 1),
        (128, 8, 0),
        (128, 0, 8),
        (127, 0, 5),
        (128, 0xffff, 7),
    ] {
        for first in [at::TDBAL, at::RDBAL] {
            rig.write(first + 8, length);
            rig.write(first + 0x10, head);
            rig.write(first + 0x18, tail);
        }
        rig.wire.send(&frame(100, 1));
        assert_eq!((rig.read(TDH), rig.read(RDH)), (head, head));
    }
    rig.works();
}

#[test]
fn packets_without_an_end() {
    let mut rig = Rig::started();
    for length in [0, 1000, 0xf_ffff] {
        // Round and round.
        for _ in 0..100 {
            for _ in 0..RING - 1 {
                rig.prepare(OUTGOING, length | DATA | EXTENDED, 0);
            }
            rig.ring();
            rig.until("the ring to run empty", || rig.read(TDH) == rig.read(TDT));
        }
        rig.prepare(OUTGOING, length | DATA | EXTENDED | END, 0);
        rig.send(&frame(100, 1));
        assert_eq!(rig.wire.receive(), frame(100, 1));
    }
    assert_eq!(rig.read(0x4080), 3, "nothing else was sent");
}

#[test]
fn data_that_is_nowhere() {
    let mut rig = Rig::started();
    for address in NOWHERE {
        let descriptor = rig.prepare(address, 1000 | DATA | EXTENDED | END | REPORT, 0);
        rig.ring();
        rig.wait_done(descriptor);
    }
    assert_eq!(rig.read(0x4080), 0);
    // Buffers to receive into.
    for number in 0..RING - 1 {
        let address = NOWHERE[number as usize % NOWHERE.len()];
        rig.put(
            RECEIVE_RING + 16 * u64::from(number),
            &address.to_le_bytes(),
        );
    }
    let before = rig.read(RDH);
    rig.wire.send(&frame(1000, 1));
    rig.until("a packet", || rig.read(RDH) != before);
    rig.works();
}

#[test]
fn packets_into_their_own_ring() {
    let mut rig = Rig::new();
    for format in [Format::Legacy, Format::Extended, Format::Split] {
        rig.start(format, PROMISCUOUS | STRIP_CHECKSUM);
        for number in 0..2 * RING {
            rig.put(
                RECEIVE_RING + 16 * u64::from(number),
                &RECEIVE_RING.to_le_bytes(),
            );
        }
        rig.write(RDT, RING - 2);
        for seed in 0..100 {
            rig.wire.send(&frame(1000, seed));
        }
        rig.works();
    }
}

#[test]
fn endless_doorbells() {
    let mut rig = Rig::started();
    for round in 0..100_000_u32 {
        rig.write([TDT, RDT, TDH, RDH][round as usize % 4], round);
    }
    rig.works();
}

#[test]
fn resets_while_packets_move() {
    let mut rig = Rig::started();
    for seed in 0..100 {
        rig.wire.send(&frame(1000, seed));
        rig.put(OUTGOING, &frame(100, 1));
        for _ in 0..RING - 1 {
            rig.prepare(OUTGOING, 114 | END, 0);
        }
        rig.ring();
        rig.write(at::CTRL, 1 << 26);
        // Nothing is written to after a reset.
        rig.put(BUFFERS, &[0x5a; 0x1000]);
        assert_eq!(rig.get(BUFFERS, 0x1000), [0x5a; 0x1000]);
        rig.start(Format::Extended, PROMISCUOUS | STRIP_CHECKSUM);
        rig.give_buffers(RING - 1);
    }
    rig.works();
}

fn descriptor() -> impl Strategy<Value = [u8; 16]> {
    let address = prop_oneof![
        6 => OUTGOING..OUTGOING + 0x1000,
        1 => 0..0x1_0000_u64,
        1 => any::<u64>(),
    ];
    let lower = (
        prop_oneof![0..2000_u32, 0..0x10_0000_u32],
        0..3_u32,
        any::<u8>(),
    );
    let upper = prop_oneof![
        any::<u32>(),
        (any::<u16>(), 0..100_u8, 0..4_u8).prop_map(
            |(segment, headers, options)| u32::from_le_bytes([0, headers | options, 0, 0])
                | u32::from(segment) << 16
        )
    ];
    (address, lower, upper).prop_map(|(address, (length, kind, command), upper)| {
        let lower = length | kind << 20 | u32::from(command) << 24;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&lower.to_le_bytes());
        bytes[12..].copy_from_slice(&upper.to_le_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn random_rings_do_no_harm(
        receive in prop::collection::vec(descriptor(), RING as usize),
        transmit in prop::collection::vec(descriptor(), RING as usize),
        control: u32,
        split in any::<u32>(),
        filter in any::<u32>(),
        tails in prop::collection::vec((any::<bool>(), 0..2 * RING), 1..16),
        frames in prop::collection::vec(1..1486_usize, 0..8),
    ) {
        let mut rig = Rig::new();
        rig.start(Format::Legacy, control);
        rig.put(RECEIVE_RING, &receive.concat());
        rig.put(TRANSMIT_RING, &transmit.concat());
        rig.write(at::PSRCTL, split);
        rig.write(at::RFCTL, filter);
        for (position, (first, tail)) in tails.iter().enumerate() {
            rig.write(if *first { TDT } else { RDT }, *tail);
            if let Some(length) = frames.get(position) {
                rig.wire.send(&frame(*length, 0));
            }
        }
        rig.until("the ring to run empty", || {
            let (head, tail) = (rig.read(TDH), rig.read(TDT));
            head == tail || tail >= RING
        });
        rig.works();
    }
}
