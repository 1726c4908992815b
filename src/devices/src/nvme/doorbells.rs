//! What drivers write to doorbell registers (NVM Express 1.4, 3.1.24 and 3.1.25).
//!
//! vCPUs write and the queues' threads read, without a lock.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A doorbell that was rung wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Of a queue that does not exist.
    Register,
    /// With a place the queue does not have.
    Value,
}

/// One index into a ring.
#[derive(Default)]
struct Index {
    value: AtomicU32,
    /// Entries of the ring; 0 while there is none.
    size: AtomicU32,
}

impl Index {
    fn set(&self, value: u32) -> Result<(), Wrong> {
        match self.size.load(Ordering::SeqCst) {
            0 => Err(Wrong::Register),
            size if value >= size => Err(Wrong::Value),
            _ => {
                self.value.store(value, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn open(&self, size: u32, value: u32) {
        self.value.store(value, Ordering::SeqCst);
        self.size.store(size, Ordering::SeqCst);
    }

    fn close(&self) {
        self.size.store(0, Ordering::SeqCst);
    }
}

/// The doorbells of a submission queue and of the completion queue of the same number.
struct Pair {
    tail: Index,
    head: Index,
    /// Somebody waits for room in the completion queue.
    waiting: AtomicBool,
    /// Signalled when the submission queue's thread may have something to do.
    kick: EventFd,
}

/// The doorbells of a controller.
pub(super) struct Doorbells(Vec<Pair>);

impl Doorbells {
    /// Those of the admin queues and of `queues` pairs more.
    pub fn new(queues: u16) -> io::Result<Self> {
        let pair = |_| {
            Ok(Pair {
                tail: Index::default(),
                head: Index::default(),
                waiting: AtomicBool::new(false),
                kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            })
        };
        (0..=queues).map(pair).collect::<io::Result<_>>().map(Self)
    }

    /// Doubleword `number` of the doorbell registers is written.
    ///
    /// # Errors
    /// [`Wrong`], and nothing happens.
    pub fn write(&self, number: u64, value: u32) -> Result<(), Wrong> {
        let pair = usize::try_from(number / 2)
            .ok()
            .and_then(|id| self.0.get(id));
        let pair = pair.ok_or(Wrong::Register)?;
        // The upper half is reserved.
        let value = value & 0xffff;
        if number.is_multiple_of(2) {
            pair.tail.set(value)?;
            ring(pair);
        } else {
            pair.head.set(value)?;
            if pair.waiting.swap(false, Ordering::SeqCst) {
                // Any submission queue may complete there.
                self.ring_all();
            }
        }
        Ok(())
    }

    /// The event of submission queue `id`.
    pub fn kick(&self, id: u16) -> &EventFd {
        &self.0[usize::from(id)].kick
    }

    /// The events of the submission queues for data, from that of queue 1.
    pub fn kicks(&self) -> impl Iterator<Item = &EventFd> {
        self.0[1..].iter().map(|pair| &pair.kick)
    }

    /// Has the thread of submission queue `id` look.
    pub fn ring(&self, id: u16) {
        ring(&self.0[usize::from(id)]);
    }

    fn ring_all(&self) {
        self.0.iter().for_each(ring);
    }

    /// Submission queue `id` begins.
    pub fn open_submission(&self, id: u16, size: u32, tail: u32) {
        self.0[usize::from(id)].tail.open(size, tail);
    }

    /// Completion queue `id` begins.
    pub fn open_completion(&self, id: u16, size: u32, head: u32) {
        self.0[usize::from(id)].head.open(size, head);
    }

    pub fn close_submission(&self, id: u16) {
        self.0[usize::from(id)].tail.close();
    }

    pub fn close_completion(&self, id: u16) {
        self.0[usize::from(id)].head.close();
    }

    /// All queues are gone.
    pub fn close_all(&self) {
        for pair in &self.0 {
            pair.tail.close();
            pair.head.close();
        }
    }

    pub fn tail(&self, id: u16) -> u32 {
        self.0[usize::from(id)].tail.value.load(Ordering::SeqCst)
    }

    pub fn head(&self, id: u16) -> u32 {
        self.0[usize::from(id)].head.value.load(Ordering::SeqCst)
    }

    /// Rings all submission queues when the head of completion queue `id` is written next.
    pub fn wait_for_head(&self, id: u16) {
        self.0[usize::from(id)]
            .waiting
            .store(true, Ordering::SeqCst);
    }
}

fn ring(pair: &Pair) {
    // A full counter wakes just as well.
    let _ = pair.kick.write(1);
}
