//! The drive's thread: commands of packet devices (ACS-3, 7), and the data of packets.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::Shared;
use super::identify;
use super::packet::{self, Reply};
use super::read::{Outcome, Reader};
use super::sense::Sense;
use crate::ahci::ata::{IDENTITY_BYTES, error, status};
use crate::ahci::command::{Data, Fetched};
use crate::ahci::fis::{Command, Frame, TaskFile};
use crate::ahci::issue::{Done, Ending, PortLink, Ticket};
use crate::ahci::{Attached as _, ResetKind};
use crate::virtio::blk::statistics::add;
use crate::virtio::queue_thread::Serve;
use crate::virtio::wait::{borrow, wait_for_fds};

/// Features of PACKET: data moves by DMA.
const PACKET_DMA: u16 = 1;
/// Most bytes of one block of a PIO transfer.
const MOST_PIO: u16 = 0xfffe;
/// Interrupt reason at the end of a packet.
const REASON_DONE: u16 = 3;

/// What stays between activations.
pub(super) struct Worker {
    shared: Arc<Shared>,
    link: PortLink,
    identity: [u8; IDENTITY_BYTES],
    complain: Arc<dyn Fn(&str) + Send + Sync>,
    reader: Reader,
}

impl Serve for Worker {
    type Start = ();
    type End = ();

    fn serve(&mut self, (): (), stop: &EventFd) {
        let link = self.link.clone();
        let kick = link.kick();
        loop {
            while !stopping(stop) {
                let Some((ticket, fetched)) = self.link.next(|_| false) else {
                    break;
                };
                self.run(&ticket, &fetched, stop);
            }
            let [stopped, kicked] = wait_for_fds([borrow(stop), borrow(kick)], true);
            if stopped {
                return;
            }
            if kicked {
                // Empties the counter; a kick from now on comes again.
                let _ = kick.read();
            }
        }
    }
}

