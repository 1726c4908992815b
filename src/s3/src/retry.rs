//! What may pass is tried again.

use std::time::Duration;

use tokio::time::sleep;

use crate::S3Error;

/// Pauses before further tries.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(9),
];

/// Counts the tries.
#[derive(Debug)]
pub(crate) struct Tries(usize);

impl Tries {
    /// Before the first; there are others only for those with patience.
    pub(crate) fn new(patient: bool) -> Self {
        Self(if patient { 0 } else { PAUSES.len() })
    }

    /// Waits a moment, after a failure that may pass.
    ///
    /// # Errors
    /// The failure, where it makes no sense to try again.
    pub(crate) async fn again(&mut self, error: S3Error) -> Result<(), S3Error> {
        let Some(pause) = PAUSES.get(self.0).filter(|_| error.may_pass()) else {
            return Err(error);
        };
        tracing::debug!(%error, "a request to an S3 service is made again");
        self.0 += 1;
        sleep(*pause).await;
        Ok(())
    }
}
