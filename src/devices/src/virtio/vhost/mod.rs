//! Vhost: the kernel serves a device's queues.
//!
//! What kinds of vhost have in common is here: ownership, features, the table of guest memory, the
//! rings with their doorbells and interrupts. How a kind is set going, and halted, is its [`Switch`].
#![allow(unsafe_code)]

mod abi;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use self::abi::{Addresses, MAX_REGIONS, Region, Table, ioctl};
pub(super) use self::abi::{VHOST, Vring};
use super::ActiveQueue;
use crate::GuestMemory;

/// Sets one kind of vhost going once its rings are set up, and halts it.
pub(super) trait Switch: Send {
    /// What people call it, e.g. `vhost-net`.
    const NAME: &'static str;

    /// Features it must have: those that change what the kernel makes of the rings.
    const FEATURES: u64;

    /// Has `vhost` serve its rings. After an error it may serve some of them.
    fn on(&self, vhost: BorrowedFd<'_>) -> io::Result<()>;

    /// Has `vhost` leave its rings and guest memory alone, from the return of this call on.
    fn off(&self, vhost: BorrowedFd<'_>) -> io::Result<()>;
}

/// An open vhost device, owned by this process.
pub(super) struct Vhost<S: Switch> {
    fd: OwnedFd,
    features: u64,
    switch: S,
    active: Option<Active>,
}

/// Queues that the kernel does not serve, and why.
pub(super) struct Refused {
    /// What went wrong.
    pub(super) error: io::Error,
    /// The queues, which are the caller's again.
    pub(super) queues: Vec<ActiveQueue>,
}

/// What is needed to stop.
struct Active {
    memory: GuestMemory,
    queues: Vec<ActiveQueue>,
}

impl<S: Switch> Vhost<S> {
    /// Makes `fd` ours.
    ///
    /// # Errors
    /// When it is no vhost device or lacks a feature.
    pub fn new(fd: OwnedFd, switch: S) -> io::Result<Self> {
        let mut features = 0;
        // SAFETY: the ioctl fills the integer it is given.
        unsafe { ioctl::get_features(fd.as_raw_fd(), &raw mut features) }?;
        let (name, needed) = (S::NAME, S::FEATURES);
        if features & needed != needed {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the host's {name} has features {features:#x}, {needed:#x} are needed"),
            ));
        }
        // SAFETY: no argument. It ties vhost to this process's address space.
        unsafe { ioctl::set_owner(fd.as_raw_fd()) }?;
        Ok(Self {
            fd,
            features,
            switch,
            active: None,
        })
    }

    /// Features the kernel has.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Hands the queues to the kernel, in the order of their indices.
    pub fn start(
        &mut self,
        memory: &GuestMemory,
        features: u64,
        queues: Vec<ActiveQueue>,
    ) -> Result<(), Refused> {
        if let Err(error) = self.set_up_all(memory, features, &queues) {
            return Err(Refused { error, queues });
        }
        // From here on the kernel may touch guest memory.
        self.active = Some(Active {
            memory: memory.clone(),
            queues,
        });
        let on = self.switch.on(self.fd.as_fd());
        on.and_then(|()| self.kick_all()).map_err(|error| Refused {
            error,
            queues: self.stop(),
        })
    }

    fn set_up_all(
        &self,
        memory: &GuestMemory,
        features: u64,
        queues: &[ActiveQueue],
    ) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        let table = memory_table(memory)?;
        // SAFETY: the ioctls read the structures they are given. The kernel accesses guest
        // memory through the table, as the guest itself may at any time; `self.active` keeps it
        // mapped until the kernel is switched off.
        unsafe {
            ioctl::set_features(fd, &raw const features)?;
            ioctl::set_mem_table(fd, &raw const *table)?;
        }
        for (index, queue) in (0..).zip(queues) {
            self.set_up(index, queue, memory)?;
        }
        Ok(())
    }

    /// Has the kernel look at every queue: a kick from before may have been lost, and a false one does no harm.
    fn kick_all(&self) -> io::Result<()> {
        let active = self.active.iter();
        for queue in active.flat_map(|active| &active.queues) {
            queue.kick.write(1)?;
        }
        Ok(())
    }

    /// Takes the queues back. The kernel touches guest memory no more afterwards.
    pub fn stop(&mut self) -> Vec<ActiveQueue> {
        let Some(Active { memory, mut queues }) = self.active.take() else {
            return Vec::new();
        };
        // It does not fail on a device that has an owner, which `new` saw to.
        if let Err(error) = self.switch.off(self.fd.as_fd()) {
            tracing::error!(%error, "{} cannot be stopped", S::NAME);
            std::process::abort();
        }
        for (index, active) in (0..).zip(&mut queues) {
            self.came_to_rest(index, &mut active.queue, &memory);
        }
        queues
    }

    /// Gives a queue the indices at which the kernel left it.
    fn came_to_rest(&self, index: u32, queue: &mut Queue, memory: &GuestMemory) {
        let mut base = Vring { index, value: 0 };
        // SAFETY: the ioctl fills the structure it is given.
        match unsafe { ioctl::get_vring_base(self.fd.as_raw_fd(), &raw mut base) } {
            Ok(_) => queue.set_next_avail(base.value as u16),
            Err(error) => tracing::error!(%error, "{} does not tell where it stopped", S::NAME),
        }
        // The kernel keeps the used index where the driver sees it, and nowhere else.
        let used = GuestAddress(queue.used_ring().saturating_add(2));
        if let Ok(used) = memory.load::<u16>(used, Ordering::Acquire) {
            queue.set_next_used(u16::from_le(used));
        }
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
}

impl<S: Switch> Drop for Vhost<S> {
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
