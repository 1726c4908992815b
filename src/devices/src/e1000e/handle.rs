//! What can be done with a card from outside while its guest runs.

use std::sync::Arc;

use super::card::Card;

/// A way to a card for its monitor. Copies reach the same card.
#[derive(Clone)]
pub struct E1000eHandle {
    card: Arc<Card>,
}

impl E1000eHandle {
    pub(super) fn new(card: &Arc<Card>) -> Self {
        Self {
            card: Arc::clone(card),
        }
    }

    /// Plugs the cable in, or pulls it: the guest is told, and no packets pass without.
    pub fn set_link(&self, up: bool) {
        self.card.plug(up);
    }
}
