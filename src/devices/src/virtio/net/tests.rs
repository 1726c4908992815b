//! A driver on a real tap in a network namespace of the test's own.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sched::CloneFlags;
use nix::sys::socket::{
    self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike,
};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::virtio::test_driver::{DriverQueue, PATIENCE, TestEvents, readable, writable};

const MEMORY: usize = 4 << 20;
const BUFFERS: u64 = 0x10_0000;
const EVENT_IDX: u64 = 1 << 29;
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// Local experimental EtherType 1 (IEEE 802): nobody else in the namespace sends it.
const ETHERTYPE: u16 = 0x88b5;

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, 4),
        libc::ifreq
    );
    nix::ioctl_readwrite_bad!(siocsifflags, 0x8914, libc::ifreq);
}

/// The wire: a tap, and a packet socket on its other side.
struct Wire {
    socket: OwnedFd,
    index: i32,
}

fn interface(name: &[u8], flags: i16) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    request
}

/// A tap that is up, in a namespace that the calling thread is in from now on.
fn wire() -> (OwnedFd, Wire) {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let request = interface(b"tap0", 0x2 | 0x1000 | 0x4000);
    // SAFETY: the ioctl reads the structure.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &raw const request) }.unwrap();
    let socket = socket::socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .unwrap();
    let mut up = interface(b"tap0", libc::IFF_UP as i16);
    // SAFETY: the ioctl reads the structure.
    unsafe { ioctl::siocsifflags(socket.as_raw_fd(), &raw mut up) }.unwrap();
    let index = nix::net::if_::if_nametoindex("tap0").unwrap() as i32;
    let timeout = nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0);
    socket::setsockopt(&socket, socket::sockopt::ReceiveTimeout, &timeout).unwrap();
    let wire = Wire { socket, index };
    socket::bind(wire.socket.as_raw_fd(), &wire.address()).unwrap();
    (tap.into(), wire)
}

impl Wire {
    fn address(&self) -> LinkAddr {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff; 8],
        };
        // SAFETY: the address is complete and as long as told.
        unsafe {
            LinkAddr::from_raw(
                (&raw const address).cast(),
                Some(size_of::<libc::sockaddr_ll>() as u32),
            )
        }
        .unwrap()
    }

    fn send(&self, frame: &[u8]) {
        let sent = socket::sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.address(),
            MsgFlags::empty(),
        );
        assert_eq!(sent, Ok(frame.len()));
    }

    /// The next frame of ours (the kernel sends some of its own).
    fn receive(&self) -> Vec<u8> {
        loop {
            let mut frame = vec![0; 70_000];
            let length =
                socket::recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap();
            frame.truncate(length);
            if is_ours(&frame) {
                return frame;
            }
        }
    }
}

fn frame(payload: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame[6..12].copy_from_slice(&MAC);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.extend((0..payload).map(|byte| (byte as u8).wrapping_mul(7).wrapping_add(seed)));
    frame
}

fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE.to_be_bytes()[..])
}

/// Where the receive buffer posted as `head` lies.
fn buffer(head: u16, length: u32) -> u64 {
    BUFFERS + 0x1_0000 + u64::from(head) * u64::from(length.next_multiple_of(64))
}

struct Rig {
    device: Net,
    memory: GuestMemory,
    receive: DriverQueue,
    transmit: DriverQueue,
    events: Arc<TestEvents>,
    wire: Wire,
}

impl Rig {
    fn new() -> Self {
        Self::with(!0)
    }

    /// With the given of the device's features accepted.
    fn with(features: u64) -> Self {
        let (tap, wire) = wire();
        Self::on(tap, wire, features, Arc::new(|| {}))
    }

    fn on(tap: OwnedFd, wire: Wire, features: u64, prologue: Prologue) -> Self {
        let options = Options {
            mac: MAC,
            mtu: 1500,
        };
        let device = Net::new(tap, None, options, prologue).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let mut rig = Self {
            receive: DriverQueue::new(&memory, 0, 64),
            transmit: DriverQueue::new(&memory, 0x8000, 64),
            device,
            memory,
            events: Arc::default(),
            wire,
        };
        let queues = [rig.receive.device_side(), rig.transmit.device_side()];
        rig.activate(features, queues);
        rig
    }

