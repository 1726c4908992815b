//! A real tap in a network namespace of the test's own, and the host's side of it.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::socket::{
    self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike,
};

/// How long a test waits for a packet before it calls it lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the card at the guest's end.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
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

/// The host's side of a tap: a packet socket.
pub struct Wire {
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

/// A tap attached with `flags`, in a namespace that the calling thread is in from now on.
pub fn tap(flags: i16) -> OwnedFd {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
    queue(flags)
}

/// A queue of the tap in the namespace, attached with `flags`.
fn queue(flags: i16) -> OwnedFd {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let request = interface(b"tap0", flags);
    // SAFETY: the ioctl reads the structure.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &raw const request) }.unwrap();
    tap.into()
}

/// A tap as devices want it, which is up.
pub fn wire() -> (OwnedFd, Wire) {
    let tap = tap(0x2 | 0x1000 | 0x4000);
    (tap, wire_of_tap())
}

/// The queues of a tap that has so many, at least one, and is up.
pub fn wire_of_queues(count: usize) -> (Vec<OwnedFd>, Wire) {
    const FLAGS: i16 = 0x2 | 0x100 | 0x1000 | 0x4000;
    let mut queues = vec![tap(FLAGS)];
    queues.extend((1..count).map(|_| queue(FLAGS)));
    (queues, wire_of_tap())
}

fn wire_of_tap() -> Wire {
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
    wire
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

    /// Sends a frame to the guest.
    pub fn send(&self, frame: &[u8]) {
        let sent = socket::sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.address(),
            MsgFlags::empty(),
        );
        assert_eq!(sent, Ok(frame.len()));
    }

    /// Forgets what has come so far: nobody waits for room in the socket's buffer.
    pub fn drain(&self) {
        let mut byte = [0];
        while socket::recv(self.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// The next frame of ours (the kernel sends some of its own).
    pub fn receive(&self) -> Vec<u8> {
        self.receive_if(is_ours)
    }

    /// The next frame of which `wanted` is true.
    pub fn receive_if(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            let mut frame = vec![0; 70_000];
            let length =
                socket::recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap();
            frame.truncate(length);
            if wanted(&frame) {
                return frame;
            }
        }
    }
}

/// A frame of ours for everybody, with so many bytes of payload.
pub fn frame(payload: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame[6..12].copy_from_slice(&MAC);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.extend((0..payload).map(|byte| (byte as u8).wrapping_mul(7).wrapping_add(seed)));
    frame
}

/// Whether a frame is one of [`frame`]'s.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE.to_be_bytes()[..])
}
