//! A driver on a real tap in a network namespace of the test's own.
#![allow(unsafe_code)]

mod hostile;
mod lifecycle;
mod packets;
mod vhost;

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
const VERSION_1: u64 = 1 << 32;
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
        Self::on(tap, None, wire, features, Arc::new(|| {}))
    }

    fn on(
        tap: OwnedFd,
        vhost: Option<OwnedFd>,
        wire: Wire,
        features: u64,
        prologue: Prologue,
    ) -> Self {
        let options = Options {
            mac: MAC,
            mtu: 1500,
        };
        let device = Net::new(tap, vhost, options, prologue).unwrap();
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
                features: features & (self.device.features() | EVENT_IDX) | VERSION_1,
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
            // Without mergeable buffers vhost-net leaves the field alone.
            let count = u16::from_le_bytes([packet[10], packet[11]]).max(1);
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