fn stopping(stop: &EventFd) -> bool {
    wait_for_fds([borrow(stop)], false)[0]
}

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        link: PortLink,
        serial: &str,
        complain: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Self {
            shared,
            link,
            identity: identify::identity(serial),
            complain,
            reader: Reader::new(),
        }
    }

    fn run(&mut self, ticket: &Ticket, fetched: &Fetched, stop: &EventFd) {
        match &fetched.frame {
            Frame::Control(value) => {
                let done = Done::bare(Ending::Control(*value));
                self.link.complete(ticket, &done);
            }
            Frame::Command(command) => self.command(ticket, fetched, command, stop),
        }
    }

    fn command(&mut self, ticket: &Ticket, fetched: &Fetched, command: &Command, stop: &EventFd) {
        let success = TaskFile {
            status: status::READY,
            error: 0,
            lba: command.lba,
            device: command.device,
            count: command.count,
        };
        let signature = TaskFile {
            device: command.device,
            ..self.shared.signature()
        };
        let task = match command.code {
            0xa0 if fetched.atapi => return self.packet(ticket, fetched, command, stop),
            0xa1 => {
                let done = Done::new(Ending::DataIn(IDENTITY_BYTES as u16), success);
                return self.link.give(ticket, fetched, &self.identity, &done);
            }
            // DEVICE RESET.
            0x08 => {
                self.shared.reset(ResetKind::Soft);
                signature
            }
            // EXECUTE DEVICE DIAGNOSTIC.
            0x90 => TaskFile {
                status: status::READY,
                ..signature
            },
            // Whoever takes it for a disk is shown what it is (ACS-3, 7.12.5).
            0xec | 0x20 => TaskFile {
                status: status::FAILED,
                error: error::ABORTED,
                ..signature
            },
            // SET FEATURES: transfer mode, and settings after a reset.
            0xef if matches!(command.features as u8, 0x03 | 0x66 | 0xcc) => success,
            // Power: it is always on. FLUSH CACHE.
            0xe0..=0xe3 | 0xe6 | 0x94..=0x97 | 0x99 | 0xe7 => success,
            0xe5 | 0x98 => TaskFile {
                count: 0xff,
                ..success
            },
            _ => TaskFile {
                status: status::FAILED,
                error: error::ABORTED,
                ..success
            },
        };
        let ending = Ending::Registers { data: None };
        self.link.complete(ticket, &Done::new(ending, task));
    }

    fn packet(&mut self, ticket: &Ticket, fetched: &Fetched, command: &Command, stop: &EventFd) {
        let packet = match fetched.packet(self.link.memory()) {
            Ok(packet) => packet,
            Err(fault) => {
                return self
                    .link
                    .complete(ticket, &Done::bare(Ending::Fault(fault)));
            }
        };
        let reply = packet::execute(&mut self.shared.drive.lock().unwrap(), &packet);
        match reply {
            Ok(Reply::Nothing) => self.link.complete(ticket, &end(command, 0)),
            Ok(Reply::Bytes(bytes)) => {
                let done = end(command, bytes.len() as u64);
                self.link.give(ticket, fetched, &bytes, &done);
            }
            Ok(Reply::Read {
                disc,
                offset,
                length,
            }) => {
                let data = match fetched.data(self.link.memory(), length) {
                    Ok(data) => data,
                    Err(fault) => {
                        return self
                            .link
                            .complete(ticket, &Done::bare(Ending::Fault(fault)));
                    }
                };
                let outcome = {
                    let go_on = || !stopping(stop) && self.link.wanted(ticket);
                    let memory = self.link.memory();
                    self.reader.read(&disc, offset, &data, memory, go_on)
                };
                self.finish_read(ticket, command, &data, length, outcome);
            }
            Err(sense) => self.fail(ticket, command, sense),
        }
    }

    fn finish_read(
        &self,
        ticket: &Ticket,
        command: &Command,
        data: &Data,
        length: u64,
        outcome: Outcome,
    ) {
        let statistics = &self.shared.statistics;
        match outcome {
            Outcome::Whole { bytes } => {
                add(&statistics.reads, 1);
                add(&statistics.read_bytes, bytes);
                let done = Done {
                    bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                    marked: data.marked,
                    short: bytes < length,
                    ..end(command, bytes)
                };
                self.link.complete(ticket, &done);
            }
            Outcome::Dropped => self.link.complete(ticket, &Done::bare(Ending::Abandoned)),
            Outcome::Controller(fault) => {
                self.link
                    .complete(ticket, &Done::bare(Ending::Fault(fault)));
            }
            Outcome::Medium(errno) => {
                (self.complain)(&format!("a disc could not be read: {errno}"));
                let sense = Sense::READ_ERROR;
                self.shared.drive.lock().unwrap().set_sense(sense);
                self.fail(ticket, command, sense);
            }
        }
    }

    fn fail(&self, ticket: &Ticket, command: &Command, sense: Sense) {
        // A drive that is empty, or was changed, is no error.
        if !matches!(sense.key, 2 | 6) {
            add(&self.shared.statistics.errors, 1);
        }
        let task = TaskFile {
            status: status::FAILED,
            // The sense key is where a driver looks first (SFF-8020i, 6.4).
            error: sense.key << 4 | error::ABORTED,
            lba: 0,
            device: command.device,
            count: REASON_DONE,
        };
        let ending = Ending::Registers { data: None };
        self.link.complete(ticket, &Done::new(ending, task));
    }
}

/// The end of a packet that moved `bytes` bytes.
fn end(command: &Command, bytes: u64) -> Done {
    let mut task = TaskFile {
        status: status::READY,
        error: 0,
        lba: 0,
        device: command.device,
        count: REASON_DONE,
    };
    let mut data = None;
    if command.features & PACKET_DMA == 0 && bytes != 0 {
        let limit = match (command.lba >> 8) as u16 {
            0 | 0xffff => MOST_PIO,
            limit => limit,
        };
        let last = match bytes % u64::from(limit) {
            0 => limit,
            // Less than the limit.
            rest => rest as u16,
        };
        task.lba = u64::from(last) << 8;
        data = Some((true, last));
    }
    Done::new(Ending::Registers { data }, task)
}
