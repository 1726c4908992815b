//! A tap, which whoever started this connects to something.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc;

/// Length of the virtio network header in front of every frame, in bytes (virtio 1.2, section 5.1.6).
const HEADER: libc::c_int = 12;

nix::ioctl_write_int!(set_interface, b'T', 202);
nix::ioctl_write_ptr!(set_header_size, b'T', 216, libc::c_int);

/// Opens the tap of that name, or makes it until it is closed.
pub fn open(name: &str) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = libc::IFNAMSIZ - 1;
    for (slot, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let address = std::ptr::from_mut(&mut request).expose_provenance() as libc::c_ulong;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq at the address given, which outlives the call.
    unsafe { set_interface(file.as_raw_fd(), address) }?;
    // SAFETY: the descriptor is open, and TUNSETVNETHDRSZ reads one int at the address given.
    unsafe { set_header_size(file.as_raw_fd(), &HEADER) }?;
    Ok(file.into())
}
