//! What the engine does for a disk's commands, step by step.
#![allow(unsafe_code)]

use lodge_block::engine::{Completion, SubmitError};

use super::decode::{self, Run, Style};
use super::session::{Pending, Refusal, Session, Work};
use crate::ahci::ata::error;
use crate::ahci::command::{Data, Fault, Fetched};
use crate::ahci::fis::Command;
use crate::ahci::issue::{Done, Ending, Ticket};

/// Bytes of one range of a TRIM.
const RANGE_BYTES: usize = 8;

impl Session<'_> {
    /// The memory of a command that moves `length` bytes.
    fn data(&self, fetched: &Fetched, length: u64) -> Result<Data, Refusal> {
        let data = fetched
            .data(self.link.memory(), length)
            .map_err(Refusal::Controller)?;
        if data.buffers.len() < length {
            return Err(Refusal::Device(error::ABORTED, true));
        }
        Ok(data)
    }

    pub(super) fn transfer(
        &mut self,
        ticket: &Ticket,
        fetched: &Fetched,
        command: &Command,
        run: Run,
        style: Style,
        work: Work,
    ) -> Result<(), Refusal> {
        let data = self.data(fetched, run.length)?;
        self.buffers.clear();
        data.buffers
            .iovecs(self.link.memory(), &mut self.buffers)
            .map_err(|_| Refusal::Controller(Fault::Memory))?;
        let token = u64::from(ticket.slot);
        let submitted = match work {
            // SAFETY: the buffers lie in guest memory, which the link keeps mapped for longer than
            // the engine lives, as both are in the same worker and no session ends before its
            // engine is drained. Nobody has references into guest memory.
            Work::Read => unsafe { self.engine.read(token, run.offset, &self.buffers) },
            // SAFETY: as above.
            _ => unsafe { self.engine.write(token, run.offset, &self.buffers) },
        };
        submitted.map_err(refused)?;
        self.pending[ticket.slot as usize] = Some(Pending {
            ticket: *ticket,
            command: *command,
            style,
            work,
            // At most 65536 blocks of 4096 bytes.
            bytes: run.length as u32,
            marked: data.marked,
        });
        Ok(())
    }

    pub(super) fn submit_plain(
        &mut self,
        ticket: &Ticket,
        command: &Command,
        mut work: Work,
    ) -> Result<(), Refusal> {
        let (submitted, bytes) = self.submit_step(ticket.slot, &mut work);
        submitted.map_err(refused)?;
        self.pending[ticket.slot as usize] = Some(Pending {
            ticket: *ticket,
            command: *command,
            style: Style::Dma,
            work,
            bytes,
            marked: false,
        });
        Ok(())
    }

    /// Submits a flush, or the next range; tells how many bytes that is.
    fn submit_step(&mut self, slot: u32, work: &mut Work) -> (Result<(), SubmitError>, u32) {
        let token = u64::from(slot);
        match work {
            Work::Trim(runs) => match runs.pop() {
                Some(run) => {
                    let submitted = self.engine.discard(token, run.offset, run.length);
                    // At most 65535 blocks.
                    (submitted, run.length as u32)
                }
                None => (self.engine.flush(token), 0),
            },
            _ => (self.engine.flush(token), 0),
        }
    }

    pub(super) fn trim(
        &mut self,
        ticket: &Ticket,
        fetched: &Fetched,
        command: &Command,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let data = self.data(fetched, bytes)?;
        // A few KiB: the decoder looked.
        let mut list = vec![0; bytes as usize];
        data.buffers
            .read_at(self.link.memory(), 0, &mut list)
            .map_err(|_| Refusal::Controller(Fault::Memory))?;
        let mut runs = Vec::new();
        for entry in list.chunks_exact(RANGE_BYTES) {
            let mut word = [0; RANGE_BYTES];
            word.copy_from_slice(entry);
            let word = u64::from_le_bytes(word);
            let (block, count) = (word & 0xffff_ffff_ffff, word >> 48);
            if count == 0 {
                continue;
            }
            let run = decode::range(self.shared, block, count);
            runs.push(run.ok_or(Refusal::Device(error::NO_ADDRESS, false))?);
        }
        if runs.is_empty() {
            let ending = Ending::Registers { data: None };
            let done = Done::new(ending, decode::success(command));
            self.link.complete(ticket, &done);
            return Ok(());
        }
        runs.reverse();
        self.submit_plain(ticket, command, Work::Trim(runs))
    }

    /// The engine is done with a step of a command.
    pub(super) fn advance(&mut self, completion: Completion) {
        let slot = self.pending.get_mut(completion.token as usize);
        let Some(mut pending) = slot.and_then(Option::take) else {
            return;
        };
        if let Err(error) = completion.result {
            return self.failed(&pending, error);
        }
        self.count(&pending);
        let next = match &mut pending.work {
            Work::Write(true) => Some(Work::Flush),
            Work::Trim(runs) if !runs.is_empty() => Some(Work::Trim(std::mem::take(runs))),
            _ => None,
        };
        let Some(mut work) = next else {
            return self.succeed(&pending);
        };
        let (submitted, bytes) = self.submit_step(pending.ticket.slot, &mut work);
        if let Err(error) = submitted {
            let (ticket, command) = (pending.ticket, pending.command);
            return self.refuse(&ticket, &command, refused(error));
        }
        if let Work::Trim(_) = work {
            pending.bytes = bytes;
        }
        pending.work = work;
        let slot = pending.ticket.slot as usize;
        self.pending[slot] = Some(pending);
    }
}

fn refused(error: SubmitError) -> Refusal {
    tracing::debug!(%error, "disk request refused");
    Refusal::Device(error::ABORTED, false)
}
