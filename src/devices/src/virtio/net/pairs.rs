//! All pairs of queues of a device, of which the driver uses the first ones.

use std::io;

use virtio_queue::Queue;

use super::offload;
use super::pair::{Pair, Session};
use crate::tap::TapFilter;
use crate::virtio::{ActivateError, ActiveQueue};

/// The pairs, at least one.
pub(super) struct Pairs {
    pairs: Vec<Pair>,
    /// How many the driver uses.
    enabled: usize,
    /// The activation, while there is one.
    session: Option<Session>,
}

impl Pairs {
    /// The first of `pairs` is used.
    pub fn new(pairs: Vec<Pair>) -> io::Result<Self> {
        let mut all = Self {
            pairs,
            enabled: 1,
            session: None,
        };
        all.leave(1)?;
        Ok(all)
    }

    /// How many the driver uses: 1 until it asks for more.
    pub fn enabled(&self) -> usize {
        self.enabled
    }

    /// The driver used so many when it was saved. Called while there is no activation.
    pub fn restore(&mut self, enabled: usize) {
        self.enabled = enabled;
    }

    /// Has the tap hand over no more than `filter` says.
    pub fn filter(&self, filter: &TapFilter) -> io::Result<()> {
        let mut first = self.pairs.iter().take(1);
        first.try_for_each(|pair| pair.tap().set_filter(filter))
    }

    /// Takes the queues of the first pairs, and serves those that the driver uses. After an error the queues are still here.
    pub fn activate(
        &mut self,
        session: Session,
        queues: Vec<[ActiveQueue; 2]>,
    ) -> Result<(), ActivateError> {
        for (pair, queues) in self.pairs.iter_mut().zip(queues) {
            pair.park(queues);
        }
        let host = |what| move |source| ActivateError::Host { what, source };
        self.leave(self.enabled)
            .map_err(host("detaching a queue of the tap"))?;
        let session = self.session.insert(session);
        let Some(first) = self.pairs.first().filter(|first| first.usable()) else {
            // A driver in the middle of a reset.
            return Ok(());
        };
        // Of the tap as a whole.
        first
            .tap()
            .set_offload(offload::tap_flags(session.features))
            .map_err(host("setting the tap's offloads"))?;
        let used = self.pairs.iter_mut().take(self.enabled);
        for pair in used.filter(|pair| pair.usable()) {
            pair.start(session)
                .map_err(host("starting a pair of queues"))?;
        }
        Ok(())
    }

    /// Serves the first `count` pairs and no others. After an error it serves what it served.
    ///
    /// # Errors
    /// When there are fewer, the driver has not set all of them up, or the host refuses.
    pub fn enable(&mut self, count: usize) -> io::Result<()> {
        let wanted = self.pairs.get(..count).unwrap_or_default();
        if wanted.is_empty() || !wanted.iter().all(Pair::usable) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let before = self.enabled;
        if let Some(session) = &self.session {
            let mut added = self.pairs.iter_mut().take(count).skip(before);
            if let Err(error) = added.try_for_each(|pair| pair.start(session)) {
                self.leave(before)?;
                return Err(error);
            }
        }
        self.enabled = count;
        self.leave(count)
    }

    /// Gives the queues back in their order, and touches guest memory no more.
    pub fn deactivate(&mut self) -> Vec<Queue> {
        self.session = None;
        let pairs = self.pairs.iter_mut();
        pairs.filter_map(Pair::give_back).flatten().collect()
    }

    /// The driver is gone: the next uses one pair.
    pub fn reset(&mut self) {
        self.enabled = 1;
        if let Err(error) = self.leave(1) {
            tracing::warn!(%error, "a queue of the tap stays attached");
        }
    }

    /// Leaves all pairs from number `first` on alone, and has the kernel steer nothing to them.
    fn leave(&mut self, first: usize) -> io::Result<()> {
        let left = self.pairs.iter_mut().skip(first);
        left.map(|pair| {
            pair.stop();
            pair.attach(false)
        })
        .fold(Ok(()), io::Result::and)
    }
}
