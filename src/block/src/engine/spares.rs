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
    /// None yet, for engines that hold up to `depth` requests.
    pub fn new(depth: u16) -> Self {
        Self {
            rings: Arc::default(),
            depth,
        }
    }

    /// Adds so many rings.
    ///
    /// # Errors
    /// When the kernel refuses one; those before it are kept.
    pub fn add(&self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let ring = ring::new(u32::from(self.depth))?;
            self.with(|rings| rings.push(ring));
        }
        Ok(())
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.with(|rings| rings.len())
    }

    /// A spare ring of that depth, or a new one that becomes a spare if it would fit.
    pub(super) fn lend(&self, depth: u16) -> io::Result<Lent> {
        let fits = depth == self.depth;
        let spare = fits.then(|| self.with(Vec::pop)).flatten();
        let ring = match spare {
            Some(ring) => ring,
            None => ring::new(u32::from(depth))?,
        };
        Ok(Lent {
            ring: Some(ring),
            home: fits.then(|| self.clone()),
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
