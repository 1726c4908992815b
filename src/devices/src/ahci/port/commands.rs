//! Commands between the driver's list and the device's thread.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::Port;
use super::bits::{cmd, event};
use crate::ahci::ata::status;
use crate::ahci::command::{self, Fault};
use crate::ahci::fis::{DEVICE_BITS_AT, PIO_SETUP_AT, REGISTER_AT};
use crate::ahci::issue::{Begin, Done, Ending, Ticket};

impl Port {
    /// Writes a frame where the driver wants it, if it wants any.
    pub(super) fn post(&mut self, offset: u64, frame: &[u8]) {
        if self.registers.cmd & cmd::RECEIVE == 0 {
            return;
        }
        // The area's address is a multiple of 256, so this does not wrap.
        let at = self.registers.received + offset;
        let (first, rest) = frame.split_at(4);
        let word = u32::from_le_bytes([first[0], first[1], first[2], first[3]]);
        // The first word last, so that whoever polls it finds the rest there.
        let written = self
            .memory
            .write_slice(rest, GuestAddress(at + 4))
            .and_then(|()| {
                self.memory
                    .store(word.to_le(), GuestAddress(at), Ordering::Release)
            });
        if written.is_err() {
            self.fail(Fault::Memory);
        }
    }

    /// The controller stops at an error of its own (AHCI 1.3.1, 6.1).
    fn fail(&mut self, fault: Fault) {
        self.registers.halted = true;
        self.registers.events |= match fault {
            Fault::Memory => event::HOST_BUS,
            Fault::Frame => event::INTERFACE,
        };
    }

    /// The next command for the drive, if it may have one.
    pub fn peek(&self) -> Option<Ticket> {
        let registers = &self.registers;
        let open = registers.cmd & cmd::START != 0 && registers.link && !registers.halted;
        // Commands that were taken back must be gone first; one that is not queued runs alone.
        let alone = !self.queued || self.taken != self.epoch;
        if !open || registers.issued == 0 || self.in_flight != 0 && alone {
            return None;
        }
        // In turn, so that no slot is passed over for ever.
        let turn = registers.turn;
        let ahead = registers.issued.rotate_right(turn).trailing_zeros();
        Some(Ticket {
            slot: (turn + ahead) % 32,
            epoch: self.epoch,
            list: registers.list,
        })
    }

    /// Gives the command to the drive.
    pub fn begin(&mut self, ticket: &Ticket, queued: bool) -> Begin {
        let bit = 1 << ticket.slot;
        if !self.current(ticket) || self.registers.issued & bit == 0 {
            return Begin::Gone;
        }
        if self.in_flight != 0 && !(queued && self.queued) || self.in_flight & bit != 0 {
            return Begin::Wait;
        }
        self.in_flight |= bit;
        self.queued = queued;
        self.taken = self.epoch;
        self.registers.current = ticket.slot;
        self.registers.turn = (ticket.slot + 1) % 32;
        if queued {
            // The device took it and is ready for more.
            self.registers.issued &= !bit;
            self.registers.active |= bit;
        } else {
            self.registers.task |= u32::from(status::BSY);
        }
        Begin::Started
    }

    /// Whether the driver still waits for the command.
    pub fn wanted(&self, ticket: &Ticket) -> bool {
        self.current(ticket)
    }

    fn current(&self, ticket: &Ticket) -> bool {
        ticket.epoch == self.epoch && !self.registers.halted
    }

    /// A command that cannot even be fetched.
    pub fn refuse(&mut self, ticket: &Ticket, fault: Fault) {
        if self.current(ticket) {
            self.registers.current = ticket.slot;
            self.fail(fault);
        }
    }

    /// The drive is done with a command.
    pub fn complete(&mut self, ticket: &Ticket, done: &Done) {
        let bit = 1_u32 << ticket.slot;
        self.in_flight &= !bit;
        if !matches!(done.ending, Ending::Queued) {
            self.registers.task &= !u32::from(status::BSY);
        }
        if !self.current(ticket) {
            return;
        }
        let task = &done.task;
        let failed = task.status & status::ERR != 0;
        match done.ending {
            Ending::Abandoned => {
                // A queued one had left the list when the drive took it.
                self.registers.issued |= bit;
                return;
            }
            Ending::Fault(fault) => return self.fail(fault),
            Ending::Control(control) => return self.control(bit, control),
            Ending::Queued => {
                let finished = if failed { 0 } else { bit };
                self.registers.active &= !finished;
                self.count(ticket, done.bytes);
                self.post(DEVICE_BITS_AT, &task.device_bits(finished));
                self.registers.events |= event::DEVICE_BITS;
            }
            Ending::DataIn(block) => {
                self.count(ticket, done.bytes);
                self.post(PIO_SETUP_AT, &task.pio_setup(status::DATA, true, block));
                self.registers.events |= event::PIO_SETUP;
                self.registers.issued &= !bit;
            }
            Ending::Registers { data } => {
                self.count(ticket, done.bytes);
                if let Some((to_host, block)) = data {
                    self.post(PIO_SETUP_AT, &task.pio_setup(status::DATA, to_host, block));
                    self.registers.events |= event::PIO_SETUP;
                }
                self.post(REGISTER_AT, &task.register(true));
                self.registers.events |= event::REGISTER;
                // A command that failed stays, so that the driver finds it (AHCI 1.3.1, 6.2.2.1).
                if !failed {
                    self.registers.issued &= !bit;
                }
            }
        }
        self.set_task(task);
        if done.marked {
            self.registers.events |= event::DESCRIPTOR;
        }
        if done.short {
            self.registers.events |= event::OVERFLOW;
        }
        if failed {
            self.registers.events |= event::TASK_FILE;
            self.registers.halted = true;
        }
    }

    /// Tells in the command list how many bytes were moved.
    fn count(&mut self, ticket: &Ticket, bytes: u32) {
        let written = command::transferred_at(ticket.list, ticket.slot)
            .map(|at| self.memory.write_obj(bytes.to_le(), at));
        if !matches!(written, Some(Ok(()))) {
            self.fail(Fault::Memory);
        }
    }
}
