//! vhost-vsock: the kernel moves what connections carry.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use super::{Carrier, SEQPACKET};
use crate::GuestMemory;
use crate::virtio::ActiveQueue;
use crate::virtio::vhost::{Switch, VHOST, Vhost};

mod ioctl {
    // linux/vhost.h
    use super::VHOST;
    nix::ioctl_write_ptr!(set_guest_cid, VHOST, 0x60, u64);
    nix::ioctl_write_ptr!(set_running, VHOST, 0x61, libc::c_int);
}

/// Runs both queues, or neither.
pub(super) struct Running;

impl Switch for Running {
    const NAME: &'static str = "vhost-vsock";

    const FEATURES: u64 =
        1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_F_VERSION_1;

    fn on(&self, vhost: BorrowedFd<'_>) -> io::Result<()> {
        set_running(vhost, 1)
    }

    fn off(&self, vhost: BorrowedFd<'_>) -> io::Result<()> {
        set_running(vhost, 0)
    }
}

fn set_running(vhost: BorrowedFd<'_>, running: libc::c_int) -> io::Result<()> {
    // SAFETY: the ioctl reads the integer.
    unsafe { ioctl::set_running(vhost.as_raw_fd(), &raw const running) }?;
    Ok(())
}

/// Makes `fd` ours, for the guest with the address `cid`.
pub(super) fn open(fd: OwnedFd, cid: u32) -> io::Result<Vhost<Running>> {
    let address = u64::from(cid);
    // SAFETY: the ioctl reads the integer.
    let set = unsafe { ioctl::set_guest_cid(fd.as_raw_fd(), &raw const address) };
    set.map_err(|errno| match errno {
        Errno::EADDRINUSE => io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another guest of this host has the vsock address {cid}"),
        ),
        Errno::ENOTTY => io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is not vhost-vsock",
        ),
        errno => errno.into(),
    })?;
    Vhost::new(fd, Running)
}

impl Carrier for Vhost<Running> {
    fn features(&self) -> u64 {
        Vhost::features(self)
    }

    fn start(
        &mut self,
        memory: &GuestMemory,
        features: u64,
        queues: Vec<ActiveQueue>,
    ) -> io::Result<()> {
        let features = features & (Running::FEATURES | SEQPACKET) & Vhost::features(self);
        Vhost::start(self, memory, features, queues).map_err(|refused| refused.error)
    }

    fn stop(&mut self) -> Vec<Queue> {
        let queues = Vhost::stop(self).into_iter();
        queues.map(|active| active.queue).collect()
    }
}
