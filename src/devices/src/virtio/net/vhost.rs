//! vhost-net: the kernel moves the packets.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::link::Tap;
use crate::GuestMemory;
use crate::virtio::ActiveQueue;

/// Features that change what vhost itself does: the layout of the rings and the header.
/// Offloads are the tap's business.
const FEATURES: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_F_VERSION_1;

/// Regions of guest memory the kernel takes (its default limit).
const MAX_REGIONS: usize = 64;

/// `struct vhost_vring_state` and `struct vhost_vring_file`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Vring {
    index: u32,
    value: i32,
}

/// `struct vhost_vring_addr`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Addresses {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_memory_region`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Region {
    guest: u64,
    size: u64,
    host: u64,
    flags: u64,
}

/// `struct vhost_memory`.
#[repr(C)]
pub(super) struct Table {
    count: u32,
    padding: u32,
    regions: [Region; MAX_REGIONS],
}

// As `linux/vhost.h` lays them out; the sizes are part of the ioctl numbers.
const _: () = assert!(size_of::<Vring>() == 8 && size_of::<Addresses>() == 40);
const _: () = assert!(size_of::<Region>() == 32 && size_of::<Table>() == 8 + 32 * MAX_REGIONS);

mod ioctl {
    // linux/vhost.h
    use super::{Addresses, Table, Vring};
    const VHOST: u8 = 0xaf;
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
    nix::ioctl_write_ptr!(set_backend, VHOST, 0x30, Vring);
}

/// An open `/dev/vhost-net`, owned by this process.
pub(super) struct Vhost {
    fd: OwnedFd,
    features: u64,
    active: Option<Active>,
}

/// What is needed to stop.
struct Active {
    memory: GuestMemory,
    queues: [ActiveQueue; 2],
}

