//! A tap: the host's end of a guest's network cable, whatever card the guest has at its own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};

/// Bytes in front of each packet (`struct virtio_net_hdr_v1`).
pub(crate) const HEADER_BYTES: usize = 12;

/// Header, Ethernet header with VLAN tag, and the largest segment a tap hands out.
pub(crate) const MAX_PACKET: usize = HEADER_BYTES + 18 + 65_535;

const IFF_TAP: i16 = 0x2;
const IFF_ATTACH_QUEUE: i16 = 0x200;
const IFF_DETACH_QUEUE: i16 = 0x400;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

/// Addresses that a tap's filter knows exactly, the first of its list. Of those behind them it knows groups only, and these roughly.
pub(crate) const EXACT_ADDRESSES_OF_FILTER: usize = 8;

/// Most addresses of a tap's filter here.
pub(crate) const ADDRESSES_OF_FILTER: usize = 80;

/// `TUN_FLT_ALLMULTI` of `linux/if_tun.h`.
const ALL_MULTICAST: u16 = 1;

/// Destinations of the packets that a tap hands over, as far as it can tell them apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TapFilter {
    /// All groups, too.
    pub all_multicast: bool,
    /// At most [`ADDRESSES_OF_FILTER`]; everything where there are none.
    pub addresses: Vec<[u8; 6]>,
}

/// `struct tun_filter` of `linux/if_tun.h`, with its addresses.
#[repr(C)]
struct TunFilter {
    flags: u16,
    count: u16,
    addresses: [[u8; 6]; ADDRESSES_OF_FILTER],
}

mod ioctl {
    // linux/if_tun.h
    nix::ioctl_read_bad!(
        tungetiff,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        tunsetoffload,
        nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
    nix::ioctl_write_ptr_bad!(
        tunsetvnethdrsz,
        nix::request_code_write!(b'T', 216, size_of::<libc::c_int>()),
        libc::c_int
    );
    nix::ioctl_write_ptr_bad!(
        tunsettxfilter,
        // The size in the number is another's.
        nix::request_code_write!(b'T', 209, size_of::<libc::c_uint>()),
        super::TunFilter
    );
    nix::ioctl_write_ptr_bad!(
        tunsetqueue,
        nix::request_code_write!(b'T', 217, size_of::<libc::c_int>()),
        libc::ifreq
    );
}

/// An attached tap that carries a header in front of each packet.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
}

impl Tap {
    /// Checks what `fd` is and makes it non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let raw = fd.as_raw_fd();
        // SAFETY: `ifreq` is plain data, for which zeroes are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF fills the structure it is given.
        unsafe { ioctl::tungetiff(raw, &raw mut request) }
            .map_err(|errno| refused("the descriptor is not an attached tap", errno))?;
        // SAFETY: TUNGETIFF fills the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let needed = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        if flags & needed != needed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the tap has flags {flags:#x}; open it with TAP, NO_PI and VNET_HDR ({needed:#x})"
                ),
            ));
        }
        let size = HEADER_BYTES as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads the integer.
        unsafe { ioctl::tunsetvnethdrsz(raw, &raw const size) }
            .map_err(|errno| refused("setting the tap's header size", errno))?;
        Self::carrying(fd)
    }

    /// Takes `fd` for something that carries packets, and makes it non-blocking.
    pub(super) fn carrying(fd: OwnedFd) -> io::Result<Self> {
        let flags = nix::fcntl::fcntl(&fd, FcntlArg::F_GETFL)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&fd, FcntlArg::F_SETFL(flags))?;
        Ok(Self { fd })
    }

    /// Sets which offloads (`TUN_F_*`) packets for the guest may need.
    pub fn set_offload(&self, flags: u32) -> io::Result<()> {
        // There a socket stands for the tap.
        #[cfg(feature = "fuzzing")]
        if crate::fuzzing::by_hand() {
            return Ok(());
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        unsafe { ioctl::tunsetoffload(self.fd.as_raw_fd(), flags.cast_signed()) }?;
        Ok(())
    }

    /// Has the tap, all its queues included, hand over no more than `filter` says. After an error it does as before.
    pub fn set_filter(&self, filter: &TapFilter) -> io::Result<()> {
        // There a socket stands for the tap.
        #[cfg(feature = "fuzzing")]
        if crate::fuzzing::by_hand() {
            return Ok(());
        }
        let count = filter.addresses.len();
        let mut request = TunFilter {
            flags: u16::from(filter.all_multicast) * ALL_MULTICAST,
            count: count as u16,
            addresses: [[0; 6]; ADDRESSES_OF_FILTER],
        };
        let Some(room) = request.addresses.get_mut(..count) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        room.copy_from_slice(&filter.addresses);
        // SAFETY: TUNSETTXFILTER reads the structure, and behind its beginning as many addresses as that says, which are there.
        unsafe { ioctl::tunsettxfilter(self.fd.as_raw_fd(), &raw const request) }?;
        Ok(())
    }

    /// Has the kernel hand packets to this queue of a tap with several, or none. It is one or the other already, and the tap was
    /// opened with `IFF_MULTI_QUEUE`. A queue that gets none loses those it had, and reads and writes of it fail.
    pub fn set_attached(&self, attached: bool) -> io::Result<()> {
        // There a socket stands for the tap.
        #[cfg(feature = "fuzzing")]
        if crate::fuzzing::by_hand() {
            return Ok(());
        }
        // SAFETY: `ifreq` is plain data, for which zeroes are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = if attached {
            IFF_ATTACH_QUEUE
        } else {
            IFF_DETACH_QUEUE
        };
        // SAFETY: TUNSETQUEUE reads the structure.
        unsafe { ioctl::tunsetqueue(self.fd.as_raw_fd(), &raw const request) }?;
        Ok(())
    }

    /// Takes the next packet with its header; `None` when there is none.
    pub fn receive(&self, packet: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(&self.fd, packet) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a packet with its header in front.
    pub fn send_packet(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.fd, packet)?;
        Ok(())
    }

    /// Sends the header and packet in `buffers`.
    ///
    /// # Safety
    /// The buffers must be valid for reads during the call.
    pub unsafe fn send(&self, buffers: &[libc::iovec]) -> io::Result<()> {
        // SAFETY: by this function's contract.
        let result = unsafe {
            libc::writev(
                self.fd.as_raw_fd(),
                buffers.as_ptr(),
                buffers.len() as libc::c_int,
            )
        };
        Errno::result(result)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn refused(what: &str, errno: Errno) -> io::Error {
    io::Error::new(io::Error::from(errno).kind(), format!("{what}: {errno}"))
}
