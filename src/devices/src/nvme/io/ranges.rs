//! The ranges of a dataset management command (NVM Express 1.4, 6.7.1).

use super::decode::{self, Run};
use crate::nvme::command::{Command, Status};
use crate::nvme::prp;
use crate::nvme::shared::Shared;

/// Bytes of one range.
const RANGE_BYTES: usize = 16;

/// Most bytes that are discarded in one step: what the host does in one call is bounded, so that a
/// pause need not wait long for it.
const MOST_BYTES: u64 = 2 << 30;

/// What is left to be discarded.
#[derive(Debug)]
pub(super) struct Ranges(
    /// Last first.
    Vec<Run>,
);

impl Ranges {
    /// Reads `count` ranges, 1 to 256.
    ///
    /// # Errors
    /// Why the command fails.
    pub fn read(command: &Command, shared: &Shared, count: u32) -> Result<Self, Status> {
        // At most a page.
        let mut list = vec![0; count as usize * RANGE_BYTES];
        prp::buffers(&shared.memory, command.data, list.len() as u64)?
            .read_at(&shared.memory, 0, &mut list)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let mut runs = Vec::new();
        for entry in list.as_chunks::<RANGE_BYTES>().0.iter().rev() {
            let wide = u128::from_le_bytes(*entry);
            // Attributes, which say nothing to us, number of blocks, first block.
            let (count, first) = ((wide >> 32) as u32, (wide >> 64) as u64);
            if count != 0 {
                runs.push(decode::range(shared, first, count.into())?);
            }
        }
        Ok(Self(runs))
    }

    /// Takes the next piece.
    pub fn next(&mut self) -> Option<Run> {
        let run = self.0.pop()?;
        if run.length <= MOST_BYTES {
            return Some(run);
        }
        self.0.push(Run {
            offset: run.offset + MOST_BYTES,
            length: run.length - MOST_BYTES,
        });
        Some(Run {
            length: MOST_BYTES,
            ..run
        })
    }

    /// Leaves the rest as it is: discarding is a wish.
    pub fn abandon(&mut self) {
        self.0.clear();
    }
}
