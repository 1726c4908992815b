//! vhost-net: the kernel moves the packets.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::tap::Tap;
use crate::virtio::vhost::{Switch, VHOST, Vring};

nix::ioctl_write_ptr!(set_backend, VHOST, 0x30, Vring);

/// Connects both queues to the tap.
pub(super) struct Cable(pub(super) Arc<Tap>);

impl Switch for Cable {
    const NAME: &'static str = "vhost-net";

    /// The layout of the rings and the header. Offloads are the tap's business.
    const FEATURES: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF
        | 1 << VIRTIO_RING_F_INDIRECT_DESC
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | 1 << VIRTIO_F_VERSION_1;

    fn on(&self, vhost: BorrowedFd<'_>) -> io::Result<()> {
        let tap = self.0.as_fd().as_raw_fd();
        attach(vhost, 0, tap)?;
        attach(vhost, 1, tap)
    }

    fn off(&self, vhost: BorrowedFd<'_>) -> io::Result<()> {
        attach(vhost, 0, -1)?;
        attach(vhost, 1, -1)
    }
}

/// Attaches a queue to the tap, or with -1 to nothing, after which its packets are through.
fn attach(vhost: BorrowedFd<'_>, index: u32, tap: RawFd) -> io::Result<()> {
    let backend = Vring { index, value: tap };
    // SAFETY: the ioctl reads the structure it is given.
    unsafe { set_backend(vhost.as_raw_fd(), &raw const backend) }?;
    Ok(())
}
