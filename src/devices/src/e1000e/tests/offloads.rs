//! Checksums, segmentation and tags, as far as the host's end of the cable.

use super::*;

/// Ethernet, IPv4 and TCP as drivers leave them to be segmented, and a payload.
fn segments(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 54 + payload];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46] = 0x50;
    frame
}

impl Rig {
    fn context(&mut self, commands: u32, segment: u16) {
        let sums = u64::from_le_bytes([14, 24, 33, 0, 34, 50, 0, 0]);
        let upper = u32::from(segment) << 16 | 54 << 8;
        self.prepare(sums, EXTENDED | commands, upper);
    }

    /// Sends what is at [`OUTGOING`] by a data descriptor.
    fn send_data(&mut self, length: usize, commands: u32, options: u32) {
        let lower = length as u32 | DATA | EXTENDED | END | REPORT | commands;
        let descriptor = self.prepare(OUTGOING, lower, options << 8);
        self.ring();
        self.wait_done(descriptor);
    }
}

fn is_tcp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6)
}

#[test]
fn the_host_gets_packets_to_segment_whole() {
    let mut rig = Rig::started();
    rig.put(OUTGOING, &segments(5000));
    rig.context(TCP | IPV4 | SEGMENT, 1448);
    rig.send_data(5054, SEGMENT, 3);
    let received = rig.wire.receive_if(is_tcp);
    assert_eq!(received.len(), 5054);
    assert_eq!(received[16..18], 5040_u16.to_be_bytes());
    assert_eq!(rig.read(0x40f8), 1, "segmented");
    // The context is still there; what it says does not fit this one.
    rig.send_data(30, SEGMENT, 3);
    assert_eq!((rig.read(0x40f8), rig.read(0x40fc)), (0, 1));
}

#[test]
fn a_context_in_the_middle_is_for_the_next_packet() {
    let mut rig = Rig::started();
    rig.put(OUTGOING, &segments(3000));
    rig.context(TCP | IPV4 | SEGMENT, 1448);
    rig.prepare(OUTGOING, 54 | DATA | EXTENDED | SEGMENT, 3 << 8);
    rig.context(0, 0);
    let last = rig.prepare(OUTGOING + 54, 3000 | DATA | EXTENDED | END | REPORT, 0);
    rig.ring();
    rig.wait_done(last);
    assert_eq!(rig.wire.receive_if(is_tcp).len(), 3054);
    rig.send_data(3054, SEGMENT, 3);
    assert_eq!(rig.read(0x40fc), 1, "not segmented");
}

#[test]
fn checksums() {
    let mut rig = Rig::started();
    rig.put(OUTGOING, &segments(100));
    rig.context(TCP | IPV4, 0);
    rig.send_data(154, 0, 1);
    let received = rig.wire.receive_if(is_tcp);
    assert_ne!(received[24..26], [0, 0], "IP's");
    assert_eq!(received[50..52], [0, 0]);
    // The host's end sees what is left to the host undone.
    rig.send_data(154, 0, 2);
    let received = rig.wire.receive_if(is_tcp);
    assert_eq!((received.len(), &received[24..26]), (154, &[0, 0][..]));
    // The legacy way, to nowhere.
    let before = rig.read(TDH);
    let descriptor = rig.prepare(OUTGOING, 60 | END | 1 << 26 | REPORT | 200 << 16, 0);
    rig.ring();
    rig.wait_done(descriptor);
    assert_ne!(rig.read(TDH), before);
    rig.send(&frame(100, 1));
    assert_eq!(rig.wire.receive(), frame(100, 1));
}

#[test]
fn tags_are_put_in_and_taken_out() {
    let mut rig = Rig::started();
    let tagged = |seed| {
        let mut tagged = frame(100, seed);
        tagged.splice(12..12, [0x81, 0, 0x60, 0x21]);
        tagged
    };
    let is_tagged = |frame: &[u8]| frame.get(12..14) == Some(&[0x81, 0]);
    rig.put(OUTGOING, &frame(100, 1));
    let send = |rig: &mut Rig| {
        let lower = 114 | DATA | EXTENDED | END | REPORT | TAG;
        let descriptor = rig.prepare(OUTGOING, lower, 0x6021 << 16);
        rig.ring();
        rig.wait_done(descriptor);
    };
    send(&mut rig);
    assert_eq!(rig.wire.receive(), frame(100, 1), "the mode is off");
    rig.write(at::CTRL, 1 << 30);
    send(&mut rig);
    let mut received = rig
        .wire
        .receive_if(|frame| is_tagged(frame) || is_ours(frame));
    // A packet socket hands out the frame without its tag.
    if is_tagged(&received) {
        received.drain(12..16);
    }
    assert_eq!(received, frame(100, 1));
    rig.wire.send(&tagged(2));
    let (received, _, status, tag) = rig.take();
    assert_eq!(received, frame(100, 2));
    assert_eq!((status, tag), (0xf, 0x6021));
    rig.write(at::CTRL, 0);
    rig.wire.send(&tagged(3));
    rig.wire.send(&frame(100, 4));
    assert_eq!(
        rig.take_frame(),
        frame(100, 4),
        "a tagged one is passed over"
    );
}
