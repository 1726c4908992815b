//! What `linux/vhost.h` says: structures and requests that all kinds of vhost have.

/// Regions of guest memory the kernel takes (its default limit).
pub(super) const MAX_REGIONS: usize = 64;

/// `struct vhost_vring_state` and `struct vhost_vring_file`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Vring {
    pub(crate) index: u32,
    pub(crate) value: i32,
}

/// `struct vhost_vring_addr`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Addresses {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) descriptors: u64,
    pub(super) used: u64,
    pub(super) available: u64,
    pub(super) log: u64,
}

/// `struct vhost_memory_region`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Region {
    pub(super) guest: u64,
    pub(super) size: u64,
    pub(super) host: u64,
    pub(super) flags: u64,
}

/// `struct vhost_memory`.
#[repr(C)]
pub(super) struct Table {
    pub(super) count: u32,
    pub(super) padding: u32,
    pub(super) regions: [Region; MAX_REGIONS],
}

// As the header lays them out; the sizes are part of the ioctl numbers.
const _: () = assert!(size_of::<Vring>() == 8 && size_of::<Addresses>() == 40);
const _: () = assert!(size_of::<Region>() == 32 && size_of::<Table>() == 8 + 32 * MAX_REGIONS);

/// Type of all of vhost's requests.
pub(crate) const VHOST: u8 = 0xaf;

pub(super) mod ioctl {
    use super::{Addresses, Table, VHOST, Vring};
    nix::ioctl_read!(get_features, VHOST, 0x00, u64);
    nix::ioctl_write_ptr!(set_features, VHOST, 0x00, u64);
    nix::ioctl_none!(set_owner, VHOST, 0x01);
    // The size in the number is that of the structure without its regions.
    nix::ioctl_write_ptr_bad!(
        set_mem_table,
        nix::request_code_write!(VHOST, 0x03, 8),
        Table
    );
    nix::ioctl_write_ptr!(set_vring_num, VHOST, 0x10, Vring);
    nix::ioctl_write_ptr!(set_vring_addr, VHOST, 0x11, Addresses);
    nix::ioctl_write_ptr!(set_vring_base, VHOST, 0x12, Vring);
    nix::ioctl_readwrite!(get_vring_base, VHOST, 0x12, Vring);
    nix::ioctl_write_ptr!(set_vring_kick, VHOST, 0x20, Vring);
    nix::ioctl_write_ptr!(set_vring_call, VHOST, 0x21, Vring);
}
