//! A network interface's other end, where this machine lets one make it.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

nix::ioctl_write_int!(tun_set_iff, b'T', 202);
nix::ioctl_write_ptr!(tun_set_vnet_hdr_size, b'T', 216, libc::c_int);

/// Length of the virtio network header in front of every frame, in bytes (virtio 1.2, 5.1.6).
const HEADER: libc::c_int = 12;

/// A tap that is down and attached to nothing, and goes away when it is closed.
pub fn tap() -> Option<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun").ok()?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure. Without a name the kernel chooses one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let address = std::ptr::from_mut(&mut request).expose_provenance() as libc::c_ulong;
    // SAFETY: the descriptor is open; the first reads and writes one ifreq, the second reads one int, and both outlive the calls.
    unsafe {
        tun_set_iff(file.as_raw_fd(), address).ok()?;
        tun_set_vnet_hdr_size(file.as_raw_fd(), &HEADER).ok()?;
    }
    Some(file.into())
}
