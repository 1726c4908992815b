//! The one thread that serves a machine's slow devices: consoles, entropy, control queues.
//!
//! Everything a handle offers is posted to the loop and returns at once, so it
//! may be used from any thread, the loop's own included, and with locks held.
//! (`event-manager` also has a blocking call, which deadlocks when made from the loop's
//! own thread or under a lock a subscriber takes. It is left out on purpose.)
//!
//! System calls its thread makes, for whoever writes its seccomp filter: `epoll_wait`, `epoll_ctl`, `read`, `write`,
//! `close`, `recvfrom`, `sendto`, `timerfd_settime`, `getrandom`, `futex`, memory management,
//! and `ioctl` for wired interrupts, taps and vhost-net.
//!
//! A subscriber runs on the loop thread and must not block. It may take its own
//! device's lock but never the lock of the transport in front of it: the transport
//! holds that one while it waits for the device to come to rest.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use event_manager::{
    EventManager, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps,
};

/// Something served by the loop.
pub type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// The loop itself, before a thread runs it.
pub struct EventLoop {
    manager: EventManager<Subscriber>,
    stop: Arc<AtomicBool>,
}

/// Access to the loop from other threads.
#[derive(Clone)]
pub struct LoopHandle {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
}

/// A subscriber's place in the loop. Dropping it removes the subscriber, soon but not at once.
pub struct Registration {
    handle: LoopHandle,
    id: Arc<Mutex<Option<SubscriberId>>>,
}

impl EventLoop {
    /// A loop without subscribers.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            manager: EventManager::new().map_err(io::Error::other)?,
            stop: Arc::default(),
        })
    }

    /// A handle to it.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle {
            endpoint: self.manager.remote_endpoint(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// Serves subscribers on the calling thread until [`LoopHandle::stop`].
    ///
    /// # Errors
    /// When epoll fails, which it only does for a bug here.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            match self.manager.run() {
                Ok(_) => {}
                Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }

    /// Serves what there is to serve, on the calling thread and at most `most` times, and does not wait.
    ///
    /// # Errors
    /// When epoll fails, which it only does for a bug here.
    #[cfg(feature = "fuzzing")]
    pub fn turn(&mut self, most: usize) -> io::Result<()> {
        for _ in 0..most {
            if self.manager.run_with_timeout(0).map_err(io::Error::other)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Runs it on a new thread, after `prologue` (e.g. a seccomp filter) has run there.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(
        self,
        name: &str,
        prologue: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let stop = Arc::clone(&self.stop);
        // Subscribers are Send; `EventManager` holds nothing else that is tied to a thread.
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                prologue();
                let result = self.run();
                if let Err(error) = &result {
                    tracing::error!(%error, "device event loop ended");
                    stop.store(true, Ordering::Release);
                }
                result
            })
    }
}

impl LoopHandle {
    /// Starts serving `subscriber`: its `init` runs on the loop thread.
    pub fn register(&self, subscriber: Subscriber) -> Registration {
        let id = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&id);
        self.post(move |ops| {
            *slot.lock().unwrap() = Some(ops.add_subscriber(subscriber));
        });
        Registration {
            handle: self.clone(),
            id,
        }
    }

    /// Ends the loop after the events it is serving.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // A loop that is gone needs no waking.
        let _ = self.endpoint.kick();
    }

    fn post(
        &self,
        call: impl FnOnce(&mut dyn SubscriberOps<Subscriber = Subscriber>) + Send + 'static,
    ) {
        if let Err(error) = self.endpoint.fire(call) {
            tracing::debug!(%error, "device event loop is gone");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let slot = Arc::clone(&self.id);
        // Posted calls run in order, so the subscriber is there by then.
        self.handle.post(move |ops| {
            if let Some(id) = slot.lock().unwrap().take() {
                // It can only be missing when the loop is being torn down.
                let _ = ops.remove_subscriber(id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use event_manager::{EventOps, Events};
    use vmm_sys_util::epoll::EventSet;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    struct Echo {
        wake: EventFd,
        seen: mpsc::Sender<&'static str>,
    }

    impl MutEventSubscriber for Echo {
        fn init(&mut self, ops: &mut EventOps) {
            ops.add(Events::new(&self.wake, EventSet::IN)).unwrap();
        }

        fn process(&mut self, _: Events, _: &mut EventOps) {
            self.wake.read().unwrap();
            self.seen.send("event").unwrap();
        }
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            let _ = self.seen.send("dropped");
        }
    }

    #[test]
    fn serves_until_dropped() {
        let event_loop = EventLoop::new().unwrap();
        let handle = event_loop.handle();
        let thread = event_loop.spawn("test-loop", || {}).unwrap();
        let wake = EventFd::new(EFD_NONBLOCK).unwrap();
        let (seen, events) = mpsc::channel();
        let registration = handle.register(Box::new(Echo {
            wake: wake.try_clone().unwrap(),
            seen,
        }));
        wake.write(1).unwrap();
        assert_eq!(events.recv().unwrap(), "event");
        drop(registration);
        assert_eq!(events.recv().unwrap(), "dropped");
        handle.stop();
        thread.join().unwrap().unwrap();
        // After the end nothing hangs and nothing panics.
        let (seen, _events) = mpsc::channel();
        drop(handle.register(Box::new(Echo { wake, seen })));
        handle.stop();
    }
}
