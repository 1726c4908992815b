//! A driver's side of a queue, for tests of devices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::wait::borrow;
use super::{ActiveQueue, DeviceEvents, QueueInterrupt};
use crate::GuestMemory;

/// How long a test waits before it calls a device hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

pub fn readable(address: u64, length: u32) -> Piece {
    Piece {
        address,
        length,
        writable: false,
    }
}

pub fn writable(address: u64, length: u32) -> Piece {
    Piece {
        address,
        length,
        writable: true,
    }
}

/// The interrupt of a queue, as an event that counts.
pub struct TestInterrupt(pub EventFd);

impl QueueInterrupt for TestInterrupt {
    fn notify(&self) {
        self.0.write(1).unwrap();
    }

    fn irqfd(&self) -> std::os::fd::BorrowedFd<'_> {
        borrow(&self.0)
    }
}

/// What a device says about itself.
#[derive(Default)]
pub struct TestEvents {
    broken: Mutex<Option<String>>,
    changed: Mutex<bool>,
    failures: Mutex<Vec<String>>,
    condition: std::sync::Condvar,
}

impl TestEvents {
    /// Waits for `needs_reset`.
    pub fn wait_broken(&self) -> String {
        let guard = self.broken.lock().unwrap();
        let (guard, timeout) = self
            .condition
            .wait_timeout_while(guard, PATIENCE, |why| why.is_none())
            .unwrap();
        assert!(!timeout.timed_out(), "the device did not ask for a reset");
        guard.clone().unwrap()
    }

    pub fn broken(&self) -> bool {
        self.broken.lock().unwrap().is_some()
    }

    /// What the host failed at.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub fn take_changed(&self) -> bool {
        std::mem::take(&mut *self.changed.lock().unwrap())
    }
}

impl DeviceEvents for TestEvents {
    fn config_changed(&self) {
        *self.changed.lock().unwrap() = true;
    }

    fn needs_reset(&self, why: &str) {
        *self.broken.lock().unwrap() = Some(why.to_owned());
        self.condition.notify_all();
    }

    fn host_failed(&self, what: &str) {
        self.failures.lock().unwrap().push(what.to_owned());
    }
}

/// The driver's side of one split queue.
pub struct DriverQueue {
    pub memory: GuestMemory,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub kick: EventFd,
    pub interrupt: Arc<TestInterrupt>,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
    next_available: u16,
    next_used: u16,
}

impl DriverQueue {
    /// Rings at `base`; they take 64 bytes per entry at most.
    pub fn new(memory: &GuestMemory, base: u64, size: u16) -> Self {
        let descriptors = base;
        let available = descriptors + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self {
            memory: memory.clone(),
            size,
            descriptors,
            available,
            used,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            interrupt: Arc::new(TestInterrupt(EventFd::new(EFD_NONBLOCK).unwrap())),
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            next_available: 0,
            next_used: 0,
        }
    }

    /// The device's side, at its beginning.
    pub fn device_side(&self) -> ActiveQueue {
        self.device_side_at(0, 0)
    }

