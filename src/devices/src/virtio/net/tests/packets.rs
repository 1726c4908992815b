//! Packets both ways, good and bad.

use super::*;

#[test]
fn sends_and_receives() {
    let mut rig = Rig::new();
    rig.send(&frame(100, 1));
    rig.transmit.wait_used();
    assert_eq!(rig.wire.receive(), frame(100, 1));

    rig.post(64, 2048);
    rig.wire.send(&frame(1000, 2));
    assert_eq!(rig.take_frame(2048), (frame(1000, 2), 1));
    let totals = rig.totals();
    assert_eq!((totals.sent, totals.sent_bytes), (1, 114));
    assert!(totals.received >= 1);
}

#[test]
fn spreads_a_packet_over_small_buffers() {
    let mut rig = Rig::new();
    rig.post(64, 128);
    for seed in 0..20 {
        rig.wire.send(&frame(1400, seed));
        // 12 bytes of header, 14 of Ethernet.
        let (received, buffers) = rig.take_frame(128);
        assert_eq!(received, frame(1400, seed));
        assert_eq!(buffers, 1426_usize.div_ceil(128));
    }
}

#[test]
fn without_mergeable_buffers_a_packet_takes_one() {
    let mut rig = Rig::with(!(1 << abi::VIRTIO_NET_F_MRG_RXBUF));
    rig.post(32, 1024);
    rig.wire.send(&frame(1200, 1));
    rig.wire.send(&frame(900, 2));
    assert_eq!(rig.take_frame(1024), (frame(900, 2), 1));
    assert_eq!(rig.totals().receive_drops, 1);
}

#[test]
fn packets_wait_for_buffers() {
    let mut rig = Rig::new();
    for seed in 0..8 {
        rig.wire.send(&frame(200, seed));
    }
    // One buffer, posted again and again.
    rig.post(1, 2048);
    for seed in 0..8 {
        assert_eq!(rig.take_frame(2048).0, frame(200, seed));
    }
}

#[test]
fn a_packet_that_never_fits_does_not_block_the_rest() {
    let mut rig = Rig::new();
    // All 64 buffers together have 1024 bytes.
    rig.post(64, 16);
    rig.wire.send(&frame(1400, 1));
    rig.wire.send(&frame(60, 2));
    assert_eq!(rig.take_frame(16).0, frame(60, 2));
    assert!(rig.totals().receive_drops >= 1);
}

#[test]
fn drops_packets_that_are_none() {
    let mut rig = Rig::new();
    // Nothing but a header, half a header, more than any packet has, a nonsensical offload.
    let broken_offload = BUFFERS + 0x8000;
    rig.memory
        .write_slice(&[0xff; 12], GuestAddress(broken_offload))
        .unwrap();
    for (address, length) in [
        (BUFFERS, 12),
        (BUFFERS, 5),
        (BUFFERS, 25),
        (BUFFERS, 70_000),
        (BUFFERS, 2 << 20),
        (broken_offload, 100),
    ] {
        let head = rig.transmit.offer(&[readable(address, length)]).unwrap();
        rig.transmit.kick();
        assert_eq!(rig.transmit.wait_used(), (head, 0));
    }
    // Writable buffers are no packet either.
    rig.transmit.offer(&[writable(BUFFERS, 100)]).unwrap();
    rig.transmit.kick();
    rig.transmit.wait_used();
    assert_eq!((rig.totals().sent, rig.totals().send_drops), (0, 7));
    rig.send(&frame(100, 1));
    rig.transmit.wait_used();
    assert_eq!(rig.wire.receive(), frame(100, 1));
    assert!(!rig.events.broken());
}

#[test]
fn takes_any_framing() {
    let mut rig = Rig::new();
    rig.send(&frame(100, 1));
    rig.transmit.wait_used();
    let pieces = [
        readable(BUFFERS, 3),
        readable(BUFFERS + 3, 20),
        readable(BUFFERS + 23, 1),
        readable(BUFFERS + 24, 102),
    ];
    rig.transmit.offer(&pieces).unwrap();
    rig.transmit.kick();
    rig.transmit.wait_used();
    for _ in 0..2 {
        assert_eq!(rig.wire.receive(), frame(100, 1));
    }
    for _ in 0..32 {
        let address = buffer(rig.receive.next_head(), 2048);
        let pieces = [writable(address, 7), writable(address + 7, 2041)];
        rig.receive.offer(&pieces).unwrap();
    }
    rig.receive.kick();
    rig.wire.send(&frame(300, 3));
    loop {
        let used = rig.receive.wait_used();
        let packet = rig.content(used, 2048);
        if is_ours(&packet[12..]) {
            assert_eq!(packet[12..], frame(300, 3));
            break;
        }
    }
}
