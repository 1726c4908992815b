//! Commands on their way to a drive's thread and back.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::command::{self, Fault, Fetched};
use super::fis::TaskFile;
use super::hba::Hba;
use crate::GuestMemory;

/// A command in a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub slot: u32,
    /// Which commands of the port it is one of, see `Port`.
    pub epoch: u64,
    /// The command list it is in.
    pub list: u64,
}

/// What became of a wish to begin a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// The thread has it, and must complete it.
    Started,
    /// Not before those under way are done.
    Wait,
    /// The driver took it back.
    Gone,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a register frame; before it, if data was moved by PIO, which way and how many bytes
    /// the last block had.
    Registers { data: Option<(bool, u16)> },
    /// With the last block of data to the host, of so many bytes.
    DataIn(u16),
    /// As queued commands do.
    Queued,
    /// It was no command but a new value of the device control register.
    Control(u8),
    /// With an error of the controller.
    Fault(Fault),
    /// Not at all: it is to be done again later.
    Abandoned,
}

/// The end of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub ending: Ending,
    pub task: TaskFile,
    /// Bytes moved.
    pub bytes: u32,
    /// The driver asked to hear of its data.
    pub marked: bool,
    /// The driver gave less memory than the device had data.
    pub short: bool,
}

impl Done {
    /// An end that moved nothing.
    pub fn new(ending: Ending, task: TaskFile) -> Self {
        Self {
            ending,
            task,
            bytes: 0,
            marked: false,
            short: false,
        }
    }

    /// An end without a task file.
    pub fn bare(ending: Ending) -> Self {
        Self::new(ending, TaskFile::default())
    }
}

/// A port as its drive's thread sees it.
#[derive(Clone)]
pub(super) struct PortLink {
    hba: Arc<Hba>,
    port: usize,
    memory: GuestMemory,
}

impl PortLink {
    pub fn new(hba: Arc<Hba>, port: usize, memory: GuestMemory) -> Self {
        Self { hba, port, memory }
    }

    /// Signalled when there may be something to do.
    pub fn kick(&self) -> &EventFd {
        self.hba.kick(self.port)
    }

    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Begins the next command that may be begun and tells what it is. Commands that cannot be
    /// fetched are dealt with in here.
    pub fn next(&self, queued: impl Fn(&Fetched) -> bool) -> Option<(Ticket, Fetched)> {
        loop {
            let ticket = self.hba.peek(self.port)?;
            // Guest memory is read without the lock, as vCPUs wait for it.
            let fetched = match command::fetch(&self.memory, ticket.list, ticket.slot) {
                Ok(fetched) => fetched,
                Err(fault) => {
                    self.hba
                        .with_port(self.port, |port| port.refuse(&ticket, fault));
                    return None;
                }
            };
            let queued = queued(&fetched);
            match self
                .hba
                .with_port(self.port, |port| port.begin(&ticket, queued))
            {
                Begin::Started => return Some((ticket, fetched)),
                Begin::Wait => return None,
                // The driver wrote a register, so it is its own turns that this loop counts.
                Begin::Gone => {}
            }
        }
    }

    /// Whether the driver still waits for a command that [`PortLink::next`] gave.
    pub fn wanted(&self, ticket: &Ticket) -> bool {
        self.hba.with_port(self.port, |port| port.wanted(ticket))
    }

    /// Ends a command with as much of `bytes` as the driver has memory for.
    pub fn give(&self, ticket: &Ticket, fetched: &Fetched, bytes: &[u8], done: &Done) {
        let copied = fetched
            .data(&self.memory, bytes.len() as u64)
            .and_then(|data| {
                // What is given here is a few KiB.
                let count = data.buffers.len() as usize;
                let written = data.buffers.write_at(&self.memory, 0, &bytes[..count]);
                written.map_err(|_| Fault::Memory)?;
                Ok((count, data.marked))
            });
        let done = match copied {
            Ok((count, marked)) => Done {
                bytes: count as u32,
                marked,
                short: count < bytes.len(),
                ..*done
            },
            Err(fault) => Done::bare(Ending::Fault(fault)),
        };
        self.complete(ticket, &done);
    }

    /// Ends a command that [`PortLink::next`] gave.
    pub fn complete(&self, ticket: &Ticket, done: &Done) {
        self.hba
            .with_port(self.port, |port| port.complete(ticket, done));
    }
}