impl Vhost {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut features = 0;
        // SAFETY: the ioctl fills the integer it is given.
        unsafe { ioctl::get_features(fd.as_raw_fd(), &raw mut features) }?;
        if features & FEATURES != FEATURES {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the host's vhost-net has features {features:#x}, {FEATURES:#x} are needed"
                ),
            ));
        }
        // SAFETY: no argument. It ties vhost to this process's address space.
        unsafe { ioctl::set_owner(fd.as_raw_fd()) }?;
        Ok(Self {
            fd,
            features,
            active: None,
        })
    }

    /// Hands the queues to the kernel.
    pub fn start(
        &mut self,
        tap: &Tap,
        memory: &GuestMemory,
        features: u64,
        queues: [ActiveQueue; 2],
    ) -> io::Result<()> {
        let features = features & FEATURES & self.features;
        let fd = self.fd.as_raw_fd();
        let table = memory_table(memory)?;
        // SAFETY: the ioctls read the structures they are given. The kernel accesses guest
        // memory through the table, as the guest itself may at any time; `self.active` keeps it
        // mapped until the back ends are taken away.
        unsafe {
            ioctl::set_features(fd, &raw const features)?;
            ioctl::set_mem_table(fd, &raw const *table)?;
        }
        for (index, queue) in queues.iter().enumerate() {
            self.set_up(index as u32, queue, memory)?;
        }
        // From here on the kernel may touch guest memory.
        self.active = Some(Active {
            memory: memory.clone(),
            queues,
        });
        let started = (0..2).try_for_each(|index| self.set_backend(index, tap.as_fd().as_raw_fd()));
        if let Err(error) = started {
            self.stop();
            return Err(error);
        }
        if let Some(active) = &self.active {
            for queue in &active.queues {
                // A kick from before the activation may have been lost; a false one does no harm.
                queue.kick.write(1)?;
            }
        }
        Ok(())
    }

    /// Takes the queues back. The kernel touches guest memory no more afterwards.
    pub fn stop(&mut self) -> Vec<Queue> {
        let Some(Active { memory, queues }) = self.active.take() else {
            return Vec::new();
        };
        let mut stopped = Vec::new();
        for (index, active) in queues.into_iter().enumerate() {
            let index = index as u32;
            let mut queue = active.queue;
            // Neither fails on a device that has an owner, which `new` saw to.
            if let Err(error) = self.set_backend(index, -1) {
                tracing::error!(%error, "vhost-net cannot be stopped");
                std::process::abort();
            }
            let mut base = Vring { index, value: 0 };
            // SAFETY: the ioctl fills the structure it is given.
            match unsafe { ioctl::get_vring_base(self.fd.as_raw_fd(), &raw mut base) } {
                Ok(_) => queue.set_next_avail(base.value as u16),
                Err(error) => tracing::error!(%error, "vhost-net does not tell where it stopped"),
            }
            // The kernel keeps the used index where the driver sees it, and nowhere else.
            let used = GuestAddress(queue.used_ring().saturating_add(2));
            if let Ok(used) = memory.load::<u16>(used, Ordering::Acquire) {
                queue.set_next_used(u16::from_le(used));
            }
            stopped.push(queue);
        }
        stopped
    }

    fn set_up(&self, index: u32, active: &ActiveQueue, memory: &GuestMemory) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        let queue = &active.queue;
        let size = u64::from(queue.size());
        let vring = |value: i32| Vring { index, value };
        let number = vring(i32::from(queue.size()));
        let base = vring(i32::from(queue.next_avail()));
        let addresses = Addresses {
            index,
            flags: 0,
            descriptors: host_address(memory, queue.desc_table(), 16 * size)?,
            used: host_address(memory, queue.used_ring(), 6 + 8 * size)?,
            available: host_address(memory, queue.avail_ring(), 6 + 2 * size)?,
            log: 0,
        };
        let kick = vring(active.kick.as_raw_fd());
        let call = vring(active.interrupt.irqfd().as_raw_fd());
        // SAFETY: the ioctls read the structures they are given, and take references of their
        // own to the descriptors in them.
        unsafe {
            ioctl::set_vring_num(fd, &raw const number)?;
            ioctl::set_vring_base(fd, &raw const base)?;
            ioctl::set_vring_addr(fd, &raw const addresses)?;
            ioctl::set_vring_kick(fd, &raw const kick)?;
            ioctl::set_vring_call(fd, &raw const call)?;
        }
        Ok(())
    }

    /// Attaches a queue to the tap, or with -1 to nothing, after which its packets are through.
    fn set_backend(&self, index: u32, tap: RawFd) -> io::Result<()> {
        let backend = Vring { index, value: tap };
        // SAFETY: the ioctl reads the structure it is given.
        unsafe { ioctl::set_backend(self.fd.as_raw_fd(), &raw const backend) }?;
        Ok(())
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.stop();
    }
}

fn memory_table(memory: &GuestMemory) -> io::Result<Box<Table>> {
    let mut table = Box::new(Table {
        count: 0,
        padding: 0,
        regions: [Region::default(); MAX_REGIONS],
    });
    for region in memory.iter() {
        let start = region.start_addr();
        let Some(slot) = table.regions.get_mut(table.count as usize) else {
            return Err(io::Error::other("guest memory has too many regions"));
        };
        *slot = Region {
            guest: start.0,
            size: region.len(),
            host: host_address(memory, start.0, region.len())?,
            flags: 0,
        };
        table.count += 1;
    }
    Ok(table)
}

/// Where a range of guest memory, in one region, lies in this process.
fn host_address(memory: &GuestMemory, address: u64, length: u64) -> io::Result<u64> {
    let address = GuestAddress(address);
    let slice = GuestMemoryBackend::get_slice(memory, address, length as usize)
        .ok()
        .filter(|slice| slice.len() as u64 == length)
        .ok_or_else(|| io::Error::other("a ring is not in one piece of guest memory"))?;
    Ok(slice.ptr_guard_mut().as_ptr() as u64)
}