    /// The device's side as if `available` and `used` chains had gone by.
    pub fn device_side_at(&self, available: u16, used: u16) -> ActiveQueue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_size(self.size);
        let split = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = split(self.descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = split(self.available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = split(self.used);
        queue.set_used_ring_address(low, high);
        queue.set_next_avail(available);
        queue.set_next_used(used);
        queue.set_ready(true);
        self.activation(queue)
    }

    /// The device's side with a queue it gave back.
    pub fn activation(&self, queue: Queue) -> ActiveQueue {
        ActiveQueue {
            queue,
            unfinished: Vec::new(),
            kick: self.kick.try_clone().unwrap(),
            interrupt: Arc::clone(&self.interrupt) as _,
        }
    }

    pub fn put_descriptor(&self, table: u64, index: u16, piece: Piece, flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        let flags = flags | if piece.writable { WRITE } else { 0 };
        self.memory
            .write_obj(piece.address, GuestAddress(at))
            .unwrap();
        self.memory
            .write_obj(piece.length, GuestAddress(at + 8))
            .unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Starts both rings at `index` instead of 0, with nothing in them.
    pub fn start_at(&mut self, index: u16) -> ActiveQueue {
        (self.next_available, self.next_used) = (index, index);
        self.publish(index);
        let used = GuestAddress(self.used + 2);
        self.memory.write_obj(index, used).unwrap();
        self.want_interrupt();
        self.device_side_at(index, index)
    }

    /// As [`DriverQueue::offer`], with the chain in an indirect table at `table`.
    pub fn offer_indirect(&mut self, table: u64, pieces: &[Piece]) -> Option<u16> {
        for (index, piece) in (0..).zip(pieces) {
            let last = usize::from(index) + 1 == pieces.len();
            let flags = if last { 0 } else { NEXT };
            self.put_descriptor(table, index, *piece, flags, index + 1);
        }
        let head = self.free.pop()?;
        let reference = readable(table, 16 * pieces.len() as u32);
        self.put_descriptor(self.descriptors, head, reference, INDIRECT, 0);
        self.chains[usize::from(head)] = vec![head];
        self.make_available(head);
        Some(head)
    }

    /// The head that the next chain gets.
    pub fn next_head(&self) -> u16 {
        *self.free.last().unwrap()
    }

    /// Makes a chain available, without a kick; `None` when there are too few descriptors.
    pub fn offer(&mut self, pieces: &[Piece]) -> Option<u16> {
        if pieces.len() > self.free.len() {
            return None;
        }
        let indices: Vec<u16> = pieces.iter().map(|_| self.free.pop().unwrap()).collect();
        for (position, piece) in pieces.iter().enumerate() {
            let next = indices.get(position + 1).copied();
            let flags = if next.is_some() { NEXT } else { 0 };
            let table = self.descriptors;
            self.put_descriptor(table, indices[position], *piece, flags, next.unwrap_or(0));
        }
        let head = indices[0];
        self.chains[usize::from(head)] = indices;
        self.make_available(head);
        Some(head)
    }

    /// Puts a head into the available ring, whatever it is.
    pub fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.memory
            .write_obj(head, GuestAddress(self.available + 4 + 2 * slot))
            .unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        self.publish(self.next_available);
    }

    /// Sets the index of the available ring, whatever it is.
    pub fn publish(&self, index: u16) {
        let order = std::sync::atomic::Ordering::Release;
        self.memory
            .store(index, GuestAddress(self.available + 2), order)
            .unwrap();
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Sets `used_event` so that the very next returned chain interrupts.
    fn want_interrupt(&self) {
        let event = self.available + 4 + 2 * u64::from(self.size);
        self.memory
            .write_obj(self.next_used, GuestAddress(event))
            .unwrap();
    }

    /// The next returned chain and the bytes written into it.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        let order = std::sync::atomic::Ordering::Acquire;
        let index: u16 = self
            .memory
            .load(GuestAddress(self.used + 2), order)
            .unwrap();
        if index == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        let at = self.used + 4 + 8 * slot;
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let written: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        self.want_interrupt();
        let head = head as u16;
        let indices = std::mem::take(&mut self.chains[usize::from(head)]);
        self.free.extend(indices);
        Some((head, written))
    }

    /// Sleeps until there is an interrupt, and leaves it there.
    pub fn wait_interrupt(&self) {
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        let fd = borrow(&self.interrupt.0);
        let ready = nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout);
        assert_eq!(ready, Ok(1), "no interrupt");
    }

    /// The next returned chain, sleeping until the interrupt that announces it.
    pub fn wait_used(&mut self) -> (u16, u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.take_used() {
                return used;
            }
            assert!(Instant::now() < deadline, "interrupts announce nothing");
            self.wait_interrupt();
            self.interrupt.0.read().unwrap();
        }
    }
}
