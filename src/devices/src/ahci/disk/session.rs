//! A disk while its thread runs: takes commands, hands them to the engine, ends them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lodge_block::engine::{Engine, Fired};
use vmm_sys_util::eventfd::EventFd;

use super::decode::{self, Request, Run, Style};
use super::log::PAGE_BYTES;
use super::{Shared, Worker};
use crate::ahci::command::{Fault, Fetched};
use crate::ahci::fis::{Command, Frame};
use crate::ahci::issue::{Done, Ending, PortLink, Ticket};
use crate::throttle::Gate;
use crate::virtio::wait::{borrow, wait_for};

/// Positions of the events the engine watches.
const STOP: usize = 0;

/// Commands begun before the thread looks whether it is to stop.
const BATCH: usize = 64;

const SLOTS: usize = 32;

/// A command the engine has.
pub(super) struct Pending {
    pub ticket: Ticket,
    pub command: Command,
    pub style: Style,
    pub work: Work,
    pub bytes: u32,
    pub marked: bool,
}

/// What the engine does for it at present.
pub(super) enum Work {
    Read,
    /// And whether a flush follows.
    Write(bool),
    Flush,
    /// The rest of its ranges, last first.
    Trim(Vec<Run>),
}

/// The disk while it is served.
pub(super) struct Session<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) shared: &'a Shared,
    gate: &'a mut Gate,
    pub(super) link: &'a PortLink,
    pub(super) complain: &'a Arc<dyn Fn(&str) + Send + Sync>,
    /// By slot, which is the engine's token. A slot is free again only when its command is done.
    pub(super) pending: [Option<Pending>; SLOTS],
    pub(super) buffers: Vec<libc::iovec>,
    /// Commands may have been left in their slots because of the disk's limits, for so long.
    throttled: Option<Duration>,
    /// Commands are held back: all others stay in their slots, too, until somebody stops this.
    pub(super) stuck: bool,
}

impl<'a> Session<'a> {
    pub fn new(worker: &'a mut Worker) -> Self {
        Self {
            engine: &mut worker.engine,
            shared: &worker.shared,
            gate: &mut worker.gate,
            link: &worker.link,
            complain: &worker.complain,
            pending: [const { None }; SLOTS],
            buffers: Vec::new(),
            throttled: None,
            stuck: false,
        }
    }

    /// Serves until `stop` is readable.
    pub fn run(&mut self, stop: &EventFd) {
        let events = [borrow(stop), borrow(self.link.kick()), self.gate.changed()];
        self.engine.watch(events);
        let served = self.serve();
        self.finish_all();
        if let Err(error) = served.and_then(|()| self.engine.unwatch()) {
            (self.complain)(&format!("the host's I/O ring does not work: {error}"));
            // Commands time out, but a reset must still find somebody to answer it.
            wait_for(stop);
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        // There may be commands from before, which nobody will announce again.
        let mut more = true;
        let mut completions = Vec::new();
        loop {
            #[cfg(feature = "fuzzing")]
            if !more {
                crate::fuzzing::end_turn();
            }
            let most = match more {
                true => Some(Duration::ZERO),
                false => self.throttled,
            };
            let fired: Fired = self.engine.wait_at_most(most, &mut completions)?;
            for completion in completions.drain(..) {
                self.advance(completion);
            }
            if fired.has(STOP) {
                return Ok(());
            }
            if self.stuck {
                (more, self.throttled) = (false, None);
            } else {
                more = self.take_commands();
            }
        }
    }

    /// Completes all the engine has, the regular end.
    fn finish_all(&mut self) {
        let mut completions = Vec::new();
        loop {
            if let Err(error) = self.engine.drain(&mut completions) {
                // Memory the kernel may still write to must not be given to anything else.
                tracing::error!(%error, "the disk engine cannot be stopped");
                std::process::abort();
            }
            if completions.is_empty() {
                return;
            }
            for completion in completions.drain(..) {
                self.advance(completion);
            }
        }
    }

    /// Begins commands while there are any; tells whether to come back at once.
    fn take_commands(&mut self) -> bool {
        let queued = |fetched: &Fetched| match &fetched.frame {
            Frame::Command(command) => decode::queued(command),
            Frame::Control(_) => false,
        };
        for _ in 0..BATCH {
            self.throttled = self.gate.wait();
            if self.throttled.is_some() {
                return false;
            }
            let Some((ticket, fetched)) = self.link.next(queued) else {
                self.gate.idle();
                return false;
            };
            match fetched.frame {
                Frame::Control(value) => {
                    self.link
                        .complete(&ticket, &Done::bare(Ending::Control(value)));
                }
                Frame::Command(command) => self.start(&ticket, &fetched, &command),
            }
        }
        true
    }

    fn start(&mut self, ticket: &Ticket, fetched: &Fetched, command: &Command) {
        let request = {
            let mut modes = self.shared.modes.lock().unwrap();
            decode::decode(command, ticket.slot, self.shared, &mut modes)
        };
        match &request {
            Ok(Request::Read(run, _) | Request::Write { run, .. }) => self.gate.charge(run.length),
            Ok(Request::Flush | Request::Trim(_)) => self.gate.charge(0),
            Ok(Request::Give(..) | Request::Done(_)) | Err(_) => {}
        }
        let started = match request {
            Ok(Request::Done(task)) => {
                let ending = Ending::Registers { data: None };
                self.link.complete(ticket, &Done::new(ending, task));
                Ok(())
            }
            Ok(Request::Give(block, style)) => {
                let ending = match style {
                    Style::Pio(_) => Ending::DataIn(PAGE_BYTES as u16),
                    Style::Dma | Style::Queued => Ending::Registers { data: None },
                };
                let task = decode::success(command);
                self.link
                    .give(ticket, fetched, &block[..], &Done::new(ending, task));
                Ok(())
            }
            Ok(Request::Read(run, style)) => {
                self.transfer(ticket, fetched, command, run, style, Work::Read)
            }
            Ok(Request::Write {
                run,
                style,
                through,
            }) => self.transfer(ticket, fetched, command, run, style, Work::Write(through)),
            Ok(Request::Flush) => self.submit_plain(ticket, command, Work::Flush),
            Ok(Request::Trim(bytes)) => self.trim(ticket, fetched, command, bytes),
            Err(bits) => Err(Refusal::Device(bits, false)),
        };
        if let Err(refusal) = started {
            self.refuse(ticket, command, refusal);
        }
    }
}

/// Why a command did not get to the engine.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    /// The controller could not.
    Controller(Fault),
    /// The device would not: bits of the error register, and whether memory was short.
    Device(u8, bool),
}
