//! Asynchronous access to one disk from one thread, by io_uring.
//!
//! The owner queues requests with a token of its choice and calls [`Engine::wait`],
//! which hands them to the kernel, sleeps until something completes or a watched
//! descriptor is signalled, and collects [`Completion`]s. Short transfers,
//! misaligned buffers and filesystems that lack a call are dealt with in here:
//! a request completes once, whole or with an error.
#![allow(unsafe_code)]

mod bounce;
mod inline;
mod operation;
mod ring;
mod spares;
mod transfer;
mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{squeue, types};

use self::bounce::Pool;
use self::operation::{Operation, Outcome, Step};
use self::spares::Lent;
pub use self::spares::Spares;
use self::transfer::{Direction, Transfer};
pub use self::watch::Fired;
use self::watch::Watches;
use crate::raw::RawDisk;

/// Most requests an engine can hold.
pub const MAX_DEPTH: u16 = 1024;

/// How long a trip into the kernel lasts that is not to sleep.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// The result of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: u64,
    /// Whether all of it was done.
    pub result: Result<(), IoError>,
}

/// A request that failed. A failed write may have changed any part of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The datastore is full. The same request succeeds once there is room.
    #[error("no space left on the datastore")]
    NoSpace,
    /// The file is shorter than it was: somebody cut it.
    #[error("the disk ends before its size")]
    EndOfFile,
    /// Any other error of the host, by number.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Host(i32),
}

impl IoError {
    fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOSPC | libc::EDQUOT => Self::NoSpace,
            errno => Self::Host(errno),
        }
    }
}

/// A request that was not accepted. It will not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests as the engine holds are under way.
    #[error("too many requests under way")]
    Full,
    /// The range is empty or passes the end of the disk.
    #[error("range {offset}+{length} is not inside the disk of {size} bytes")]
    Range {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// The range does not begin and end at logical blocks.
    #[error("range {offset}+{length} is not made of blocks of {block} bytes")]
    Misaligned {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Logical block size in bytes.
        block: u32,
    },
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
}

/// An io_uring on one disk.
///
/// Dropping it waits for what is under way: afterwards nothing touches the
/// buffers of any request.
pub struct Engine {
    ring: Lent,
    disk: Arc<RawDisk>,
    /// The disk is in memory: small steps are made on the spot.
    in_memory: bool,
    /// The last trip into the kernel was left out.
    stayed: bool,
    watches: Watches,
    slots: Vec<Option<Operation>>,
    free: Vec<u16>,
    /// Operations whose next step needs a place in the submission queue.
    ready: VecDeque<u16>,
    /// Operations whose next step needs a bounce buffer.
    starved: VecDeque<u16>,
    bounce: Pool,
    done: Vec<Completion>,
}

impl Engine {
    /// An engine that holds up to `depth` requests, at most [`MAX_DEPTH`].
    ///
    /// # Errors
    /// When the kernel refuses the ring.
    pub fn new(disk: Arc<RawDisk>, depth: u16) -> io::Result<Self> {
        Self::with_spares(disk, depth, &Spares::default())
    }

    /// As [`Engine::new`], with one of the `spares` for a ring, if there is one left that fits. When the engine ends, its
    /// ring is one of them.
    ///
    /// # Errors
    /// When there is none, and the kernel refuses another.
    pub fn with_spares(disk: Arc<RawDisk>, depth: u16, spares: &Spares) -> io::Result<Self> {
        let depth = depth.clamp(1, MAX_DEPTH);
        let ring = spares.lend(depth)?;
        // The disk is not registered with the ring: the kernel tears rings down some time after
        // they are closed, and until then a restarted guest could not claim its disk.
        Ok(Self {
            ring,
            in_memory: inline::in_memory(&disk),
            stayed: false,
            disk,
            watches: Watches::default(),
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            bounce: Pool::default(),
            done: Vec::new(),
        })
    }

    /// The disk below.
    pub fn disk(&self) -> &Arc<RawDisk> {
        &self.disk
    }

    /// Whether another request would be accepted.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Requests under way, including those whose completion was not collected yet.
    pub fn under_way(&self) -> usize {
        self.slots.len() - self.free.len() + self.done.len()
    }

    /// Queues a read of the disk at `offset` into `buffers`.
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Safety
    /// Every buffer must be valid for writes until the request completed or the
    /// engine was dropped. Others may access the buffers at the same time only
    /// if no Rust reference to them exists (guest memory).
    pub unsafe fn read(
        &mut self,
        token: u64,
        offset: u64,
        buffers: &[libc::iovec],
    ) -> Result<(), SubmitError> {
        let transfer = Transfer::new(Direction::Read, offset, buffers);
        self.check(offset, transfer.left())?;
        self.accept(token, Step::Transfer(transfer))
    }

