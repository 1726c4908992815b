//! One pair of queues: its tap, and who moves packets between the two.

use std::io;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT as _};

use super::QueuePair;
use super::filter::Filter;
use super::session::{Start, Worker};
use super::statistics::Statistics;
use super::vhost::Cable;
use crate::GuestMemory;
use crate::tap::Tap;
use crate::virtio::queue_thread::{Prologue, QueueThread};
use crate::virtio::vhost::{Switch as _, Vhost};
use crate::virtio::{ActiveQueue, DeviceEvents};

/// What all pairs of an activation have in common.
pub(super) struct Session {
    pub memory: GuestMemory,
    pub features: u64,
    pub events: Arc<dyn DeviceEvents>,
}

/// A pair of queues.
pub(super) struct Pair {
    tap: Arc<Tap>,
    backend: Backend,
    /// The kernel hands packets to the tap's queue.
    attached: bool,
    /// The back end has the queues.
    served: bool,
    /// The queues of an activation while the back end has not.
    parked: Option<[ActiveQueue; 2]>,
}

/// Who moves the packets.
enum Backend {
    Kernel(Vhost<Cable>),
    Thread(QueueThread<Worker>),
}

impl Pair {
    /// A pair without queues on `on`.
    pub fn new(
        on: QueuePair<Tap>,
        filter: &Arc<Filter>,
        statistics: &Arc<Statistics>,
        prologue: Prologue,
    ) -> io::Result<Self> {
        let tap = Arc::new(on.tap);
        let backend = match on.vhost {
            Some(vhost) => Backend::Kernel(Vhost::new(vhost, Cable(Arc::clone(&tap)))?),
            None => {
                let worker = Worker {
                    tap: Arc::clone(&tap),
                    filter: Arc::clone(filter),
                    statistics: Arc::clone(statistics),
                };
                Backend::Thread(QueueThread::spawn("net-queues", prologue, worker)?)
            }
        };
        Ok(Self {
            tap,
            backend,
            attached: true,
            served: false,
            parked: None,
        })
    }

    /// Its tap.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Takes the queues of an activation, and leaves them alone.
    pub fn park(&mut self, queues: [ActiveQueue; 2]) {
        self.parked = Some(queues);
    }

    /// Whether it has queues that the driver has set up. Nothing can move with half a pair.
    pub fn usable(&self) -> bool {
        let ready = |queues: &[ActiveQueue; 2]| queues.iter().all(|active| active.queue.ready());
        self.served || self.parked.as_ref().is_some_and(ready)
    }

    /// Has the packets of a usable pair moved. After an error the queues are left alone.
    pub fn start(&mut self, session: &Session) -> io::Result<()> {
        // A queue that is not attached reads as broken.
        self.attach(true)?;
        let Some(queues) = self.parked.take() else {
            return Ok(());
        };
        match &mut self.backend {
            Backend::Kernel(vhost) => {
                let features = session.features & Cable::FEATURES;
                let started = vhost.start(&session.memory, features, queues.into());
                if let Err(refused) = started {
                    self.parked = refused.queues.try_into().ok();
                    return Err(refused.error);
                }
            }
            Backend::Thread(thread) => {
                let [receive, transmit] = queues;
                thread.start(Start {
                    memory: session.memory.clone(),
                    features: session.features,
                    receive,
                    transmit,
                    events: Arc::clone(&session.events),
                });
            }
        }
        self.served = true;
        Ok(())
    }

    /// Leaves the queues alone from the return of this call on.
    pub fn stop(&mut self) {
        if !std::mem::take(&mut self.served) {
            return;
        }
        self.parked = match &mut self.backend {
            Backend::Kernel(vhost) => vhost.stop().try_into().ok(),
            Backend::Thread(thread) => thread.stop(),
        };
    }

    /// Has the kernel hand packets to the tap's queue, or none.
    pub fn attach(&mut self, attached: bool) -> io::Result<()> {
        if self.attached != attached {
            self.tap.set_attached(attached)?;
            self.attached = attached;
        }
        Ok(())
    }

    /// Gives the queues of the activation back.
    pub fn give_back(&mut self) -> Option<[Queue; 2]> {
        self.stop();
        let queues = self.parked.take()?;
        Some(queues.map(|active| active.queue))
    }
}
