//! The thread behind one queue of a disk.

use std::sync::Arc;

use lodge_block::engine::Engine;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::config::SERIAL_BYTES;
use super::session::{Session, Stopped};
use super::statistics::Statistics;
use crate::GuestMemory;
use crate::on_error::ErrorPolicy;
use crate::throttle::Gate;
use crate::virtio::queue_thread::Serve;
use crate::virtio::wait::wait_for;
use crate::virtio::{ActiveQueue, DeviceEvents};

/// What stays between activations.
pub(super) struct Worker {
    pub engine: Engine,
    pub serial: [u8; SERIAL_BYTES],
    pub statistics: Arc<Statistics>,
    pub gate: Gate,
    pub errors: Arc<ErrorPolicy>,
}

/// One activation of a queue.
pub(super) struct Start {
    pub memory: GuestMemory,
    pub features: u64,
    pub read_only: bool,
    pub queue: ActiveQueue,
    pub events: Arc<dyn DeviceEvents>,
}

/// A queue at rest.
pub(super) struct Rested {
    pub queue: Queue,
    /// Heads of chains that were taken and not returned.
    pub unfinished: Vec<u16>,
}

impl Serve for Worker {
    type Start = Start;
    type End = Rested;

    fn serve(&mut self, start: Start, stop: &EventFd) -> Rested {
        let events = Arc::clone(&start.events);
        let mut session = Session::new(self, start);
        match session.run(stop) {
            Stopped::Asked => {}
            Stopped::Broken(why) => {
                events.needs_reset(&why);
                // The ring is left alone, but a reset must still find somebody to answer it.
                wait_for(stop);
            }
        }
        session.into_rested()
    }
}
