//! The machine's memory balloon: what may be wished for, and what the guest says.

use std::sync::Arc;

use lodge_devices::virtio::balloon::{Balloon, Condition, PAGE};
use lodge_vmm_proto::{BALLOON_LEAVES, LaunchError};

use super::hardware::Prologue;
use super::{Failure, Machine};
use crate::memory;

/// A size that no balloon of this machine may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BalloonError {
    /// It would leave the guest too little to go on with.
    #[error(
        "the guest must keep {BALLOON_LEAVES} bytes: its balloon may have {most} bytes at most"
    )]
    TooLarge {
        /// The largest size in bytes.
        most: u64,
    },
    /// Not a number of whole pages.
    #[error("the size of a balloon is a multiple of {PAGE} bytes")]
    Unaligned,
}

/// A balloon whose thread runs `prologue` first.
pub(super) fn device(prologue: &Prologue) -> Result<Balloon, Failure> {
    Balloon::new(Arc::clone(prologue), Arc::new(memory::discard))
        .map_err(Failure::doing(LaunchError::Internal, "balloon"))
}

fn check(bytes: u64, memory: u64) -> Result<(), BalloonError> {
    let most = memory.saturating_sub(BALLOON_LEAVES) / PAGE * PAGE;
    if bytes > most {
        return Err(BalloonError::TooLarge { most });
    }
    if !bytes.is_multiple_of(PAGE) {
        return Err(BalloonError::Unaligned);
    }
    Ok(())
}

impl Machine {
    /// Wishes for a balloon of so many bytes. A guest may take its time, or never do it.
    ///
    /// # Errors
    /// When no balloon may have that size.
    pub fn set_balloon(&self, bytes: u64) -> Result<(), BalloonError> {
        check(bytes, self.memory_size())?;
        self.hardware.balloon.set_target(bytes);
        Ok(())
    }

    /// What is known of balloon and guest's memory, and asks for newer statistics.
    pub fn balloon(&self) -> Condition {
        self.hardware.balloon.ask_statistics();
        self.hardware.balloon.condition()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_keeps_enough() {
        let memory = 256 << 20;
        let most = 192 << 20;
        for bytes in [0, PAGE, most] {
            assert_eq!(check(bytes, memory), Ok(()));
        }
        assert_eq!(check(1, memory), Err(BalloonError::Unaligned));
        for bytes in [most + PAGE, most + 1, u64::MAX] {
            assert_eq!(check(bytes, memory), Err(BalloonError::TooLarge { most }));
        }
        // A small guest keeps all.
        assert_eq!(check(0, 16 << 20), Ok(()));
        assert!(check(PAGE, 16 << 20).is_err());
    }
}
