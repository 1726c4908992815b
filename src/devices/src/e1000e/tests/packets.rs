//! Packets both ways.

use super::*;

const FORMATS: [Format; 3] = [Format::Legacy, Format::Extended, Format::Split];

#[test]
fn sends_and_receives() {
    let mut rig = Rig::new();
    for format in FORMATS {
        rig.start(format, PROMISCUOUS | STRIP_CHECKSUM);
        rig.give_buffers(RING - 1);
        rig.send(&frame(100, 1));
        assert_eq!(rig.wire.receive(), frame(100, 1));
        for seed in 0..200 {
            rig.wire.send(&frame(1000, seed));
            let (received, descriptors, status, _) = rig.take();
            assert_eq!((received, descriptors), (frame(1000, seed), 1));
            assert_eq!(status, 7, "done, the end, checksums not looked at");
        }
    }
}

#[test]
fn spreads_a_packet_over_small_buffers() {
    let mut rig = Rig::new();
    for format in [Format::Legacy, Format::Extended] {
        rig.start(format, PROMISCUOUS | STRIP_CHECKSUM | SIZE_256);
        rig.give_buffers(RING - 1);
        for seed in 0..100 {
            rig.wire.send(&frame(1400, seed));
            let (received, descriptors, ..) = rig.take();
            assert_eq!((received, descriptors), (frame(1400, seed), 6));
        }
    }
    rig.start(Format::Split, PROMISCUOUS | STRIP_CHECKSUM);
    // 128 bytes, twice 1024, none.
    rig.write(at::PSRCTL, 0x0001_0101);
    rig.give_buffers(RING - 1);
    rig.wire.send(&frame(1400, 1));
    let (received, descriptors, ..) = rig.take();
    assert_eq!((received, descriptors), (frame(1400, 1), 1));
}

#[test]
fn buffers_have_the_size_that_was_set() {
    let mut rig = Rig::new();
    for (control, size) in [
        (0, 2048),
        (1 << 16, 1024),
        (2 << 16, 512),
        (3 << 16 | 1 << 25, 4096),
        (3 << 27, 3072),
    ] {
        rig.start(Format::Legacy, PROMISCUOUS | STRIP_CHECKSUM | control);
        rig.give_buffers(RING - 1);
        rig.wire.send(&frame(1486, 1));
        assert_eq!(rig.take().1, 1500_usize.div_ceil(size), "{control:#x}");
    }
}

#[test]
fn packets_wait_for_buffers() {
    let mut rig = Rig::new();
    rig.start(Format::Extended, PROMISCUOUS | STRIP_CHECKSUM);
    for seed in 0..8 {
        rig.wire.send(&frame(200, seed));
    }
    // One buffer at a time.
    rig.give_buffers(1);
    for seed in 0..8 {
        let frame_ = rig.take_frame_stepwise();
        assert_eq!(frame_, frame(200, seed));
    }
}

impl Rig {
    /// The next packet of ours, when the card only ever has one buffer.
    fn take_frame_stepwise(&mut self) -> Vec<u8> {
        loop {
            let number = self.driver.next;
            let descriptor = RECEIVE_RING + number * 16;
            self.until("a packet", || self.get(descriptor + 8, 1)[0] & 1 != 0);
            let length = (self.word(descriptor + 8) >> 32) as u16;
            let packet = self.get(BUFFERS + number * BUFFER_STRIDE, length.into());
            let next = (number + 1) % u64::from(RING);
            self.put(
                RECEIVE_RING + next * 16,
                &(BUFFERS + next * BUFFER_STRIDE).to_le_bytes(),
            );
            self.put(RECEIVE_RING + next * 16 + 8, &[0; 8]);
            self.driver.next = next;
            self.write(RDT, ((next + 1) % u64::from(RING)) as u32);
            if is_ours(&packet) {
                return packet;
            }
        }
    }
}

#[test]
fn a_packet_that_never_fits_does_not_block_the_rest() {
    let mut rig = Rig::new();
    rig.start(Format::Legacy, PROMISCUOUS | STRIP_CHECKSUM | SIZE_256);
    // Of eight descriptors the card owns seven at most, which are 1792 bytes; of four 768.
    rig.write(at::RDBAL + 8, 128);
    rig.write(at::PSRCTL, 0x8080_0001);
    rig.write(at::RCTL, rig.read(at::RCTL) | SPLIT);
    for number in 0..8 {
        rig.put(
            RECEIVE_RING + 16 * number,
            &(BUFFERS + number * 0x1000).to_le_bytes(),
        );
    }
    rig.write(RDT, 6);
    // 128 bytes each.
    rig.wire.send(&frame(1400, 1));
    rig.wire.send(&frame(60, 2));
    rig.until("a packet", || {
        (0..3).any(|number| is_ours(&rig.get(BUFFERS + number * 0x2000, 74)))
    });
    let found = (0..3).find(|number| is_ours(&rig.get(BUFFERS + number * 0x2000, 74)));
    assert_eq!(rig.get(BUFFERS + found.unwrap() * 0x2000, 74), frame(60, 2));
}

