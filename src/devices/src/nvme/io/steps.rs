//! What the engine does for commands, step by step.
#![allow(unsafe_code)]

use lodge_block::engine::{Completion, IoError, SubmitError};

use super::decode::{self, Run};
use super::ranges::Ranges;
use super::session::{Pending, Session};
use crate::nvme::command::{Command, Status};
use crate::nvme::prp;
use crate::virtio::blk::statistics::add;

/// What is being done for a command.
pub(super) enum Work {
    Read,
    Write {
        /// A flush follows.
        through: bool,
    },
    Flush,
    Zero {
        run: Run,
        unmap: bool,
        /// A flush follows.
        through: bool,
    },
    /// And what else is to be discarded.
    Discard(Ranges),
}

impl Session<'_> {
    /// Begins a command that moves data.
    pub(super) fn transfer(
        &mut self,
        command: &Command,
        run: Run,
        work: Work,
    ) -> Result<(), Status> {
        let memory = &self.shared.memory;
        let data = prp::buffers(memory, command.data, run.length)?;
        self.buffers.clear();
        data.iovecs(memory, &mut self.buffers)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let token = self.token();
        let submitted = match work {
            // SAFETY: the buffers lie in guest memory, which `shared` keeps mapped for longer than the
            // engine lives, as both are in the same worker and no session ends before its engine is
            // drained. Nobody has references into guest memory.
            Work::Read => unsafe { self.engine.read(token, run.offset, &self.buffers) },
            // SAFETY: as above.
            _ => unsafe { self.engine.write(token, run.offset, &self.buffers) },
        };
        submitted.map_err(refused)?;
        self.keep(command, work, run.length);
        Ok(())
    }

    /// Begins the first or next step of a command that moves no data.
    pub(super) fn step(&mut self, command: &Command, mut work: Work) -> Result<(), Status> {
        let token = self.token();
        let (submitted, bytes) = match &mut work {
            Work::Zero { run, unmap, .. } => {
                let zeroed = self
                    .engine
                    .write_zeroes(token, run.offset, run.length, *unmap);
                (zeroed, run.length)
            }
            Work::Discard(ranges) => match ranges.next() {
                Some(run) => {
                    let discarded = self.engine.discard(token, run.offset, run.length);
                    (discarded, run.length)
                }
                None => {
                    self.end(command, Status::SUCCESS);
                    return Ok(());
                }
            },
            Work::Flush | Work::Read | Work::Write { .. } => (self.engine.flush(token), 0),
        };
        submitted.map_err(refused)?;
        self.keep(command, work, bytes);
        Ok(())
    }

    /// The engine's token of the next command. There is one: whoever begins a command looks first.
    fn token(&self) -> u64 {
        self.free.last().copied().unwrap_or(0).into()
    }

    fn keep(&mut self, command: &Command, work: Work, bytes: u64) {
        if let Some(token) = self.free.pop() {
            self.pending[usize::from(token)] = Some(Pending {
                command: *command,
                work,
                bytes,
            });
        }
    }

    /// The engine is done with a step of a command.
    pub(super) fn advance(&mut self, completion: Completion) {
        let slot = self.pending.get_mut(completion.token as usize);
        let Some(pending) = slot.and_then(Option::take) else {
            return;
        };
        // A token is below the engine's depth.
        self.free.push(completion.token as u16);
        let Pending { command, work, .. } = match completion.result {
            Ok(()) => {
                self.count(&pending);
                pending
            }
            Err(error) => return self.failed(&pending, error),
        };
        let next = match work {
            Work::Write { through: true } | Work::Zero { through: true, .. } => Work::Flush,
            Work::Discard(mut ranges) => {
                if self.stopping {
                    ranges.abandon();
                }
                Work::Discard(ranges)
            }
            _ => return self.end(&command, Status::SUCCESS),
        };
        if let Err(status) = self.step(&command, next) {
            self.end(&command, status);
        }
    }

    fn count(&self, pending: &Pending) {
        let statistics = &self.shared.statistics;
        let (operations, bytes) = match pending.work {
            Work::Read => (&statistics.reads, Some(&statistics.read_bytes)),
            Work::Write { .. } => (&statistics.writes, Some(&statistics.write_bytes)),
            Work::Flush => (&statistics.flushes, None),
            Work::Zero { .. } | Work::Discard(_) => {
                (&statistics.discards, Some(&statistics.discard_bytes))
            }
        };
        add(operations, 1);
        if let Some(bytes) = bytes {
            add(bytes, pending.bytes);
        }
    }

    /// Ends a command that failed on the host, or keeps it for when the controller is resumed.
    fn failed(&mut self, pending: &Pending, error: IoError) {
        let shared = self.shared;
        shared.statistics.failed(error);
        let command = &pending.command;
        if shared.errors.holds_back(error, decode::is_flush(command)) {
            self.held_back.push(*command);
            if self.held_back.len() == 1 {
                shared.errors.tell(error);
            }
            return;
        }
        let opcode = command.opcode;
        let what = format!("command {opcode:#04x} failed on the host: {error}");
        (shared.complain)(&shared.name, &what);
        let status = match (error, &pending.work) {
            (IoError::NoSpace, _) => Status::CAPACITY_EXCEEDED,
            (_, Work::Read) => Status::READ_ERROR,
            _ => Status::WRITE_FAULT,
        };
        self.end(command, status);
    }
}

fn refused(error: SubmitError) -> Status {
    tracing::debug!(%error, "disk request refused");
    Status::INTERNAL_ERROR
}
