//! What a disk does with requests that the host fails.
//!
//! A guest cannot do much about a full or broken datastore: its filesystem goes read-only, or its database gives up. So the disk may
//! hold back what failed, and everything after it, and say so. Its monitor pauses the guest; when it resumes it, the disk does
//! again what it held back. Nothing waits in the host meanwhile, so that pausing, saving, resetting and removing the disk take as long as
//! they always do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use lodge_block::engine::IoError;

/// What is done with a request that the host failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The driver is told.
    Report,
    /// It is held back, until the disk is resumed.
    HoldBack,
}

/// Hears why a disk holds back requests, on the thread of a queue.
pub type Stuck = Box<dyn Fn(IoError) + Send + Sync>;

/// The way of one disk, at any time another one.
#[derive(Default)]
pub struct ErrorPolicy {
    holds_back: AtomicBool,
    stuck: OnceLock<Stuck>,
}

impl ErrorPolicy {
    /// Deals so with what fails from now on. What is held back stays so.
    pub fn set(&self, on_error: OnError) {
        let holds_back = on_error == OnError::HoldBack;
        self.holds_back.store(holds_back, Ordering::Relaxed);
    }

    /// Who is to hear that requests are held back, and has to pause the disk then: once for each queue until it is
    /// resumed. The first one stays; without any, all is reported.
    pub fn on_stuck(&self, stuck: Stuck) {
        let _ = self.stuck.set(stuck);
    }

    /// Whether a request that failed is to be held back. A flush of what other requests have written is only for want of space: after
    /// another failure some of that may be lost, and a second flush would not tell.
    pub(crate) fn holds_back(&self, error: IoError, flush: bool) -> bool {
        let may_succeed = !flush || error == IoError::NoSpace;
        may_succeed && self.holds_back.load(Ordering::Relaxed) && self.stuck.get().is_some()
    }

    /// A queue holds back what failed, and takes no more.
    pub(crate) fn tell(&self, error: IoError) {
        if let Some(stuck) = self.stuck.get() {
            stuck(error);
        }
    }
}
