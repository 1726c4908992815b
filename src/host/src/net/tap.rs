//! Taps: the host's end of a guest's network interface.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::NetError;

const TUN_DEVICE: &str = "/dev/net/tun";
const VHOST_DEVICE: &str = "/dev/vhost-net";

/// Every tap of ours begins so, which is how taps of earlier managers are recognised.
pub(super) const TAP_PREFIX: &str = "lgt";

/// Length of the virtio network header in front of every frame, in bytes (Virtio 1.2, section 5.1.6).
const VNET_HEADER_LEN: libc::c_int = 12;

nix::ioctl_write_int!(tun_set_iff, b'T', 202);
nix::ioctl_write_ptr!(tun_set_vnet_hdr_size, b'T', 216, libc::c_int);

/// A tap attached to a network.
#[derive(Debug)]
pub struct Tap {
    /// Reads and writes Ethernet frames, each behind a 12-byte virtio network header; non-blocking,
    /// close-on-exec. The tap disappears when the last copy is closed.
    pub fd: OwnedFd,
    /// The same for its further queues: the kernel hands each frame to one of them.
    pub further: Vec<OwnedFd>,
    /// Kernel name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
}

/// The kernel name of the tap with that key: `lgt` and 12 hex digits, the longest a name can be.
#[must_use]
pub fn tap_name(key: &str) -> String {
    // FNV-1a: stable over versions, which a restarted manager of a newer version relies on. A collision
    // between two running guests is answered with `NameTaken`, never with a shared tap.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{TAP_PREFIX}{:012x}", hash >> 16)
}

/// Creates a tap of one or more queues that is down and attached to nothing.
pub(super) fn create(name: &str, queues: u8) -> Result<(OwnedFd, Vec<OwnedFd>), NetError> {
    let several = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    // The first makes it, and the others are added to it.
    let first = open_queue(name, several | libc::IFF_TUN_EXCL)?;
    let further = (1..queues).map(|_| open_queue(name, several));
    Ok((first, further.collect::<Result<_, _>>()?))
}

/// Opens a queue of a tap, which has it from now on.
fn open_queue(name: &str, flags: libc::c_int) -> Result<OwnedFd, NetError> {
    let file = open_device(TUN_DEVICE, "tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags;
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::from_ne_bytes([flags.to_ne_bytes()[0], flags.to_ne_bytes()[1]]);
    let address = std::ptr::from_mut(&mut request).expose_provenance() as libc::c_ulong;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq at the address given, which
    // outlives the call.
    unsafe { tun_set_iff(file.as_raw_fd(), address) }.map_err(|errno| match errno {
        nix::Error::EBUSY | nix::Error::EEXIST => NetError::NameTaken {
            what: "tap",
            name: name.to_owned(),
        },
        other => failed(&format!("create tap {name}"), &other.into()),
    })?;
    // SAFETY: the descriptor is open, and TUNSETVNETHDRSZ reads one int at the address given.
    unsafe { tun_set_vnet_hdr_size(file.as_raw_fd(), &VNET_HEADER_LEN) }
        .map_err(|errno| failed(&format!("set the header size of tap {name}"), &errno.into()))?;
    Ok(file.into())
}

/// Opens `/dev/vhost-net`; `Ok(None)` on machines without it, where the monitor moves the frames itself.
///
/// # Errors
/// [`NetError::Permission`], or another error opening a device that is there.
pub fn open_vhost_net() -> Result<Option<OwnedFd>, NetError> {
    match open_device(VHOST_DEVICE, "vhost_net") {
        Ok(file) => Ok(Some(file.into())),
        Err(NetError::DeviceMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_device(path: &'static str, module: &'static str) -> Result<File, NetError> {
    let opened = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(Path::new(path));
    opened.map_err(|error| match error.raw_os_error() {
        // The file is there but no driver answers behind it.
        Some(libc::ENODEV | libc::ENXIO) => NetError::DeviceMissing { path, module },
        _ if error.kind() == io::ErrorKind::NotFound => NetError::DeviceMissing { path, module },
        _ => failed(&format!("open {path}"), &error),
    })
}

fn failed(action: &str, error: &io::Error) -> NetError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NetError::Permission {
            action: action.to_owned(),
        },
        errno => NetError::Kernel {
            action: action.to_owned(),
            problem: error.to_string(),
            errno,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_are_stable_and_fit() {
        let name = tap_name("6b4c0a0e-52a1-4b0e-9b8e-000000000000/0");
        assert_eq!(name.len(), libc::IFNAMSIZ - 1);
        assert_eq!(name, tap_name("6b4c0a0e-52a1-4b0e-9b8e-000000000000/0"));
        assert_ne!(name, tap_name("6b4c0a0e-52a1-4b0e-9b8e-000000000000/1"));
        assert_eq!(tap_name(""), "lgtcbf29ce48422");
    }
}
