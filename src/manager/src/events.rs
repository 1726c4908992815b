//! Events: one ordered stream, of which the last few thousand can be replayed.

use lodge_api::Problem;
use lodge_api::event::{Event, EventParams};

use crate::Manager;

/// Events as they happen, after those replayed. Ends when the manager does.
pub struct Subscription {
    _private: (),
}

impl Subscription {
    /// The next event, a [`Gap`](lodge_api::event::EventBody::Gap) where this listener was too
    /// slow. `None` at the end. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::pending().await
    }
}

impl Manager {
    /// Events kept since `params.since` (none when absent), and a subscription that goes on
    /// exactly where they end.
    ///
    /// # Errors
    /// `InvalidRequest` at `?types` for an unknown type.
    pub fn events_since(
        &self,
        params: &EventParams,
    ) -> Result<(Vec<Event>, Subscription), Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }
}
