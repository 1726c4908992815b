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
        let options = Options {
            mac: MAC,
            mtu: 1500,
        };
        let device = Net::new(tap, None, options, Arc::new(|| {})).unwrap();
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

    fn post(&mut self, count: u64, length: u32) {
        for slot in 0..count {
            let address = BUFFERS + 0x1_0000 + slot * u64::from(length.next_multiple_of(64));
            self.receive.offer(&[writable(address, length)]).unwrap();
        }
        self.receive.kick();
    }

    /// The next frame of ours that the driver receives, and in how many buffers.
    fn take_frame(&mut self, buffer_length: u32) -> (Vec<u8>, usize) {
        let stride = u64::from(buffer_length.next_multiple_of(64));
        loop {
            let mut packet = Vec::new();
            let mut count = 1;
            let mut taken = 0;
            while taken < count {
                // After the first all must be there already.
                let (head, written) = if taken == 0 {
                    self.receive.wait_used()
                } else {
                    self.receive.take_used().expect("the rest of the packet")
                };
                let address = BUFFERS + 0x1_0000 + u64::from(head) * stride;
                let mut part = vec![0; written as usize];
                self.memory
                    .read_slice(&mut part, GuestAddress(address))
                    .unwrap();
                if taken == 0 {
                    count = usize::from(u16::from_le_bytes([part[10], part[11]]));
                }
                packet.extend(part);
                taken += 1;
            }
            let frame = packet.split_off(12);
            if is_ours(&frame) {
                return (frame, count);
            }
        }
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
    let totals = rig.device.statistics().totals();
    assert_eq!((totals.sent, totals.sent_bytes), (1, 114));
    assert!(totals.received >= 1);
}
