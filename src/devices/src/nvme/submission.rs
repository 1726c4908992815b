//! Submission queues (NVM Express 1.4, 4.1 and 4.2).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::command::{COMMAND_BYTES, Command, Done};
use super::shadow::{Shadow, Slot};
use super::shared::{Event, Shared};

/// A submission queue at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubmissionState {
    pub id: u16,
    pub base: u64,
    /// Entries.
    pub size: u32,
    /// The entry fetched next.
    pub head: u32,
    /// The entry after the last that the driver has filled.
    pub tail: u32,
    /// The completion queue of its commands.
    pub completion: u16,
    /// Commands that ended and wait for room there.
    pub done: Vec<Done>,
    /// Commands that were fetched and are to be done again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<Command>,
}

impl SubmissionState {
    pub fn new(id: u16, base: u64, size: u32, completion: u16) -> Self {
        Self {
            id,
            base,
            size,
            head: 0,
            tail: 0,
            completion,
            done: Vec::new(),
            unfinished: Vec::new(),
        }
    }
}

/// A submission queue while it is served.
pub(super) struct SubmissionQueue {
    state: SubmissionState,
    shadow: Option<Shadow>,
    shared: Arc<Shared>,
}

impl SubmissionQueue {
    pub fn new(state: SubmissionState, shadow: Option<Shadow>, shared: Arc<Shared>) -> Self {
        Self {
            state,
            shadow,
            shared,
        }
    }

    pub fn id(&self) -> u16 {
        self.state.id
    }

    pub fn head(&self) -> u32 {
        self.state.head
    }

    /// The queue at rest, with what could not be posted, and what could not be done.
    pub fn into_state(mut self, done: Vec<Done>, unfinished: Vec<Command>) -> SubmissionState {
        self.look();
        SubmissionState {
            done,
            unfinished,
            ..self.state
        }
    }

    /// Fetches the next command.
    pub fn next(&mut self) -> Option<Command> {
        if self.state.head == self.state.tail {
            self.look();
            if self.state.head == self.state.tail {
                return None;
            }
        }
        let mut bytes = [0; COMMAND_BYTES];
        // The ring was found in guest memory.
        let at = self.state.base + u64::from(self.state.head) * COMMAND_BYTES as u64;
        let read = self.shared.memory.read_slice(&mut bytes, GuestAddress(at));
        if read.is_err() {
            self.shared
                .fail("a submission queue is not in guest memory");
            return None;
        }
        self.state.head = (self.state.head + 1) % self.state.size;
        Some(Command::parse(&bytes))
    }

    /// Asks to be rung for the next command, when there was none; tells whether it is there already.
    pub fn rearm(&mut self) -> bool {
        if let Some(shadow) = &self.shadow {
            let slot = Slot::Tail(self.state.id);
            shadow.ask(&self.shared.memory, slot, self.state.tail);
            self.look();
        }
        self.state.head != self.state.tail
    }

    /// Sees how far the driver is.
    fn look(&mut self) {
        let id = self.state.id;
        let tail = match &self.shadow {
            Some(shadow) => shadow.read(&self.shared.memory, Slot::Tail(id)),
            None => Some(self.shared.doorbells.tail(id)),
        };
        match tail {
            Some(tail) if tail < self.state.size => self.state.tail = tail,
            _ => self.shared.report(Event::DoorbellValue),
        }
    }
}
