//! The other end of a network card's cable.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

/// Bytes of the header in front of each packet (virtio 1.2, 5.1.6, with `num_buffers`).
pub const HEADER: usize = 12;

/// Longest packet, with its header.
const LONGEST: usize = 0x1_0000;

/// A wire on which anybody sends anything.
pub struct Wire {
    far: OwnedFd,
}

impl Wire {
    /// A wire, and what stands for the tap at its near end.
    ///
    /// # Panics
    /// When the process is out of descriptors.
    pub fn new() -> (OwnedFd, Self) {
        let (near, far) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("a socket pair");
        (near, Self { far })
    }

    /// Takes all packets that have arrived, with their headers, and returns the last: there is room again for what the
    /// guest sends next.
    pub fn drain(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; LONGEST];
        let mut last = None;
        loop {
            match recv(self.far.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length > 0 => last = Some(packet[..length].to_vec()),
                _ => return last,
            }
        }
    }

    /// Sends a packet, header and all; one that does not fit is lost.
    pub fn send(&self, packet: &[u8]) {
        let _ = send(self.far.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT);
    }

    /// What an input says: the length first, in which the number of bytes counts, then as much of the packet as
    /// matters.
    pub fn say(&self, bytes: &[u8]) {
        self.drain();
        let length = bytes.len() * usize::from(bytes.first().copied().unwrap_or(0));
        let mut packet = vec![0; LONGEST];
        packet[..bytes.len()].copy_from_slice(bytes);
        self.send(&packet[..length.clamp(1, LONGEST)]);
    }
}
