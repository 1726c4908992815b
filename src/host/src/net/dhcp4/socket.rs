//! A packet socket on one link.
//!
//! It sits on the link itself, below any bridge: guests on the bridge can neither answer the host's requests
//! nor see them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Socket option of `linux/if_packet.h`.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// What a socket takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// UDP datagrams to the DHCP client's port.
    Dhcp,
    /// ARP messages.
    Arp,
}

/// Classic BPF (`man 7 socket`, `SO_ATTACH_FILTER`): whole IPv4 UDP datagrams to port 68. What else the link
/// carries, guests' traffic included, must not wake us.
const DHCP_PROGRAM: [libc::sock_filter; 11] = [
    instruction(0x28, 0, 0, 12),       // A = type of frame
    instruction(0x15, 0, 7, 0x0800),   // IPv4?
    instruction(0x30, 0, 0, 23),       // A = protocol
    instruction(0x15, 0, 5, 17),       // UDP?
    instruction(0x28, 0, 0, 20),       // A = flags and fragment offset
    instruction(0x45, 3, 0, 0x3fff),   // a fragment?
    instruction(0xb1, 0, 0, 14),       // X = length of the IP header
    instruction(0x48, 0, 0, 16),       // A = destination port
    instruction(0x15, 1, 0, 68),       // the client's?
    instruction(0x06, 0, 0, 0),        // drop
    instruction(0x06, 0, 0, 0x4_0000), // take
];

/// ARP messages.
const ARP_PROGRAM: [libc::sock_filter; 4] = [
    instruction(0x28, 0, 0, 12),       // A = type of frame
    instruction(0x15, 1, 0, 0x0806),   // ARP?
    instruction(0x06, 0, 0, 0),        // drop
    instruction(0x06, 0, 0, 0x4_0000), // take
];

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// A non-blocking packet socket.
#[derive(Debug)]
pub(super) struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// Opens a socket on the link with that kernel index.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW`, or what else the kernel answers.
    pub(super) fn open(index: u32, filter: Filter) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 receives nothing: no frame of another link slips in before the filter and the address are set.
        // SAFETY: a plain system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        match filter {
            Filter::Dhcp => attach_filter(&fd, &mut DHCP_PROGRAM.clone())?,
            Filter::Arp => attach_filter(&fd, &mut ARP_PROGRAM.clone())?,
        }
        ignore_outgoing(&fd)?;
        bind(&fd, index)?;
        // SAFETY: the AsyncFd owns the descriptor, which therefore stays open as long as it is registered.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self(fd))
    }

    /// Waits for a frame and reads it. A longer frame than `buffer` is cut.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .async_io(tokio::io::Interest::READABLE, |fd| {
                // SAFETY: the buffer is valid for writes of its length during the call.
                let read = unsafe {
                    libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
                };
                usize::try_from(read).map_err(|_| io::Error::last_os_error())
            })
            .await
    }

    /// Sends a frame, without waiting: a full queue is an error like any other loss.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame is valid for reads of its length during the call.
        let sent = unsafe {
            libc::send(
                self.0.get_ref().as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn attach_filter(fd: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let descriptor = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    let length = size_of_val(&descriptor) as libc::socklen_t;
    // SAFETY: the descriptor points to as many instructions as it says, which outlive the call; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&descriptor).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Without this every frame that guests send would be copied for us.
fn ignore_outgoing(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is an int, valid for reads during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            std::ptr::from_ref(&on).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    // All protocols: a bridge takes the frames of its ports away before sockets for a single one see them.
    address.sll_protocol = (libc::ETH_P_ALL as libc::c_ushort).to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is valid for reads of the length given during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
