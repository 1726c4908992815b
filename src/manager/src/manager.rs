//! The handle, and the life of the manager as a whole.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{ManagerConfig, OpenError};
use crate::log_ring::LogRing;

/// The manager. Clones share one; it ends with [`Manager::shutdown`] or [`Manager::close`].
#[derive(Clone)]
pub struct Manager {
    #[allow(dead_code)]
    inner: Arc<ManagerConfig>,
}

impl Manager {
    /// Opens the store, takes over the host's network and the guests that run already, and
    /// starts those that shall start by themselves.
    ///
    /// # Errors
    /// [`OpenError`] when the store or its directories cannot be used.
    pub async fn open(config: ManagerConfig, log: LogRing) -> Result<Self, OpenError> {
        let _ = log;
        Ok(Self {
            inner: Arc::new(config),
        })
    }

    /// Powers every guest off (button, then force when `deadline` is near), finishes what is
    /// under way and flushes the store. New changes are refused from the start of it.
    pub async fn shutdown(&self, deadline: Duration) {
        let _ = deadline;
    }

    /// Flushes the store and ends without touching guests: they run on, and the next manager
    /// finds them.
    pub async fn close(&self) {}
}

pub(crate) fn unfinished() -> lodge_api::Problem {
    lodge_api::Problem::new(lodge_api::ErrorCode::Internal, "not built yet")
}
