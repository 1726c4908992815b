//! A packet socket on one link.
//!
//! It sits on the link itself, below any bridge: guests on the bridge can neither answer the host's requests
//! nor see them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// What a socket takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// UDP datagrams to the DHCP client's port.
    Dhcp,
    /// ARP messages.
    Arp,
}

impl Filter {
    const fn protocol(self) -> u16 {
        match self {
            Self::Dhcp => 0x0800,
            Self::Arp => 0x0806,
        }
    }
}

/// Classic BPF (`man 7 socket`, `SO_ATTACH_FILTER`): whole IPv4 UDP datagrams to port 68. Everything else the link
/// carries, guests' traffic included, must not wake us.
const DHCP_PROGRAM: [libc::sock_filter; 8] = [
    instruction(0x30, 0, 0, 23),     // A = protocol
    instruction(0x15, 0, 5, 17),     // UDP?
    instruction(0x28, 0, 0, 20),     // A = flags and fragment offset
    instruction(0x45, 3, 0, 0x3fff), // a fragment?
    instruction(0xb1, 0, 0, 14),     // X = length of the IP header
    instruction(0x48, 0, 0, 16),     // A = destination port
    instruction(0x15, 1, 0, 68),     // the client's?
    instruction(0x06, 0, 0, 0),      // drop
];
const ACCEPT: libc::sock_filter = instruction(0x06, 0, 0, 0x4_0000);

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
        if filter == Filter::Dhcp {
            attach_filter(&fd)?;
        }
        bind(&fd, index, filter.protocol())?;
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

fn attach_filter(fd: &OwnedFd) -> io::Result<()> {
    let mut program = DHCP_PROGRAM.to_vec();
    program.push(ACCEPT);
    let descriptor = libc::sock_fprog {
        len: 9,
        filter: program.as_mut_ptr(),
    };
    let length = size_of_val(&descriptor) as libc::socklen_t;
    // SAFETY: the descriptor points to nine instructions, which outlive the call; the kernel copies them.
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

fn bind(fd: &OwnedFd, index: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = protocol.to_be();
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
