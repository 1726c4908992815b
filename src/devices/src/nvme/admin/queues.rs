//! Creating and deleting queues for data (NVM Express 1.4, 5.3 to 5.6), and beginning and ending with all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Admin, Worker, data};
use crate::nvme::MOST_ENTRIES;
use crate::nvme::command::{COMMAND_BYTES, Command, Status};
use crate::nvme::completion::{COMPLETION_BYTES, CompletionQueue, CompletionState};
use crate::nvme::session::{Session, pages};
use crate::nvme::shadow::{Shadow, Slot};
use crate::nvme::submission::{SubmissionQueue, SubmissionState};

/// Bits of command doubleword 11: the ring is in one piece, completions interrupt.
const CONTIGUOUS: u32 = 1 << 0;
const INTERRUPTS: u32 = 1 << 1;

impl<'a> Admin<'a> {
    /// Begins where a session came to rest. Its doorbells are open.
    pub(super) fn begin(worker: &'a mut Worker, session: Session) -> Self {
        let shared = &worker.shared;
        let shadow = session.shadow;
        let cache = session.features.write_cache();
        shared.write_cache.store(cache, Ordering::SeqCst);
        let mut completions = BTreeMap::new();
        for state in session.completion {
            let id = state.id;
            // Admin doorbells are registers always.
            let shadow = shadow.filter(|_| id != 0);
            let queue = CompletionQueue::new(state, shadow, Arc::clone(shared));
            completions.insert(id, queue);
        }
        let mut queues = session.submission;
        // A session was checked when it began: it has admin queues, and no queue completes nowhere.
        let mut admin = queues.remove(0);
        let completion = completions.remove(&0).expect("an admin completion queue");
        let done = std::mem::take(&mut admin.done);
        let mut admin = Self {
            queue: SubmissionQueue::new(admin, None, Arc::clone(shared)),
            shared,
            threads: &mut worker.threads,
            completion,
            completions,
            submissions: BTreeMap::new(),
            features: session.features,
            events: session.events,
            shadow,
            done: done.into(),
        };
        for queue in queues {
            admin.start(queue);
        }
        admin.place_doorbells();
        admin
    }

    /// Brings everything to rest.
    pub(super) fn end(mut self) -> Session {
        let ids: Vec<u16> = self.submissions.keys().copied().collect();
        let running: Vec<SubmissionState> = ids.iter().filter_map(|&id| self.stop(id)).collect();
        self.post();
        let done = self.done.into();
        let mut submission = vec![self.queue.into_state(done, Vec::new())];
        submission.extend(running);
        let completion = [&self.completion]
            .into_iter()
            .chain(self.completions.values());
        let completion = completion.map(|queue| queue.state()).collect();
        let doorbells = &self.shared.doorbells;
        doorbells.close_all();
        self.shared.kernel_doorbells.want(false, doorbells);
        Session {
            submission,
            completion,
            features: self.features,
            events: self.events,
            shadow: self.shadow,
        }
    }

    fn place_doorbells(&self) {
        let wanted = self.shadow.is_some();
        self.shared
            .kernel_doorbells
            .want(wanted, &self.shared.doorbells);
    }

    fn thread(&mut self, id: u16) -> Option<&mut super::QueueThread<data::Worker>> {
        self.threads.get_mut(usize::from(id).checked_sub(1)?)
    }

    fn start(&mut self, queue: SubmissionState) {
        let (id, shadow) = (queue.id, self.shadow);
        let Some(completion) = self.completions.get(&queue.completion).cloned() else {
            return;
        };
        self.submissions.insert(id, queue.completion);
        let start = data::Start {
            queue,
            completion,
            shadow,
        };
        if let Some(thread) = self.thread(id) {
            thread.start(start);
        }
    }

    /// Waits for the commands of a submission queue that are under way.
    fn stop(&mut self, id: u16) -> Option<SubmissionState> {
        self.submissions.remove(&id)?;
        self.thread(id)?.stop()
    }

