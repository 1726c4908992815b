//! A submission queue for data, and the thread behind it.

mod decode;
mod ranges;
mod session;
mod steps;

use std::io;
use std::sync::Arc;

use lodge_block::engine::Engine;
use vmm_sys_util::eventfd::EventFd;

use self::session::Session;
use super::completion::CompletionQueue;
use super::shadow::Shadow;
use super::shared::Shared;
use super::submission::{SubmissionQueue, SubmissionState};
use crate::throttle::Gate;
use crate::virtio::queue_thread::Serve;

/// Commands one queue has with the host at a time. More wait in the ring.
pub(super) const DEPTH: u16 = 128;

/// Commands begun before the thread looks whether it is to stop.
const BATCH: usize = 64;

/// Most commands of one queue that ended and were not posted.
pub(super) const MOST_DONE: usize = DEPTH as usize + BATCH;

/// What stays between queues of the same number.
pub(super) struct Worker {
    engine: Engine,
    shared: Arc<Shared>,
    gate: Gate,
}

/// A queue to be served.
pub(super) struct Start {
    pub queue: SubmissionState,
    pub completion: Arc<CompletionQueue>,
    pub shadow: Option<Shadow>,
}

impl Worker {
    pub fn new(shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            engine: Engine::new(Arc::clone(&shared.image), DEPTH)?,
            shared: Arc::clone(shared),
            gate: Gate::new(&shared.throttle, &shared.statistics)?,
        })
    }
}

impl Serve for Worker {
    type Start = Start;
    type End = SubmissionState;

    fn serve(&mut self, mut start: Start, stop: &EventFd) -> SubmissionState {
        let done = std::mem::take(&mut start.queue.done);
        let again = std::mem::take(&mut start.queue.unfinished);
        let queue = SubmissionQueue::new(start.queue, start.shadow, Arc::clone(&self.shared));
        let mut session = Session::new(self, queue, start.completion, done, again);
        session.run(stop);
        session.into_state()
    }
}
