//! Checksum and segmentation offloads: what the driver may leave to the host and the host to it.

use virtio_bindings::virtio_net as abi;

/// Offloads offered in both directions. UDP fragmentation is left out: Linux dropped it.
pub(super) const FEATURES: u64 = 1 << abi::VIRTIO_NET_F_CSUM
    | 1 << abi::VIRTIO_NET_F_HOST_TSO4
    | 1 << abi::VIRTIO_NET_F_HOST_TSO6
    | 1 << abi::VIRTIO_NET_F_HOST_ECN
    | 1 << abi::VIRTIO_NET_F_GUEST_CSUM
    | 1 << abi::VIRTIO_NET_F_GUEST_TSO4
    | 1 << abi::VIRTIO_NET_F_GUEST_TSO6
    | 1 << abi::VIRTIO_NET_F_GUEST_ECN;

/// `TUN_F_*` of `linux/if_tun.h`.
const CSUM: u32 = 1;
const TSO4: u32 = 2;
const TSO6: u32 = 4;
const TSO_ECN: u32 = 8;

/// What the tap may leave undone in packets for a driver that accepted `features`.
pub(super) fn tap_flags(features: u64) -> u32 {
    let accepted = |feature: u32| features & (1 << feature) != 0;
    // Everything rests on partial checksums (virtio 1.2, 5.1.3.1); a driver that
    // accepts the rest without them gets nothing.
    if !accepted(abi::VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let mut flags = CSUM;
    if accepted(abi::VIRTIO_NET_F_GUEST_TSO4) {
        flags |= TSO4;
    }
    if accepted(abi::VIRTIO_NET_F_GUEST_TSO6) {
        flags |= TSO6;
    }
    if flags & (TSO4 | TSO6) != 0 && accepted(abi::VIRTIO_NET_F_GUEST_ECN) {
        flags |= TSO_ECN;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_the_driver_accepted() {
        assert_eq!(tap_flags(0), 0);
        assert_eq!(tap_flags(FEATURES), CSUM | TSO4 | TSO6 | TSO_ECN);
        let without_checksums = FEATURES & !(1 << abi::VIRTIO_NET_F_GUEST_CSUM);
        assert_eq!(tap_flags(without_checksums), 0);
        let ecn_only = 1 << abi::VIRTIO_NET_F_GUEST_CSUM | 1 << abi::VIRTIO_NET_F_GUEST_ECN;
        assert_eq!(tap_flags(ecn_only), CSUM);
    }
}
