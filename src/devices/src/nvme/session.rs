//! Everything a controller has for its driver, from when it is enabled to when it is reset, while
//! it is at rest: paused, saved, or about to begin.

use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use super::admin::{Events, Features};
use super::command::COMMAND_BYTES;
use super::completion::{COMPLETION_BYTES, CompletionState};
use super::doorbells::Doorbells;
use super::io::{DEPTH, MOST_DONE};
use super::registers::Registers;
use super::shadow::Shadow;
use super::shared::Shared;
use super::submission::SubmissionState;
use super::{MOST_ENTRIES, PAGE};
use crate::GuestMemory;

/// Most entries of the admin queues (NVM Express 1.4, 3.1.8).
const MOST_ADMIN_ENTRIES: u32 = 4096;

/// A controller at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// By rising number; 0 is the admin queue.
    pub submission: Vec<SubmissionState>,
    /// By rising number; 0 is the admin queue's.
    pub completion: Vec<CompletionState>,
    pub features: Features,
    pub events: Events,
    /// The driver leaves its indices there.
    pub shadow: Option<Shadow>,
}

impl Session {
    /// What a driver that enables the controller begins with.
    pub fn new(registers: &Registers) -> Self {
        let (submission, completion) = registers.admin_queues();
        Self {
            submission: vec![SubmissionState::new(0, submission.0, submission.1, 0)],
            completion: vec![CompletionState::new(0, completion.0, completion.1, Some(0))],
            features: Features::default(),
            events: Events::default(),
            shadow: None,
        }
    }

    /// Opens the doorbells of all queues.
    pub fn open(&self, doorbells: &Doorbells) {
        for queue in &self.completion {
            doorbells.open_completion(queue.id, queue.size, queue.head);
        }
        for queue in &self.submission {
            doorbells.open_submission(queue.id, queue.size, queue.tail);
        }
    }

    /// Whether this can be in a controller with `queues` pairs for data.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self, shared: &Shared) -> Result<(), String> {
        let queues = shared.options.queues;
        let order = |ids: Vec<u16>| {
            ids.first() == Some(&0)
                && ids.last().is_some_and(|&last| last <= queues)
                && ids.is_sorted_by(|a, b| a < b)
        };
        let ids = self.submission.iter().map(|queue| queue.id).collect();
        let completion_ids: Vec<u16> = self.completion.iter().map(|queue| queue.id).collect();
        if !order(ids) || !order(completion_ids.clone()) {
            return Err("queues that cannot be".to_owned());
        }
        for queue in &self.submission {
            let own = queue.completion == 0 && queue.id == 0;
            let other = queue.completion != 0 && queue.id != 0;
            if !(own || other) || !completion_ids.contains(&queue.completion) {
                return Err(format!("submission queue {} completes nowhere", queue.id));
            }
            check_submission(queue, &shared.memory)
                .map_err(|problem| format!("submission queue {}: {problem}", queue.id))?;
        }
        for queue in &self.completion {
            check_completion(queue, shared)
                .map_err(|problem| format!("completion queue {}: {problem}", queue.id))?;
        }
        if self
            .shadow
            .is_some_and(|shadow| !shadow.possible(&shared.memory))
        {
            return Err("doorbells outside of guest memory".to_owned());
        }
        self.events.check()
    }
}

fn check_submission(queue: &SubmissionState, memory: &GuestMemory) -> Result<(), String> {
    check_ring(
        queue.id,
        queue.base,
        queue.size,
        COMMAND_BYTES as u64,
        memory,
    )?;
    if queue.head >= queue.size || queue.tail >= queue.size {
        return Err("an index beyond its end".to_owned());
    }
    if queue.done.len() > MOST_DONE {
        return Err(format!("{} commands that ended", queue.done.len()));
    }
    let unfinished = queue.unfinished.len();
    if unfinished > usize::from(DEPTH) || queue.id == 0 && unfinished > 0 {
        return Err(format!("{unfinished} commands that did not end"));
    }
    Ok(())
}

fn check_completion(queue: &CompletionState, shared: &Shared) -> Result<(), String> {
    check_ring(
        queue.id,
        queue.base,
        queue.size,
        COMPLETION_BYTES,
        &shared.memory,
    )?;
    if queue.head >= queue.size || queue.tail >= queue.size {
        return Err("an index beyond its end".to_owned());
    }
    match queue.vector {
        Some(vector) if vector >= shared.msix.count() => Err(format!("vector {vector}")),
        _ => Ok(()),
    }
}

fn check_ring(
    id: u16,
    base: u64,
    size: u32,
    entry: u64,
    memory: &GuestMemory,
) -> Result<(), String> {
    let most = if id == 0 {
        MOST_ADMIN_ENTRIES
    } else {
        MOST_ENTRIES
    };
    if !(2..=most).contains(&size) {
        return Err(format!("{size} entries"));
    }
    if !pages(memory, base, u64::from(size) * entry) {
        return Err("not in guest memory".to_owned());
    }
    Ok(())
}

/// Whether a page of guest memory begins at `address`.
pub(super) fn page(memory: &GuestMemory, address: u64) -> bool {
    pages(memory, address, PAGE)
}

/// Whether `length` bytes of guest memory are at `address`, which begins a page.
pub(super) fn pages(memory: &GuestMemory, address: u64, length: u64) -> bool {
    address.is_multiple_of(PAGE)
        && address.checked_add(length).is_some()
        && memory.check_range(
            GuestAddress(address),
            length as usize,
            Permissions::ReadWrite,
        )
}
