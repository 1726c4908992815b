//! Configuration space of a network device (`struct virtio_net_config`, virtio 1.2, 5.1.4).

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use super::Options;
use super::filter::Mac;

/// Up to and including the MTU; later fields belong to features not offered.
const BYTES: usize = 12;

/// What changes in it, or is another's.
pub(super) struct Now {
    /// The address that the driver has set, or was given.
    pub mac: Mac,
    /// The link is up.
    pub up: bool,
    /// Pairs of queues.
    pub pairs: u16,
}

/// Copies what lies inside the structure.
pub(super) fn read(options: Options, now: &Now, offset: u64, data: &mut [u8]) {
    let mut space = [0; BYTES];
    space[..6].copy_from_slice(&now.mac);
    let status = if now.up {
        VIRTIO_NET_S_LINK_UP as u16
    } else {
        0
    };
    space[6..8].copy_from_slice(&status.to_le_bytes());
    space[8..10].copy_from_slice(&now.pairs.to_le_bytes());
    space[10..12].copy_from_slice(&options.mtu.to_le_bytes());
    let Some(rest) = usize::try_from(offset)
        .ok()
        .and_then(|offset| space.get(offset..))
    else {
        return;
    };
    let count = rest.len().min(data.len());
    data[..count].copy_from_slice(&rest[..count]);
}