    /// Queues a write of `buffers` to the disk at `offset`.
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Safety
    /// As [`Engine::read`], but valid for reads.
    pub unsafe fn write(
        &mut self,
        token: u64,
        offset: u64,
        buffers: &[libc::iovec],
    ) -> Result<(), SubmitError> {
        let transfer = Transfer::new(Direction::Write, offset, buffers);
        self.check_writable(offset, transfer.left())?;
        self.accept(token, Step::Transfer(transfer))
    }

    /// Queues a flush: all writes that completed before it is submitted are on
    /// stable storage when it completes.
    ///
    /// # Errors
    /// [`SubmitError::Full`].
    pub fn flush(&mut self, token: u64) -> Result<(), SubmitError> {
        self.accept(token, Step::Flush)
    }

    /// Queues a discard: the range may read as anything afterwards, and its space may be given back.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn discard(&mut self, token: u64, offset: u64, length: u64) -> Result<(), SubmitError> {
        self.check_writable(offset, length)?;
        self.accept(token, Step::Discard { offset, length })
    }

    /// Queues zeroing of a range, giving its space back if `unmap` and the host can.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn write_zeroes(
        &mut self,
        token: u64,
        offset: u64,
        length: u64,
        unmap: bool,
    ) -> Result<(), SubmitError> {
        self.check_writable(offset, length)?;
        let step = if unmap {
            Step::ZeroUnmap { offset, length }
        } else {
            Step::ZeroKeep { offset, length }
        };
        self.accept(token, step)
    }

    /// Makes [`Engine::wait`] return when one of `events` becomes readable, or is
    /// so now, until [`Engine::unwatch`]. What follows is edge-triggered: an event
    /// that is signalled again is told again, whether it was read or not.
    ///
    /// At most 8 events, which stay open, and none are watched yet.
    pub fn watch<const N: usize>(&mut self, events: [BorrowedFd<'_>; N]) {
        const { assert!(N <= watch::MOST) };
        self.watches.set(&events);
    }

    /// Forgets all watched events; they may be closed afterwards.
    ///
    /// # Errors
    /// When the kernel takes nothing any more.
    pub fn unwatch(&mut self) -> io::Result<()> {
        for entry in self.watches.cancellations() {
            while !self.push(&entry) {
                self.enter(AT_ONCE)?;
            }
        }
        while self.watches.any_armed() {
            self.enter(None)?;
            self.collect();
        }
        self.watches.clear();
        Ok(())
    }

    /// Hands everything queued to the kernel, sleeps if `sleep` until a request
    /// completed or a watched event was signalled, appends the completions to
    /// `sink` and tells which events were signalled since the last call.
    ///
    /// It may return with nothing.
    ///
    /// # Errors
    /// When the kernel takes nothing any more. Shortage passes and is no error.
    pub fn wait(&mut self, sleep: bool, sink: &mut Vec<Completion>) -> io::Result<Fired> {
        self.wait_at_most(if sleep { None } else { AT_ONCE }, sink)
    }

    /// As [`Engine::wait`], sleeping at most so long; with `None` for as long as it takes.
    ///
    /// # Errors
    /// As [`Engine::wait`].
    pub fn wait_at_most(
        &mut self,
        most: Option<Duration>,
        sink: &mut Vec<Completion>,
    ) -> io::Result<Fired> {
        self.fill();
        if !self.may_stay() {
            let most = if self.done.is_empty() { most } else { AT_ONCE };
            self.enter(most)?;
        }
        self.collect();
        sink.append(&mut self.done);
        Ok(self.watches.take_fired())
    }

    /// Waits until nothing is under way; nothing touches the buffers of any request afterwards.
    /// Signals of watched events are kept for the next [`Engine::wait`].
    ///
    /// # Errors
    /// When the kernel takes nothing any more; buffers may then still be in use.
    pub fn drain(&mut self, sink: &mut Vec<Completion>) -> io::Result<()> {
        sink.append(&mut self.done);
        while self.under_way() > 0 {
            self.fill();
            self.enter(if self.done.is_empty() { None } else { AT_ONCE })?;
            self.collect();
            sink.append(&mut self.done);
        }
        Ok(())
    }

    /// Whether a trip into the kernel can be left out, because there is nothing to hand over and something to tell already.
    /// Not twice in a row: the ring tells of what is watched on such trips only.
    fn may_stay(&mut self) -> bool {
        let idle = !self.done.is_empty() && self.ring.submission().is_empty();
        self.stayed = idle && !self.stayed;
        self.stayed
    }

    /// One trip into the kernel, with what is in the submission queue, for so long at most.
    fn enter(&mut self, most: Option<Duration>) -> io::Result<()> {
        let sleep = most != AT_ONCE && self.ring.completion().is_empty();
        let entered = match most {
            Some(most) if sleep => {
                let most = types::Timespec::from(most);
                let args = types::SubmitArgs::new().timespec(&most);
                self.ring.submitter().submit_with_args(1, &args)
            }
            _ => self.ring.submit_and_wait(sleep.into()),
        };
        let Err(error) = entered else {
            return Ok(());
        };
        match error.raw_os_error() {
            // The completion queue must be emptied first, which comes next; or the time is over.
            Some(libc::EINTR | libc::EBUSY | libc::ETIME) => Ok(()),
            Some(libc::EAGAIN) => {
                // The host is out of memory; requests under way give some back.
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Takes what is complete off the ring.
    fn collect(&mut self) {
        loop {
            let entry = self.ring.completion().next();
            let Some(entry) = entry else { break };
            if !self.watches.note(&entry) {
                self.complete_step(entry.user_data() as u16, entry.result());
            }
        }
    }

    /// Fills the submission queue.
    fn fill(&mut self) {
        // First, so that a full queue does not leave a watched event unheard.
        self.arm_watches();
        self.push_ready();
    }

    fn arm_watches(&mut self) {
        while !self.ring.submission().is_full() {
            let Some(entry) = self.watches.arm_next() else {
                return;
            };
            self.push(&entry);
        }
    }

    fn check_writable(&self, offset: u64, length: u64) -> Result<(), SubmitError> {
        if self.disk.read_only() {
            return Err(SubmitError::ReadOnly);
        }
        self.check(offset, length)
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), SubmitError> {
        let size = self.disk.size();
        let inside = offset.checked_add(length).is_some_and(|end| end <= size);
        if length == 0 || !inside {
            return Err(SubmitError::Range {
                offset,
                length,
                size,
            });
        }
        let block = self.disk.logical_block();
        if !(offset | length).is_multiple_of(u64::from(block)) {
            return Err(SubmitError::Misaligned {
                offset,
                length,
                block,
            });
        }
        Ok(())
    }

    fn accept(&mut self, token: u64, step: Step) -> Result<(), SubmitError> {
        let index = self.free.pop().ok_or(SubmitError::Full)?;
        self.slots[usize::from(index)] = Some(Operation::new(token, step));
        self.ready.push_back(index);
        Ok(())
    }

    /// Moves ready operations to the submission queue while it has places.
    fn push_ready(&mut self) {
        while let Some(&index) = self.ready.front() {
            if self.ring.submission().is_full() {
                return;
            }
            self.ready.pop_front();
            self.begin_step(index);
        }
    }

    fn begin_step(&mut self, index: u16) {
        let Some(operation) = self.slots[usize::from(index)].as_mut() else {
            return;
        };
        match operation.begin(&self.disk, &mut self.bounce, self.in_memory) {
            operation::Begin::Entry(entry) => {
                // There is a place: `push_ready` looked.
                self.push(&entry.user_data(u64::from(index)));
            }
            operation::Begin::Made(result) => self.complete_step(index, result),
            operation::Begin::Starved => self.starved.push_back(index),
            operation::Begin::Failed(error) => self.finish(index, Err(error)),
        }
    }

    /// Puts an entry into the submission queue; `false` when it is full.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what a request's entry points to lives in the operation's slot and, by the
        // contract of `read` and `write`, in buffers that stay valid until the request completed.
        // Polls and cancellations point to nothing.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn complete_step(&mut self, index: u16, result: i32) {
        let Some(operation) = self
            .slots
            .get_mut(usize::from(index))
            .and_then(Option::as_mut)
        else {
            return;
        };
        let outcome = operation.complete(result, &mut self.bounce);
        if self.bounce.has_room() {
            self.ready.extend(self.starved.pop_front());
        }
        match outcome {
            Outcome::Again => self.ready.push_back(index),
            Outcome::Done(result) => self.finish(index, result),
        }
    }

    fn finish(&mut self, index: u16, result: Result<(), IoError>) {
        if let Some(operation) = self.slots[usize::from(index)].take() {
            self.free.push(index);
            self.done.push(Completion {
                token: operation.token(),
                result,
            });
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("disk", &self.disk)
            .field("under_way", &self.under_way())
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut sink = Vec::new();
        let quiet = self.drain(&mut sink).and_then(|()| self.unwatch());
        if let Err(error) = quiet {
            // Memory the kernel may still write to must not be given to anything else.
            tracing::error!(%error, "the disk engine cannot be stopped");
            std::process::abort();
        }
    }
}

// SAFETY: the raw pointers inside are buffers of requests, which by the contract of `read` and
// `write` are valid for whoever has the engine; nothing in it is tied to a thread.
unsafe impl Send for Engine {}

#[cfg(test)]
mod tests;
