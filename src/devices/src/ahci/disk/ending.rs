//! How a disk's commands end, and how that is counted.

use lodge_block::engine::IoError;

use super::decode::{self, Style};
use super::log::Failure;
use super::session::{Pending, Refusal, Session, Work};
use crate::ahci::ata::error;
use crate::ahci::fis::Command;
use crate::ahci::issue::{Done, Ending, Ticket};
use crate::virtio::blk::statistics::add;

impl Session<'_> {
    pub(super) fn succeed(&self, pending: &Pending) {
        let moved = !matches!(pending.work, Work::Trim(_));
        let reads = matches!(pending.work, Work::Read);
        let ending = match pending.style {
            Style::Queued => Ending::Queued,
            Style::Dma => Ending::Registers { data: None },
            Style::Pio(block) => {
                let last = last_block(pending.bytes, block);
                if reads {
                    Ending::DataIn(last)
                } else {
                    let data = Some((false, last));
                    Ending::Registers { data }
                }
            }
        };
        let done = Done {
            bytes: if moved { pending.bytes } else { 0 },
            marked: pending.marked,
            ..Done::new(ending, decode::success(&pending.command))
        };
        self.link.complete(&pending.ticket, &done);
    }

    pub(super) fn refuse(&self, ticket: &Ticket, command: &Command, refusal: Refusal) {
        match refusal {
            Refusal::Controller(fault) => {
                let done = Done::bare(Ending::Fault(fault));
                self.link.complete(ticket, &done);
            }
            Refusal::Device(bits, short) => {
                add(&self.shared.statistics.errors, 1);
                self.fail(ticket, command, bits, short);
            }
        }
    }

    pub(super) fn fail(&self, ticket: &Ticket, command: &Command, bits: u8, short: bool) {
        let task = decode::failure(command, bits);
        let ending = if decode::queued(command) {
            let failure = Failure::new(ticket.slot, &task);
            self.shared.modes.lock().unwrap().failure = Some(failure);
            Ending::Queued
        } else {
            Ending::Registers { data: None }
        };
        let done = Done {
            short,
            ..Done::new(ending, task)
        };
        self.link.complete(ticket, &done);
    }

    /// Tells the driver that the host failed a command, or leaves the command in its slot for when the disk is resumed.
    pub(super) fn failed(&mut self, pending: &Pending, cause: IoError) {
        let shared = self.shared;
        shared.statistics.failed(cause);
        // One that flushes what it has written itself writes it again.
        let flush = matches!(pending.work, Work::Flush) && pending.bytes == 0;
        if shared.errors.holds_back(cause, flush) {
            let done = Done::bare(Ending::Abandoned);
            self.link.complete(&pending.ticket, &done);
            if !std::mem::replace(&mut self.stuck, true) {
                shared.errors.tell(cause);
            }
            return;
        }
        let code = pending.command.code;
        (self.complain)(&format!("command {code:#04x} failed on the host: {cause}"));
        let bits = match pending.work {
            Work::Read => error::UNCORRECTABLE,
            _ => error::ABORTED,
        };
        self.fail(&pending.ticket, &pending.command, bits, false);
    }

    pub(super) fn count(&self, pending: &Pending) {
        let statistics = &self.shared.statistics;
        let (operations, bytes) = match pending.work {
            Work::Read => (&statistics.reads, Some(&statistics.read_bytes)),
            Work::Write(_) => (&statistics.writes, Some(&statistics.write_bytes)),
            Work::Flush => (&statistics.flushes, None),
            Work::Trim(_) => (&statistics.discards, Some(&statistics.discard_bytes)),
        };
        add(operations, 1);
        if let Some(bytes) = bytes {
            add(bytes, u64::from(pending.bytes));
        }
    }
}

/// Bytes of the last block of a PIO transfer.
fn last_block(bytes: u32, block: u32) -> u16 {
    let rest = match bytes.checked_rem(block) {
        Some(0) | None => block,
        Some(rest) => rest,
    };
    // 16 blocks of 4096 bytes are one byte too many for the field, which no system reads.
    u16::try_from(rest).unwrap_or(u16::MAX - 1)
}
