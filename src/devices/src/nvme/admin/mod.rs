//! The admin queue (NVM Express 1.4, 5) and the thread behind it, which starts and stops all others.

mod events;
mod features;
mod identify;
mod log;
mod queues;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::eventfd::EventFd;

pub(super) use self::events::Events;
pub(super) use self::features::Features;
use super::command::{Command, Done, Status};
use super::completion::CompletionQueue;
use super::registers::status;
use super::session::Session;
use super::shadow::Shadow;
use super::shared::Shared;
use super::submission::SubmissionQueue;
use super::{io as data, prp};
use crate::virtio::Prologue;
use crate::virtio::blk::statistics::add;
use crate::virtio::queue_thread::{QueueThread, Serve};
use crate::virtio::wait::{borrow, wait_for_fds};

/// Commands carried out before the thread looks whether it is to stop.
const BATCH: usize = 64;

mod opcode {
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    pub const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;
}

/// What stays between sessions.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Of submission queue 1 and those after it.
    threads: Vec<QueueThread<data::Worker>>,
}

impl Worker {
    /// Starts the threads of the queues for data.
    ///
    /// # Errors
    /// When threads or io_urings cannot be made.
    pub fn new(shared: &Arc<Shared>, prologue: &Prologue) -> io::Result<Self> {
        let spawn = |id| {
            let (name, worker) = (format!("nvme-queue-{id}"), data::Worker::new(shared)?);
            QueueThread::spawn(&name, Arc::clone(prologue), worker)
        };
        let threads = (1..=shared.options.queues).map(spawn);
        Ok(Self {
            shared: Arc::clone(shared),
            threads: threads.collect::<io::Result<_>>()?,
        })
    }
}

impl Serve for Worker {
    type Start = Session;
    type End = Session;

    fn serve(&mut self, start: Session, stop: &EventFd) -> Session {
        let mut admin = Admin::begin(self, start);
        admin.run(stop);
        admin.end()
    }
}

/// The controller while it runs.
struct Admin<'a> {
    shared: &'a Arc<Shared>,
    threads: &'a mut [QueueThread<data::Worker>],
    queue: SubmissionQueue,
    completion: Arc<CompletionQueue>,
    /// Completion queues for data, by their number.
    completions: BTreeMap<u16, Arc<CompletionQueue>>,
    /// Submission queues for data, and the completion queue of each.
    submissions: BTreeMap<u16, u16>,
    features: Features,
    events: Events,
    shadow: Option<Shadow>,
    /// Commands that ended and are not posted.
    done: VecDeque<Done>,
}

impl Admin<'_> {
    /// Serves until `stop` is readable.
    fn run(&mut self, stop: &EventFd) {
        let kick = self.shared.doorbells.kick(0);
        loop {
            let more = self.turn();
            let [stopped, kicked] = wait_for_fds([borrow(stop), borrow(kick)], !more);
            if stopped {
                return;
            }
            if kicked {
                let _ = kick.read();
            }
        }
    }

    /// Does what there is to do, within a batch; tells whether to come back at once.
    fn turn(&mut self) -> bool {
        self.shut_down_if_asked();
        // Without room for completions the driver has to make some first, which rings.
        if !self.post() || self.shared.failed() {
            return false;
        }
        let more = self.take_commands();
        let told = self
            .events
            .tell(self.shared, self.features.wanted_notices());
        self.done.extend(told);
        more || !self.done.is_empty()
    }

    fn post(&mut self) -> bool {
        self.completion.post(0, self.queue.head(), &mut self.done)
    }

    fn take_commands(&mut self) -> bool {
        for _ in 0..BATCH {
            let Some(command) = self.queue.next() else {
                return false;
            };
            let (status, result) = match self.carry_out(&command) {
                Ok(Some(result)) => (Status::SUCCESS, result),
                // It is for later.
                Ok(None) => continue,
                Err(status) => (status, 0),
            };
            self.done.push_back(Done {
                id: command.id,
                status,
                result,
            });
        }
        true
    }

    /// Carries out a command and returns the completion's doubleword 0; nothing if it does not end yet.
    fn carry_out(&mut self, command: &Command) -> Result<Option<u32>, Status> {
        command.check()?;
        let done = |()| Some(0);
        match command.opcode {
            opcode::DELETE_SUBMISSION_QUEUE => self.delete_submission(command).map(done),
            opcode::CREATE_SUBMISSION_QUEUE => self.create_submission(command).map(done),
            opcode::DELETE_COMPLETION_QUEUE => self.delete_completion(command).map(done),
            opcode::CREATE_COMPLETION_QUEUE => self.create_completion(command).map(done),
            opcode::GET_LOG_PAGE => self.get_log_page(command).map(done),
            opcode::IDENTIFY => {
                let page = identify::page(command, self.shared)?;
                self.give(command, &page[..]).map(done)
            }
            // The command runs to its end.
            opcode::ABORT => Ok(Some(1)),
            opcode::SET_FEATURES => self.set_feature(command).map(Some),
            opcode::GET_FEATURES => self.features.get(command, self.shared).map(Some),
            opcode::ASYNC_EVENT_REQUEST => self.events.request(command).map(|()| None),
            opcode::DOORBELL_BUFFER_CONFIG => self.use_shadow(command).map(done),
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Copies `bytes` to where the command wants them.
    fn give(&self, command: &Command, bytes: &[u8]) -> Result<(), Status> {
        let memory = &self.shared.memory;
        prp::buffers(memory, command.data, bytes.len() as u64)?
            .write_at(memory, 0, bytes)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn set_feature(&mut self, command: &Command) -> Result<u32, Status> {
        let queues = !(self.submissions.is_empty() && self.completions.is_empty());
        let result = self.features.set(command, self.shared, queues)?;
        let cache = self.features.write_cache();
        self.shared.write_cache.store(cache, Ordering::SeqCst);
        Ok(result)
    }

    /// Makes what was written durable before power goes (7.6.2).
    fn shut_down_if_asked(&mut self) {
        if !self.shared.shutdown.swap(false, Ordering::SeqCst) {
            return;
        }
        let shared = self.shared;
        if let Err(errno) = nix::unistd::fdatasync(&*shared.image) {
            // The driver gives up waiting and knows that something went wrong.
            (shared.complain)(&shared.name, &format!("the last flush failed: {errno}"));
            return;
        }
        add(&shared.statistics.flushes, 1);
        let change = status::SHUTTING_DOWN | status::SHUT_DOWN;
        shared.status.fetch_xor(change, Ordering::SeqCst);
    }
}
