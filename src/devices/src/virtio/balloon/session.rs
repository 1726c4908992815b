//! One activation of a balloon: its thread serves all queues in turn until it is stopped.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::handle::Handle;
use super::ranges::Ranges;
use super::{Discard, PAGE_REPORTING, QUEUES, STATS_VQ, deflate, inflate, reporting, statistics};
use crate::GuestMemory;
use crate::virtio::chain::{self, Chain, ChainError, Limits};
use crate::virtio::queue_thread::Serve;
use crate::virtio::wait::{borrow, wait_for, wait_for_fds};
use crate::virtio::{ActiveQueue, DeviceEvents};

/// Chains of one queue served before the others have their turn.
const BATCH: usize = 8;

/// What stays between activations.
pub(super) struct Server {
    pub handle: Handle,
    pub discard: Discard,
}

/// One activation.
pub(super) struct Start {
    pub memory: GuestMemory,
    pub features: u64,
    pub queues: Vec<ActiveQueue>,
    pub events: Arc<dyn DeviceEvents>,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

impl Role {
    /// What queue `number` is for with the features the driver accepted; see [`QUEUES`].
    fn of(number: usize, features: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Inflate),
            1 => Some(Self::Deflate),
            2 if features & STATS_VQ != 0 => Some(Self::Statistics),
            _ if features & PAGE_REPORTING != 0 => Some(Self::Reporting),
            _ => None,
        }
    }

    fn limits(self) -> Limits {
        match self {
            Self::Inflate => inflate::LIMITS,
            Self::Deflate => deflate::LIMITS,
            Self::Statistics => statistics::LIMITS,
            Self::Reporting => reporting::LIMITS,
        }
    }
}

/// Why the thread turns from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is nothing more in it.
    Empty,
    /// There is, and others wait.
    More,
    /// The thread has to stop.
    Stop,
}

pub(super) struct Session<'a> {
    pub handle: Handle,
    discard: &'a Discard,
    stop: &'a EventFd,
    pub memory: GuestMemory,
    features: u64,
    pub queues: Vec<ActiveQueue>,
    events: Arc<dyn DeviceEvents>,
    pub chain: Chain,
    ranges: Ranges,
    /// Queue and head of the buffer for statistics, while it is here.
    pub held: Option<(usize, u16)>,
}

impl Serve for Server {
    type Start = Start;
    type End = Vec<Queue>;

    fn serve(&mut self, start: Start, stop: &EventFd) -> Vec<Queue> {
        let mut session = Session {
            handle: self.handle.clone(),
            discard: &self.discard,
            stop,
            memory: start.memory,
            features: start.features,
            queues: start.queues,
            events: start.events,
            chain: Chain::default(),
            ranges: Ranges::default(),
            held: None,
        };
        if let Err(why) = session.run() {
            session.events.needs_reset(&why);
            // The rings are left alone, but a reset must still find somebody to answer it.
            wait_for(stop);
        }
        session.into_queues()
    }
}

impl Session<'_> {
    fn run(&mut self) -> Result<(), String> {
        // There may be chains from before the activation, whose kick nobody will repeat.
        let mut more = true;
        loop {
            if self.wait(!more) {
                return Ok(());
            }
            more = false;
            for number in 0..QUEUES {
                match self.serve_queue(number) {
                    Ok(Turn::Empty) => {}
                    Ok(Turn::More) => more = true,
                    Ok(Turn::Stop) => return Ok(()),
                    Err(error) => return Err(format!("queue {number}: {error}")),
                }
            }
        }
    }

    /// Tells whether to stop, sleeping until there is something to do if `sleep`.
    fn wait(&self, sleep: bool) -> bool {
        let wake = self.handle.wake();
        let mut events: [&EventFd; QUEUES + 2] = [wake; QUEUES + 2];
        events[0] = self.stop;
        for (event, queue) in events[2..].iter_mut().zip(&self.queues) {
            *event = &queue.kick;
        }
        let [stop, fired @ ..] = wait_for_fds(events.map(borrow), sleep);
        for (event, _) in events[1..].iter().zip(fired).filter(|(_, fired)| *fired) {
            // Every turn looks at all queues: which one it was does not matter.
            let _ = event.read();
        }
        stop
    }

    fn serve_queue(&mut self, number: usize) -> Result<Turn, ChainError> {
        if !self.queues[number].queue.ready() {
            return Ok(Turn::Empty);
        }
        match Role::of(number, self.features) {
            None => Ok(Turn::Empty),
            Some(Role::Statistics) => self.serve_statistics(number).map(|more| match more {
                true => Turn::More,
                false => Turn::Empty,
            }),
            Some(role) => self.serve_pages(number, role),
        }
    }

    fn serve_pages(&mut self, number: usize, role: Role) -> Result<Turn, ChainError> {
        let queue = &mut self.queues[number].queue;
        queue.disable_notification(&self.memory)?;
        let mut returned = false;
        let mut turn = Turn::More;
        for _ in 0..BATCH {
            let queue = &mut self.queues[number].queue;
            if !chain::pop(queue, &self.memory, role.limits(), &mut self.chain)? {
                turn = Turn::Empty;
                break;
            }
            if !self.serve_chain(role)? {
                // Whoever serves the queue next begins with this chain. What has been discarded of
                // it stays the driver's promise, and nothing is lost by doing it again.
                self.queues[number].queue.go_to_previous_position();
                turn = Turn::Stop;
                break;
            }
            let queue = &mut self.queues[number].queue;
            queue.add_used(&self.memory, self.chain.head, 0)?;
            returned = true;
        }
        let ActiveQueue {
            queue, interrupt, ..
        } = &mut self.queues[number];
        // A chain may have slipped in before the driver could see that it has to kick.
        if queue.enable_notification(&self.memory)? && turn == Turn::Empty {
            turn = Turn::More;
        }
        if returned && queue.needs_notification(&self.memory)? {
            interrupt.notify();
        }
        Ok(turn)
    }

    /// Serves the chain; `false` when it had to stop half-way.
    fn serve_chain(&mut self, role: Role) -> Result<bool, ChainError> {
        self.ranges.clear();
        match role {
            Role::Inflate => {
                inflate::collect(&self.memory, &self.chain.readable, &mut self.ranges)?;
            }
            Role::Reporting => reporting::collect(&self.chain.writable, &mut self.ranges),
            Role::Deflate | Role::Statistics => {}
        }
        for piece in self.ranges.pieces() {
            if wait_for_fds([borrow(self.stop)], false) == [true] {
                return Ok(false);
            }
            if let Err(error) = (self.discard)(&self.memory, piece) {
                // The guest keeps its promise; only the host gains nothing by it.
                self.events
                    .host_failed(&format!("memory could not be discarded: {error}"));
                break;
            }
        }
        Ok(true)
    }

    /// The queues as they are after the last chain. A buffer that is held is as good as never taken.
    fn into_queues(mut self) -> Vec<Queue> {
        if let Some((number, _)) = self.held {
            self.queues[number].queue.go_to_previous_position();
        }
        let queues = self.queues.into_iter();
        queues.map(|active| active.queue).collect()
    }
}