    fn activate(&mut self, features: u64, mut queues: [ActiveQueue; 2]) {
        for queue in &mut queues {
            queue.queue.set_event_idx(features & EVENT_IDX != 0);
        }
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features: features & (self.device.features() | EVENT_IDX),
                queues: queues.into(),
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Posts `count` buffers of `length` bytes, each at a place of its own.
    fn post(&mut self, count: u64, length: u32) {
        for _ in 0..count {
            let address = buffer(self.receive.next_head(), length);
            self.receive.offer(&[writable(address, length)]).unwrap();
        }
        self.receive.kick();
    }

    /// The next frame of ours that the driver receives, and in how many buffers
    /// of `length` bytes. Each is posted again.
    fn take_frame(&mut self, length: u32) -> (Vec<u8>, usize) {
        loop {
            let used = self.receive.wait_used();
            let mut packet = self.content(used, length);
            let count = u16::from_le_bytes([packet[10], packet[11]]);
            for _ in 1..count {
                let used = self.receive.take_used();
                packet.extend(self.content(used.expect("the rest of the packet"), length));
            }
            self.post(count.into(), length);
            let frame = packet.split_off(12);
            if is_ours(&frame) {
                return (frame, count.into());
            }
        }
    }

    fn content(&self, (head, written): (u16, u32), length: u32) -> Vec<u8> {
        let mut content = vec![0; written as usize];
        let address = GuestAddress(buffer(head, length));
        self.memory.read_slice(&mut content, address).unwrap();
        content
    }

    fn totals(&self) -> Totals {
        self.device.statistics().totals()
    }

    fn send(&mut self, frame: &[u8]) {
        self.memory
            .write_slice(&[0; 12], GuestAddress(BUFFERS))
            .unwrap();
        self.memory
            .write_slice(frame, GuestAddress(BUFFERS + 12))
            .unwrap();
        let length = frame.len() as u32 + 12;
        self.transmit.offer(&[readable(BUFFERS, length)]).unwrap();
        self.transmit.kick();
    }
}

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
    let pieces = [
        writable(BUFFERS + 0x1_0000, 7),
        writable(BUFFERS + 0x1_0007, 2041),
    ];
    for _ in 0..8 {
        rig.receive.offer(&pieces).unwrap();
    }
    rig.receive.kick();
    rig.wire.send(&frame(300, 3));
    loop {
        let (_, written) = rig.receive.wait_used();
        let mut packet = vec![0; written as usize];
        rig.memory
            .read_slice(&mut packet, GuestAddress(BUFFERS + 0x1_0000))
            .unwrap();
        // Later packets overwrite earlier ones, of which ours is the last we know of.
        if is_ours(&packet[12..]) {
            assert_eq!(packet[12..], frame(300, 3));
            break;
        }
    }
}

#[test]
fn a_pause_loses_nothing() {
    let mut rig = Rig::new();
    for seed in 0..100 {
        rig.send(&frame(100, seed));
        let mut queues = rig.device.deactivate();
        let transmit = rig.transmit.activation(queues.pop().unwrap());
        let queues = [rig.receive.activation(queues.pop().unwrap()), transmit];
        // What the pause left in the ring is sent without another kick.
        let _ = rig.transmit.kick.read();
        rig.activate(!0, queues);
        rig.transmit.wait_used();
        assert_eq!(rig.wire.receive(), frame(100, seed));
    }
    assert_eq!(rig.totals().sent, 100);
}

/// The device asks for a reset, gives its queues back, and serves a new driver.
fn breaks(mut rig: Rig, expected: &str) {
    rig.receive.kick();
    rig.transmit.kick();
    // Something for it to receive.
    rig.wire.send(&frame(100, 1));
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    assert_eq!(rig.device.deactivate().len(), 2);
    rig.memory
        .write_slice(&[0; 0x1_0000], GuestAddress(0))
        .unwrap();
    rig.receive = DriverQueue::new(&rig.memory, 0, 64);
    rig.transmit = DriverQueue::new(&rig.memory, 0x8000, 64);
    rig.events = Arc::default();
    let queues = [rig.receive.device_side(), rig.transmit.device_side()];
    rig.activate(!0, queues);
    rig.send(&frame(50, 9));
    rig.transmit.wait_used();
    assert_eq!(rig.wire.receive(), frame(50, 9));
    assert!(!rig.events.broken());
}

