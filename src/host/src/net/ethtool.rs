//! What a link's driver says about its hardware (`linux/ethtool.h`).
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_SETTINGS: u32 = 0x01;
const GET_DRIVER: u32 = 0x03;
/// Sizes of `struct ethtool_cmd` and `struct ethtool_drvinfo`.
const SETTINGS_LEN: usize = 44;
const DRIVER_LEN: usize = 196;

/// The name of a link's driver.
pub(super) fn driver(link: &str) -> Option<String> {
    let reply = query::<DRIVER_LEN>(link, GET_DRIVER)?;
    let name = reply.get(4..36)?;
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    let name = str::from_utf8(&name[..end]).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A link's speed in Mbit/s, if its driver knows.
pub(super) fn speed_mbps(link: &str) -> Option<u32> {
    let reply = query::<SETTINGS_LEN>(link, GET_SETTINGS)?;
    let half = |at: usize| {
        Some(u32::from(u16::from_ne_bytes(
            reply.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let speed = half(12)? | half(28)? << 16;
    // All ones, in 16 or in 32 bits, stand for "not known".
    (speed != 0 && speed != 0xffff && speed != u32::MAX).then_some(speed)
}

/// Asks the driver; `None` if the link, or the driver's answer, does not exist.
fn query<const LEN: usize>(link: &str, command: u32) -> Option<[u8; LEN]> {
    let socket = UnixDatagram::unbound().ok()?;
    let mut reply = [0_u8; LEN];
    reply[..4].copy_from_slice(&command.to_ne_bytes());
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(link.bytes())
    {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = reply.as_mut_ptr().cast();
    // SAFETY: the descriptor is open; the kernel reads and writes the ifreq and, for these two commands, as many
    // bytes behind its data pointer as the structures are long, which is the length of `reply`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) };
    (result == 0).then_some(reply)
}
