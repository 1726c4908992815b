//! Uevents: what the kernel says when a device comes or goes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The kernel's own group of listeners; programs use another.
const KERNEL_GROUP: u32 = 1;
/// Longer messages than this the kernel does not send (`UEVENT_BUFFER_SIZE`, plus the header line).
const MESSAGE_MAX: usize = 8192;
/// Room for a burst of messages while a module loads, in bytes.
static BUFFER: libc::c_int = 4 << 20;

/// A device that came, went or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// Path below `/sys`.
    pub path: String,
    /// E.g. `block`.
    pub subsystem: String,
    /// What modules are found by.
    pub modalias: Option<String>,
}

impl Uevent {
    /// A message: `ACTION@PATH`, then strings `KEY=value`, each ended by a NUL.
    fn parse(message: &[u8]) -> Option<Self> {
        let mut strings = message.split(|b| *b == 0).map(String::from_utf8_lossy);
        let head = strings.next()?;
        let (action, path) = head.split_once('@')?;
        let mut event = Self {
            action: action.to_owned(),
            path: path.to_owned(),
            subsystem: String::new(),
            modalias: None,
        };
        for string in strings {
            match string.split_once('=') {
                Some(("SUBSYSTEM", value)) => value.clone_into(&mut event.subsystem),
                Some(("MODALIAS", value)) => event.modalias = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }
}

/// Receives uevents.
#[derive(Debug)]
pub struct UeventSocket {
    fd: OwnedFd,
}

impl UeventSocket {
    /// Starts to listen.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes integers only.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = size_of_val(&BUFFER) as libc::socklen_t;
        // A smaller buffer only means that a burst may be lost, which `read` reports.
        // SAFETY: the option's value is an integer, and the length says so.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const BUFFER).cast(),
                size,
            );
        }
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = KERNEL_GROUP;
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is a sockaddr_nl, and the length says so.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd })
    }

    /// The next event, or `None` when there is none waiting. Messages were lost when the error is `ENOBUFS`: look at
    /// every device again.
    pub fn read(&self) -> io::Result<Option<Uevent>> {
        let mut buffer = [0u8; MESSAGE_MAX];
        loop {
            // SAFETY: all-zero bytes are a valid sockaddr_nl.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut size = size_of_val(&from) as libc::socklen_t;
            // SAFETY: buffer and address are valid for the lengths given with them.
            let received = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            match usize::try_from(received) {
                // A program could send too; only the kernel's port is zero.
                Ok(len) if from.nl_pid == 0 => {
                    if let Some(event) = Uevent::parse(&buffer[..len]) {
                        return Ok(Some(event));
                    }
                }
                Ok(_) => {}
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let event = Uevent::parse(
            b"add@/devices/pci0000:00/usb1/1-1/1-1:1.0\0ACTION=add\0SUBSYSTEM=usb\0MODALIAS=usb:v46F4=x\0SEQNUM=7\0",
        )
        .unwrap();
        assert_eq!(event.action, "add");
        assert_eq!(event.path, "/devices/pci0000:00/usb1/1-1/1-1:1.0");
        assert_eq!(event.subsystem, "usb");
        assert_eq!(event.modalias.as_deref(), Some("usb:v46F4=x"));
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed"), None);
        assert_eq!(Uevent::parse(b""), None);
    }
}
