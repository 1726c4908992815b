//! The host's log in memory: Lodge's own tracing events and the kernel's ring.

use std::sync::Arc;

use lodge_api::Problem;
use lodge_api::log::{LogEntry, LogParams};
use lodge_api::page::Page;

use crate::Manager;

/// The ring. Make one early, install its [`RingLayer`] as a tracing layer, and give it to
/// [`Manager::open`].
#[derive(Clone, Default)]
pub struct LogRing {
    #[allow(dead_code)]
    inner: Arc<()>,
}

impl LogRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layer that copies tracing events into this ring.
    pub fn layer(&self) -> RingLayer {
        RingLayer { ring: self.clone() }
    }
}

/// A tracing layer that copies events into a [`LogRing`].
pub struct RingLayer {
    #[allow(dead_code)]
    ring: LogRing,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for RingLayer {}

impl Manager {
    /// `GET /v1/system/log`: the newest lines, oldest first. `next_page` is never set.
    pub fn log(&self, params: &LogParams) -> Result<Page<LogEntry>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }
}
