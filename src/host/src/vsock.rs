//! Sockets between this host and its guests (`vsock(7)`), which need no network.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect as start, socket};
use tokio::net::UnixStream;
use tokio::time::timeout;

const DEVICE: &str = "/dev/vhost-vsock";

// linux/vm_sockets.h
const SO_VM_SOCKETS_CONNECT_TIMEOUT: libc::c_int = 6;

mod ioctl {
    // linux/vhost.h
    nix::ioctl_write_ptr!(set_guest_cid, 0xaf, 0x60, u64);
}

/// A guest's end, before its monitor has it.
#[derive(Debug)]
pub struct GuestEnd {
    /// `/dev/vhost-vsock`. The address is free again when the last copy is closed.
    pub fd: OwnedFd,
    /// The guest's address.
    pub cid: u32,
}

/// Opens `/dev/vhost-vsock` and takes the first of `cids` that is free: the kernel never gives one to
/// two guests. `Ok(None)` on machines without it.
///
/// # Errors
/// When the device is there and cannot be opened, or all addresses are taken.
pub fn open_guest_end(cids: impl IntoIterator<Item = u32>) -> io::Result<Option<GuestEnd>> {
    let file = match File::options().read(true).write(true).open(DEVICE) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for cid in cids {
        let address = u64::from(cid);
        // SAFETY: the descriptor is open, and the ioctl reads one integer at the address given.
        match unsafe { ioctl::set_guest_cid(file.as_raw_fd(), &raw const address) } {
            Ok(_) => {
                let fd = file.into();
                return Ok(Some(GuestEnd { fd, cid }));
            }
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

fn is_missing(error: &io::Error) -> bool {
    // The last two: the file is there but no driver answers behind it.
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Connects to a port of the guest with that address.
///
/// The result is no Unix socket; but a stream is a stream to all that reads and writes it.
///
/// # Errors
/// `ConnectionReset` when nobody listens there, `TimedOut` when the guest does not answer within
/// `patience`, another when there is no such guest.
pub async fn connect(cid: u32, port: u32, patience: Duration) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    be_patient(&socket, patience)?;
    match start(socket.as_raw_fd(), &VsockAddr::new(cid, port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = UnixStream::from_std(StdUnixStream::from(socket))?;
    timeout(patience, stream.writable())
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    match stream.take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

/// The kernel would give up after two seconds, which a guest on a busy host may not be running for at all.
fn be_patient(socket: &OwnedFd, patience: Duration) -> io::Result<()> {
    let seconds = patience.as_secs().try_into().map_err(io::Error::other)?;
    let limit = libc::timeval {
        tv_sec: seconds,
        tv_usec: patience.subsec_micros().into(),
    };
    let length = size_of_val(&limit).try_into().map_err(io::Error::other)?;
    // SAFETY: the option is a `timeval` of that length, which the kernel reads before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            SO_VM_SOCKETS_CONNECT_TIMEOUT,
            (&raw const limit).cast(),
            length,
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, getsockname, listen};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// This machine alone, by itself.
    const LOCAL: u32 = libc::VMADDR_CID_LOCAL;

    /// A socket that listens on this machine; `None` where the kernel has no loopback for it.
    fn listener() -> Option<(OwnedFd, u32)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None).ok()?;
        let any = VsockAddr::new(LOCAL, libc::VMADDR_PORT_ANY);
        if bind(socket.as_raw_fd(), &any).is_err() {
            println!("skipped: no loopback for vsock here");
            return None;
        }
        listen(&socket, Backlog::new(1).unwrap()).unwrap();
        let address: VsockAddr = getsockname(socket.as_raw_fd()).unwrap();
        Some((socket, address.port()))
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_seen() {
        let Some((listener, port)) = listener() else {
            return;
        };
        let mut ours = connect(LOCAL, port, PATIENCE).await.unwrap();
        let theirs = nix::sys::socket::accept(listener.as_raw_fd()).unwrap();
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let theirs = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(theirs) };
        let theirs = StdUnixStream::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = UnixStream::from_std(theirs).unwrap();
        ours.write_all(b"hello").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let reading = theirs.read_to_end(&mut heard);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        assert_eq!(heard, b"hello");
        theirs.write_all(b"bye").await.unwrap();
        drop(theirs);
        let mut heard = Vec::new();
        let reading = ours.read_to_end(&mut heard);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        assert_eq!(heard, b"bye");
    }

    #[test]
    fn the_kernel_is_as_patient_as_we_are() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let Ok(socket) = socket(AddressFamily::Vsock, SockType::Stream, flags, None) else {
            println!("skipped: no vsock here");
            return;
        };
        be_patient(&socket, Duration::from_millis(10_500)).unwrap();
        let mut limit = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let mut length = size_of_val(&limit).try_into().unwrap();
        // SAFETY: the kernel writes a `timeval` of that length.
        let result = unsafe {
            let limit = (&raw mut limit).cast();
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::AF_VSOCK,
                6,
                limit,
                &raw mut length,
            )
        };
        assert_eq!(result, 0);
        let limit = (limit.tv_sec, limit.tv_usec / 100_000);
        assert_eq!(limit, (10, 5));
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let Some((listener, port)) = listener() else {
            return;
        };
        drop(listener);
        let error = connect(LOCAL, port, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn no_two_guests_have_the_same_address() {
        let cids = [0x7777_0001, 0x7777_0002];
        let Some(first) = open_guest_end(cids).unwrap() else {
            println!("skipped: no vhost-vsock here");
            return;
        };
        let second = open_guest_end(cids).unwrap().unwrap();
        assert_eq!([first.cid, second.cid], cids);
        let error = open_guest_end(cids).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert_eq!(open_guest_end(cids).unwrap().unwrap().cid, cids[0]);
    }
}
