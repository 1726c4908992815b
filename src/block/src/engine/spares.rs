//! Rings that were made ahead, for disks that come when no ring can be made any more: a monitor that is locked in may not, since
//! the kernel makes the calls of a new ring without asking any filter.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::IoUring;

use super::ring;

/// Rings for engines of one depth. Copies share them; an engine that ends gives its ring back.
#[derive(Clone, Default)]
pub struct Spares {
    rings: Arc<Mutex<Vec<IoUring>>>,
    depth: u16,
}

impl Spares {
    /// So many rings, each for an engine that holds up to `depth` requests.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn new(count: usize, depth: u16) -> io::Result<Self> {
        let rings = (0..count).map(|_| ring::new(u32::from(depth)));
        Ok(Self {
            rings: Arc::new(Mutex::new(rings.collect::<io::Result<_>>()?)),
            depth,
        })
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.with(|rings| rings.len())
    }

    /// Takes one, if there is one of that depth.
    pub(super) fn take(&self, depth: u16) -> Option<Lent> {
        if depth != self.depth {
            return None;
        }
        let ring = self.with(Vec::pop)?;
        Some(Lent {
            ring: Some(ring),
            home: Some(self.clone()),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<IoUring>) -> T) -> T {
        act(&mut self.rings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A ring, and where it goes when its engine ends.
pub(super) struct Lent {
    /// There until it is dropped.
    ring: Option<IoUring>,
    home: Option<Spares>,
}

impl Lent {
    /// A ring that ends with its engine.
    pub fn own(ring: IoUring) -> Self {
        Self {
            ring: Some(ring),
            home: None,
        }
    }
}

impl Deref for Lent {
    type Target = IoUring;

    fn deref(&self) -> &IoUring {
        self.ring.as_ref().expect("a ring until it is dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect("a ring until it is dropped")
    }
}

impl Drop for Lent {
    /// The engine has seen to it that nothing is under way.
    fn drop(&mut self) {
        if let (Some(mut ring), Some(home)) = (self.ring.take(), &self.home) {
            // Answers that nobody waited for.
            ring.completion().for_each(drop);
            home.with(|rings| rings.push(ring));
        }
    }
}