#[test]
fn broken_rings_need_a_reset() {
    let rig = Rig::new();
    rig.transmit.publish(65);
    breaks(rig, "ring");
    let rig = Rig::new();
    rig.receive.publish(65);
    breaks(rig, "ring");
    let mut rig = Rig::new();
    rig.receive.offer(&[readable(BUFFERS, 2048)]).unwrap();
    breaks(rig, "1 bytes needed, 0 given");
    let mut rig = Rig::new();
    let outside = writable(MEMORY as u64 - 4, 2048);
    rig.receive.offer(&[outside]).unwrap();
    breaks(rig, "outside guest memory");
    let mut rig = Rig::new();
    rig.transmit.make_available(64);
    breaks(rig, "descriptor index 64");
}

/// CPU time the thread has used, in nanoseconds.
fn cpu_time(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    status.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn sleeps_while_nobody_takes_packets() {
    // Packets that find no buffers must not keep the thread busy.
    let (tap, wire) = wire();
    let (send, thread) = std::sync::mpsc::channel();
    let prologue = move || send.send(nix::unistd::gettid().as_raw()).unwrap();
    let mut rig = Rig::on(tap, wire, !0, Arc::new(prologue));
    let thread = thread.recv().unwrap();
    for seed in 0..10 {
        rig.wire.send(&frame(100, seed));
    }
    rig.send(&frame(1, 1));
    rig.transmit.wait_used();
    let (start, used) = (std::time::Instant::now(), cpu_time(thread));
    while start.elapsed().as_millis() < 200 {
        rig.wire.send(&frame(1400, 0));
    }
    let used = std::time::Duration::from_nanos(cpu_time(thread) - used);
    assert!(used < start.elapsed() / 10, "{used:?}");
    assert_eq!(rig.totals().received, 0);
}

#[test]
fn half_a_pair_is_left_alone() {
    let mut rig = Rig::new();
    rig.device.deactivate();
    let mut queues = [rig.receive.device_side(), rig.transmit.device_side()];
    queues[0].queue.set_ready(false);
    rig.activate(!0, queues);
    let queues = rig.device.deactivate();
    let ready: Vec<bool> = queues.iter().map(Queue::ready).collect();
    assert_eq!(ready, [false, true]);
}

#[test]
fn takes_nothing_but_a_tap_with_headers() {
    let options = Options {
        mac: MAC,
        mtu: 1500,
    };
    let null = OpenOptions::new().read(true).open("/dev/null").unwrap();
    let refused = Net::new(null.into(), None, options, Arc::new(|| {}));
    assert!(refused.is_err());
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let request = interface(b"tap0", 0x2 | 0x1000);
    // SAFETY: the ioctl reads the structure.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &raw const request) }.unwrap();
    let refused = Net::new(tap.into(), None, options, Arc::new(|| {}));
    assert!(refused.is_err_and(|error| error.to_string().contains("VNET_HDR")));
}

#[test]
fn shows_its_configuration_and_keeps_it() {
    let mut rig = Rig::new();
    let mut space = [0xee; 12];
    rig.device.read_config(0, &mut space);
    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 1, 0, 0xdc, 0x05]);
    for offset in [12, 4096, u64::MAX] {
        let mut data = [0; 8];
        rig.device.read_config(offset, &mut data);
        assert_eq!(data, [0; 8]);
    }
    let state = rig.device.save();
    rig.device.restore(&state).unwrap();
    let mut other = state.clone();
    other.body["mac"] = serde_json::json!([2, 0, 0, 0, 0, 1]);
    assert!(rig.device.restore(&other).is_err());
    let mut damaged = state;
    damaged.body["mac"] = serde_json::json!("x");
    assert!(rig.device.restore(&damaged).is_err());
}