#[test]
fn short_frames_are_padded_and_long_ones_refused() {
    let mut rig = Rig::started();
    rig.wire.send(&frame(4, 1));
    let received = rig.take_frame();
    assert_eq!(received.len(), 60);
    assert_eq!(received[..18], frame(4, 1));
    assert_eq!(received[18..], [0; 42]);
    // Drivers of larger frames say so. A tap hands out what fits its interface.
    rig.write(at::RCTL, rig.read(at::RCTL) | LONG);
    rig.wire.send(&frame(1500, 2));
    assert_eq!(rig.take_frame(), frame(1500, 2));
}

#[test]
fn the_checksum_of_a_frame_if_wanted() {
    let mut rig = Rig::new();
    rig.start(Format::Extended, PROMISCUOUS);
    rig.give_buffers(RING - 1);
    rig.wire.send(&frame(100, 1));
    let received = rig.take_frame();
    assert_eq!(received.len(), 118);
    assert_eq!(received[..114], frame(100, 1));
    assert_ne!(received[114..], [0; 4]);
}

#[test]
fn only_what_is_wanted_comes() {
    let mut rig = Rig::new();
    rig.start(Format::Extended, STRIP_CHECKSUM);
    rig.give_buffers(RING - 1);
    let to = |address: [u8; 6], seed| {
        let mut frame = frame(100, seed);
        frame[..6].copy_from_slice(&address);
        frame
    };
    rig.wire.send(&frame(100, 0));
    rig.wire.send(&to([2, 0, 0, 0, 0, 9], 1));
    rig.wire.send(&to([1, 0, 0x5e, 1, 2, 3], 2));
    rig.wire.send(&to(MAC, 3));
    assert_eq!(rig.take_frame(), to(MAC, 3));
    assert_eq!(rig.read(0x4074), 1, "good packets");
}

#[test]
fn packets_are_put_together_from_pieces() {
    let mut rig = Rig::started();
    let frame = frame(300, 1);
    rig.put(OUTGOING, &frame);
    for round in 0..3 {
        // Data and legacy descriptors, an empty one between, and the tail in the middle.
        rig.prepare(OUTGOING, 3, 0);
        rig.prepare(OUTGOING + 3, 200 | DATA | EXTENDED, 0);
        if round > 0 {
            rig.ring();
        }
        let middle = rig.prepare(0, REPORT, 0);
        if round > 1 {
            rig.ring();
            rig.wait_done(middle);
        }
        let last = rig.prepare(
            OUTGOING + 203,
            111 | DATA | EXTENDED | END | REPORT,
            0x55 << 16,
        );
        rig.ring();
        rig.wait_done(last);
        assert_eq!(rig.wire.receive(), frame);
        assert_eq!(rig.get(last + 12, 4), [1, 0, 0x55, 0], "only its status");
    }
    assert_eq!(rig.read(TDH), rig.read(TDT));
    assert_eq!(
        (rig.read(0x4080), rig.read(0x4080)),
        (3, 0),
        "good packets sent"
    );
    assert_eq!(rig.read(0x4090), 3 * 318);
    assert_eq!(rig.read(0x40f4), 3, "broadcasts");
}

#[test]
fn both_rings_send() {
    let mut rig = Rig::started();
    let second = TRANSMIT_RING + 0x1000;
    rig.set_ring(at::TDBAL + 0x100, second, RING * 16);
    rig.put(OUTGOING, &frame(100, 5));
    rig.put(second, &OUTGOING.to_le_bytes());
    rig.put(second + 8, &(114 | END | REPORT).to_le_bytes());
    rig.put(second + 12, &[0; 4]);
    rig.write(TDT + 0x100, 1);
    rig.wait_done(second);
    assert_eq!(rig.wire.receive(), frame(100, 5));
    assert_ne!(rig.read(at::ICR) & 1 << 23, 0, "TXQ1");
    rig.send(&frame(100, 6));
    assert_eq!(rig.wire.receive(), frame(100, 6));
}
