//! A submission queue while its thread serves it: takes commands, hands them to the engine, posts their ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lodge_block::engine::{Engine, Fired};
use vmm_sys_util::eventfd::EventFd;

use super::decode::{self, Request};
use super::ranges::Ranges;
use super::steps::Work;
use super::{BATCH, DEPTH, Worker};
use crate::nvme::command::{Command, Done, Status};
use crate::nvme::completion::CompletionQueue;
use crate::nvme::shared::Shared;
use crate::nvme::submission::{SubmissionQueue, SubmissionState};
use crate::throttle::Gate;
use crate::virtio::blk::statistics::add;
use crate::virtio::wait::{borrow, wait_for};

/// Positions of the events the engine watches.
const STOP: usize = 0;

/// A command the engine has.
pub(super) struct Pending {
    pub command: Command,
    pub work: Work,
    /// What the step under way moves.
    pub bytes: u64,
}

/// The queue while it is served.
pub(super) struct Session<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) shared: &'a Shared,
    gate: &'a mut Gate,
    queue: SubmissionQueue,
    completion: Arc<CompletionQueue>,
    /// By the engine's token. Commands' own identifiers may be anything.
    pub(super) pending: Vec<Option<Pending>>,
    pub(super) free: Vec<u16>,
    /// Commands that ended and are not posted.
    done: VecDeque<Done>,
    /// Commands that a session before this one fetched, and could not do.
    again: VecDeque<Command>,
    /// Commands that this one could not do. Once there are any, no more are begun.
    pub(super) held_back: Vec<Command>,
    pub(super) buffers: Vec<libc::iovec>,
    /// Commands may have been left in the queue because of the disk's limits, for so long.
    throttled: Option<Duration>,
    /// No more than what is under way is to be done.
    pub(super) stopping: bool,
}

impl<'a> Session<'a> {
    pub fn new(
        worker: &'a mut Worker,
        queue: SubmissionQueue,
        completion: Arc<CompletionQueue>,
        done: Vec<Done>,
        again: Vec<Command>,
    ) -> Self {
        Self {
            engine: &mut worker.engine,
            shared: &worker.shared,
            gate: &mut worker.gate,
            queue,
            completion,
            pending: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH).rev().collect(),
            done: done.into(),
            again: again.into(),
            held_back: Vec::new(),
            buffers: Vec::new(),
            throttled: None,
            stopping: false,
        }
    }

    /// Serves until `stop` is readable.
    pub fn run(&mut self, stop: &EventFd) {
        let kick = self.shared.doorbells.kick(self.queue.id());
        let events = [borrow(stop), borrow(kick), self.gate.changed()];
        self.engine.watch(events);
        let served = self.serve();
        self.finish_all();
        if let Err(error) = served.and_then(|()| self.engine.unwatch()) {
            self.shared
                .fail(&format!("the host's I/O ring does not work: {error}"));
            // A reset must still find somebody to answer it.
            wait_for(stop);
        }
    }

    /// The queue as it is after the last command.
    pub fn into_state(mut self) -> SubmissionState {
        self.held_back.extend(self.again);
        self.queue.into_state(self.done.into(), self.held_back)
    }

    fn serve(&mut self) -> io::Result<()> {
        // There may be commands from before, which nobody will announce again.
        let mut more = true;
        let mut completions = Vec::new();
        loop {
            #[cfg(feature = "fuzzing")]
            if !more {
                crate::fuzzing::end_turn();
            }
            let most = match more {
                true => Some(Duration::ZERO),
                false => self.throttled.take(),
            };
            let fired: Fired = self.engine.wait_at_most(most, &mut completions)?;
            for completion in completions.drain(..) {
                self.advance(completion);
            }
            let posted = self.post();
            if fired.has(STOP) {
                return Ok(());
            }
            // Without room for completions the driver has to make some first, which rings.
            let may_go_on = posted && !self.shared.failed() && self.held_back.is_empty();
            more = may_go_on && self.take_commands();
        }
    }

    /// Completes all the engine has, the regular end.
    fn finish_all(&mut self) {
        self.stopping = true;
        let mut completions = Vec::new();
        loop {
            if let Err(error) = self.engine.drain(&mut completions) {
                // Memory the kernel may still write to must not be given to anything else.
                tracing::error!(%error, "the disk engine cannot be stopped");
                std::process::abort();
            }
            if completions.is_empty() {
                break;
            }
            for completion in completions.drain(..) {
                self.advance(completion);
            }
        }
        self.post();
    }

    fn post(&mut self) -> bool {
        let (id, head) = (self.queue.id(), self.queue.head());
        self.completion.post(id, head, &mut self.done)
    }

    /// Begins commands while there are any and room for them; tells whether to come back at once.
    fn take_commands(&mut self) -> bool {
        for _ in 0..BATCH {
            if self.free.is_empty() {
                // The engine wakes us.
                return !self.done.is_empty();
            }
            self.throttled = self.gate.wait();
            if self.throttled.is_some() {
                return !self.done.is_empty();
            }
            let again = self.again.pop_front();
            let Some(command) = again.or_else(|| self.queue.next()) else {
                self.gate.idle();
                return self.queue.rearm() || !self.done.is_empty();
            };
            if let Err(status) = self.begin(&command) {
                add(&self.shared.statistics.errors, 1);
                self.end(&command, status);
            }
        }
        true
    }

    fn begin(&mut self, command: &Command) -> Result<(), Status> {
        let request = decode::decode(command, self.shared)?;
        match &request {
            Request::Read(run) | Request::Write { run, .. } => self.gate.charge(run.length),
            Request::Flush | Request::Zero { .. } | Request::Discard(_) => self.gate.charge(0),
            Request::Nothing => {}
        }
        match request {
            Request::Nothing => {
                self.end(command, Status::SUCCESS);
                Ok(())
            }
            Request::Read(run) => self.transfer(command, run, Work::Read),
            Request::Write { run, through } => self.transfer(command, run, Work::Write { through }),
            Request::Flush => self.step(command, Work::Flush),
            Request::Zero {
                run,
                unmap,
                through,
            } => self.step(
                command,
                Work::Zero {
                    run,
                    unmap,
                    through,
                },
            ),
            Request::Discard(count) => {
                let ranges = Ranges::read(command, self.shared, count)?;
                self.step(command, Work::Discard(ranges))
            }
        }
    }

    /// A command has ended.
    pub(super) fn end(&mut self, command: &Command, status: Status) {
        self.done.push_back(Done::new(command, status));
    }
}
