//! Waiting until the event loop has served what came before.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use lodge_devices::event_loop::LoopHandle;

/// Tells when the loop gets to it, and does nothing else.
struct Barrier {
    reached: SyncSender<()>,
}

impl MutEventSubscriber for Barrier {
    fn init(&mut self, _: &mut EventOps) {
        let _ = self.reached.try_send(());
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {}
}

/// Waits until the loop has looked at everything that was signalled before, or
/// `limit` is over. The loop takes newcomers after the events it has found.
pub fn wait(events: &LoopHandle, limit: Duration) {
    let (reached, waiting) = sync_channel(1);
    let registration = events.register(Box::new(Barrier { reached }));
    if waiting.recv_timeout(limit).is_err() {
        tracing::warn!("the device loop is busy or gone");
    }
    drop(registration);
}
