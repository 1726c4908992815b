//! Completion queues (NVM Express 1.4, 4.1 and 4.6).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::command::Done;
use super::shadow::{Shadow, Slot};
use super::shared::{Event, Shared};

/// Bytes of an entry.
pub(super) const COMPLETION_BYTES: u64 = 16;

/// A completion queue at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CompletionState {
    pub id: u16,
    pub base: u64,
    /// Entries.
    pub size: u32,
    /// The entry written next.
    pub tail: u32,
    /// The first entry the driver has not taken.
    pub head: u32,
    /// The phase tag of the round of the ring.
    pub phase: bool,
    /// The interrupt, if the driver wants any.
    pub vector: Option<u16>,
}

impl CompletionState {
    pub fn new(id: u16, base: u64, size: u32, vector: Option<u16>) -> Self {
        Self {
            id,
            base,
            size,
            tail: 0,
            head: 0,
            phase: true,
            vector,
        }
    }
}

/// A completion queue, in which the threads of several submission queues may complete.
pub(super) struct CompletionQueue {
    state: Mutex<CompletionState>,
    shadow: Option<Shadow>,
    shared: Arc<Shared>,
}

impl CompletionQueue {
    pub fn new(state: CompletionState, shadow: Option<Shadow>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            shadow,
            shared,
        })
    }

    /// The queue as it is.
    pub fn state(&self) -> CompletionState {
        let mut state = self.state.lock().unwrap().clone();
        state.head = self.head(&state);
        state
    }

    /// Posts as many of `done` as there is room for, and interrupts the driver; tells whether all
    /// were posted. They are of submission queue `from`, which is fetched up to `head`.
    pub fn post(&self, from: u16, head: u32, done: &mut VecDeque<Done>) -> bool {
        if done.is_empty() {
            return true;
        }
        let mut state = self.state.lock().unwrap();
        let before = done.len();
        while let Some(end) = done.front() {
            if self.full(&mut state) {
                break;
            }
            if self.write(&state, from, head, end).is_err() {
                self.shared
                    .fail("a completion queue is not in guest memory");
                break;
            }
            state.tail = (state.tail + 1) % state.size;
            state.phase ^= state.tail == 0;
            done.pop_front();
        }
        let vector = state.vector.filter(|_| done.len() < before);
        drop(state);
        if let Some(vector) = vector {
            self.shared.msix.trigger(vector);
        }
        done.is_empty()
    }

    /// Whether there is no room. If so, whoever waits is rung when the driver makes some.
    fn full(&self, state: &mut CompletionState) -> bool {
        let next = (state.tail + 1) % state.size;
        if next != state.head {
            return false;
        }
        state.head = self.head(state);
        if next != state.head {
            return false;
        }
        self.shared.doorbells.wait_for_head(state.id);
        if let Some(shadow) = &self.shadow {
            shadow.ask(&self.shared.memory, Slot::Head(state.id), state.head);
        }
        // It may have been made just before that.
        state.head = self.head(state);
        next == state.head
    }

    /// How far the driver is.
    fn head(&self, state: &CompletionState) -> u32 {
        let memory = &self.shared.memory;
        let head = match &self.shadow {
            Some(shadow) => shadow.read(memory, Slot::Head(state.id)),
            None => Some(self.shared.doorbells.head(state.id)),
        };
        match head {
            Some(head) if head < state.size => head,
            _ => {
                self.shared.report(Event::DoorbellValue);
                state.head
            }
        }
    }

    fn write(
        &self,
        state: &CompletionState,
        from: u16,
        head: u32,
        done: &Done,
    ) -> vm_memory::GuestMemoryResult<()> {
        let memory = &self.shared.memory;
        // The ring was found in guest memory.
        let at = state.base + u64::from(state.tail) * COMPLETION_BYTES;
        let queue = head | u32::from(from) << 16;
        let tag = u16::from(state.phase) | done.status.bits() << 1;
        let last = u32::from(done.id) | u32::from(tag) << 16;
        memory.write_obj(done.result.to_le(), GuestAddress(at))?;
        memory.write_obj(0_u32, GuestAddress(at + 4))?;
        memory.write_obj(queue.to_le(), GuestAddress(at + 8))?;
        // The phase tag last: whoever polls it finds the rest there.
        memory.store(last.to_le(), GuestAddress(at + 12), Ordering::Release)
    }
}
