//! When to let the driver go on before a kick of its is answered.
//!
//! On a busy host this thread often wakes up on the processor that the driver runs on, and stops it in the middle of its
//! kick. If more requests are to come, it pays to let it go on: they are taken together, without a kick and an interrupt
//! for each. If none is to come, it only costs. Nobody tells beforehand, so it is tried now and then, and kept up for as
//! long as it pays. With a processor of its own the thread loses nothing by it.

/// Most kicks answered at once between two tries.
const MOST: u8 = 64;

/// What earlier tries were good for.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Kicks to be answered at once before the next try.
    left: u8,
    /// How many these were when they began.
    pause: u8,
    trying: bool,
}

impl Patience {
    /// The driver kicked: lets it go on, if that is to be tried.
    pub fn kicked(&mut self) {
        self.trying = self.left == 0;
        if self.trying {
            std::thread::yield_now();
        } else {
            self.left -= 1;
        }
    }

    /// So many requests were there.
    pub fn found(&mut self, requests: u16) {
        if !std::mem::take(&mut self.trying) {
            return;
        }
        self.pause = if requests > 1 {
            0
        } else {
            self.pause.saturating_mul(2).clamp(1, MOST)
        };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many kicks that each find `requests`, how many were let wait.
    fn tries(patience: &mut Patience, kicks: u32, requests: u16) -> u32 {
        let mut tries = 0;
        for _ in 0..kicks {
            patience.kicked();
            tries += u32::from(patience.trying);
            patience.found(requests);
        }
        tries
    }

    #[test]
    fn it_is_kept_up_while_it_pays() {
        let mut patience = Patience::default();
        assert_eq!(tries(&mut patience, 100, 2), 100);
        let lone = tries(&mut patience, 10_000, 1);
        assert!((100..200).contains(&lone), "{lone} tries for nothing");
        // Soon again when requests come together.
        assert!(tries(&mut patience, 100, 8) > 30);
        assert_eq!(tries(&mut patience, 100, 8), 100);
    }
}