    /// Number and entries of the queue to be created.
    fn new_queue(&self, command: &Command, exists: bool) -> Result<(u16, u32), Status> {
        let word = command.word(10);
        let (id, size) = (word as u16, (word >> 16) + 1);
        if !(1..=self.shared.options.queues).contains(&id) || exists {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if !(2..=MOST_ENTRIES).contains(&size) {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        if command.word(11) & CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok((id, size))
    }

    fn check_ring(&self, base: u64, length: u64) -> Result<(), Status> {
        if pages(&self.shared.memory, base, length) {
            Ok(())
        } else {
            Err(Status::INVALID_FIELD)
        }
    }

    pub(super) fn create_completion(&mut self, command: &Command) -> Result<(), Status> {
        let exists = self.completions.contains_key(&(command.word(10) as u16));
        let (id, size) = self.new_queue(command, exists)?;
        let word = command.word(11);
        let vector = (word >> 16) as u16;
        if vector >= self.shared.msix.count() {
            return Err(Status::INVALID_VECTOR);
        }
        let base = command.data[0];
        self.check_ring(base, u64::from(size) * COMPLETION_BYTES)?;
        let vector = (word & INTERRUPTS != 0).then_some(vector);
        let state = CompletionState::new(id, base, size, vector);
        self.shared.doorbells.open_completion(id, size, 0);
        if let Some(shadow) = &self.shadow {
            shadow.begin(&self.shared.memory, Slot::Head(id), 0);
        }
        let queue = CompletionQueue::new(state, self.shadow, Arc::clone(self.shared));
        self.completions.insert(id, queue);
        Ok(())
    }

    pub(super) fn create_submission(&mut self, command: &Command) -> Result<(), Status> {
        let exists = self.submissions.contains_key(&(command.word(10) as u16));
        let (id, size) = self.new_queue(command, exists)?;
        let completion = (command.word(11) >> 16) as u16;
        if !(1..=self.shared.options.queues).contains(&completion) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if !self.completions.contains_key(&completion) {
            return Err(Status::INVALID_COMPLETION_QUEUE);
        }
        let base = command.data[0];
        self.check_ring(base, u64::from(size) * COMMAND_BYTES as u64)?;
        self.shared.doorbells.open_submission(id, size, 0);
        if let Some(shadow) = &self.shadow {
            shadow.begin(&self.shared.memory, Slot::Tail(id), 0);
        }
        self.start(SubmissionState::new(id, base, size, completion));
        Ok(())
    }

    /// Commands under way are completed first; what finds no room in the completion queue is gone.
    pub(super) fn delete_submission(&mut self, command: &Command) -> Result<(), Status> {
        let id = command.word(10) as u16;
        self.stop(id).ok_or(Status::INVALID_QUEUE_ID)?;
        self.shared.doorbells.close_submission(id);
        Ok(())
    }

    pub(super) fn delete_completion(&mut self, command: &Command) -> Result<(), Status> {
        let id = command.word(10) as u16;
        if !self.completions.contains_key(&id) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if self
            .submissions
            .values()
            .any(|&completion| completion == id)
        {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        self.completions.remove(&id);
        self.shared.doorbells.close_completion(id);
        Ok(())
    }

    /// Doorbells are in these pages from now on (5.7). Queues begin anew with them where they are.
    pub(super) fn use_shadow(&mut self, command: &Command) -> Result<(), Status> {
        let memory = &self.shared.memory;
        let shadow = Shadow::new(command.data, memory).ok_or(Status::INVALID_FIELD)?;
        let ids: Vec<u16> = self.submissions.keys().copied().collect();
        let running: Vec<SubmissionState> = ids.iter().filter_map(|&id| self.stop(id)).collect();
        for (id, queue) in &mut self.completions {
            let state = queue.state();
            shadow.begin(memory, Slot::Head(*id), state.head);
            *queue = CompletionQueue::new(state, Some(shadow), Arc::clone(self.shared));
        }
        self.shadow = Some(shadow);
        for queue in running {
            shadow.begin(memory, Slot::Tail(queue.id), queue.tail);
            self.start(queue);
        }
        self.place_doorbells();
        Ok(())
    }
}
