//! One activation of one queue: takes requests, hands them to the engine, returns them.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lodge_block::engine::{Completion, Engine, Fired, IoError, SubmitError};
use virtio_bindings::virtio_blk as abi;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::patience::Patience;
use super::request::{self, Request, Rules, Status};
use super::statistics::{Statistics, add};
use super::worker::{Rested, Start, Worker};
use super::{QUEUE_SIZE, config::SERIAL_BYTES};
use crate::GuestMemory;
use crate::on_error::ErrorPolicy;
use crate::throttle::Gate;
use crate::virtio::chain::{self, Chain, ChainError, InFlight, Limits};
use crate::virtio::wait::borrow;
use crate::virtio::{DeviceEvents, QueueInterrupt};

/// As many buffers as the ring can describe, and as much data as one call of the host moves.
const LIMITS: Limits = Limits {
    segments: QUEUE_SIZE as usize,
    bytes: 1 << 30,
};

/// Positions of the events the engine watches.
const STOP: usize = 0;
const KICK: usize = 1;
const LIMITS_CHANGED: usize = 2;

/// Why a session ended.
pub(super) enum Stopped {
    /// The device is to stop.
    Asked,
    /// The driver broke the rules, or the host's ring did not work.
    Broken(String),
}

/// A request the engine has.
#[derive(Debug, Clone, Copy)]
struct Pending {
    status: GuestAddress,
    kind: Kind,
    bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
    Discard,
}

/// The queue while it is served.
pub(super) struct Session<'a> {
    engine: &'a mut Engine,
    serial: &'a [u8; SERIAL_BYTES],
    statistics: &'a Statistics,
    gate: &'a mut Gate,
    errors: &'a ErrorPolicy,
    memory: GuestMemory,
    queue: Queue,
    kick: EventFd,
    interrupt: Arc<dyn QueueInterrupt>,
    read_only: bool,
    features: u64,
    in_flight: InFlight,
    /// Heads of chains that a session before this one took, and could not serve.
    again: VecDeque<u16>,
    /// Heads of chains that this one could not serve. Once there are any, no more are taken.
    held_back: Vec<u16>,
    /// By head of the chain, which is the engine's token.
    pending: Vec<Option<Pending>>,
    chain: Chain,
    buffers: Vec<libc::iovec>,
    completions: Vec<Completion>,
    patience: Patience,
    /// Chains were returned since the driver was last told.
    returned: bool,
    /// Requests were left in the ring because the engine was full.
    stalled: bool,
    /// Requests may have been left in the ring because of the disk's limits, for so long.
    throttled: Option<Duration>,
    events: Arc<dyn DeviceEvents>,
}

impl<'a> Session<'a> {
    pub fn new(worker: &'a mut Worker, start: Start) -> Self {
        Self {
            engine: &mut worker.engine,
            serial: &worker.serial,
            statistics: &worker.statistics,
            gate: &mut worker.gate,
            errors: &worker.errors,
            memory: start.memory,
            pending: vec![None; usize::from(start.queue.queue.size())],
            queue: start.queue.queue,
            kick: start.queue.kick,
            interrupt: start.queue.interrupt,
            read_only: start.read_only,
            features: start.features,
            in_flight: InFlight::default(),
            again: start.queue.unfinished.into(),
            held_back: Vec::new(),
            chain: Chain::default(),
            buffers: Vec::new(),
            completions: Vec::new(),
            patience: Patience::default(),
            returned: false,
            stalled: false,
            throttled: None,
            events: start.events,
        }
    }

    /// Serves until `stop` is readable or the queue is unusable.
    pub fn run(&mut self, stop: &EventFd) -> Stopped {
        let mut events = [borrow(stop); 3];
        events[KICK] = borrow(&self.kick);
        events[LIMITS_CHANGED] = self.gate.changed();
        self.engine.watch(events);
        let result = self.serve();
        let quiet = self.quiesce();
        match result.and(quiet) {
            Ok(()) => Stopped::Asked,
            Err(why) => Stopped::Broken(why),
        }
    }

    /// The queue as it is after the last request.
    pub fn into_rested(mut self) -> Rested {
        self.held_back.extend(self.again);
        Rested {
            queue: self.queue,
            unfinished: self.held_back,
        }
    }

    fn serve(&mut self) -> Result<(), String> {
        // There may be requests from before the activation, whose kick nobody will repeat.
        let mut more = true;
        loop {
            #[cfg(feature = "fuzzing")]
            if !more {
                crate::fuzzing::end_turn();
            }
            let fired = self.return_completed(!more)?;
            if fired.has(STOP) {
                return self.finish_all();
            }
            if fired.has(KICK) {
                self.patience.kicked();
            }
            let due = fired.has(KICK) || more || self.may_resume() || self.throttled.is_some();
            if self.is_stuck() {
                (more, self.throttled) = (false, None);
            } else if due {
                more = self.take_requests().map_err(|error| error.to_string())?;
            }
            self.interrupt_if_wanted()
                .map_err(|error| error.to_string())?;
        }
    }

    /// Whether requests are held back: all others are, too, until somebody stops this.
    fn is_stuck(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// Whether requests were left in the ring, for which the driver will not kick
    /// again, and there is room for them now.
    fn may_resume(&self) -> bool {
        self.stalled && self.engine.has_room()
    }

    /// Takes requests while there are any and room for them; tells whether to
    /// come back at once. It takes at most a ring's worth, so that a driver that
    /// never stops does not keep the thread from being stopped.
    fn take_requests(&mut self) -> Result<bool, ChainError> {
        self.stalled = false;
        self.throttled = None;
        self.queue.disable_notification(&self.memory)?;
        for taken in 0..self.queue.size() {
            if !self.engine.has_room() {
                self.stalled = true;
                return Ok(false);
            }
            self.throttled = self.gate.wait();
            if self.throttled.is_some() {
                // The driver need not kick: this thread comes back by itself.
                return Ok(false);
            }
            if !self.next_chain()? {
                self.patience.found(taken);
                self.gate.idle();
                // A request may have slipped in before the driver could see that it has to kick.
                return Ok(self.queue.enable_notification(&self.memory)?);
            }
            self.in_flight.take(self.chain.head)?;
            self.start_request()?;
        }
        Ok(true)
    }

    /// Reads the next chain, of those left from before or else of the ring; tells whether there was one.
    fn next_chain(&mut self) -> Result<bool, ChainError> {
        let Some(head) = self.again.pop_front() else {
            return chain::pop(&mut self.queue, &self.memory, LIMITS, &mut self.chain);
        };
        chain::read(&self.queue, &self.memory, LIMITS, head, &mut self.chain)?;
        Ok(true)
    }

    fn start_request(&mut self) -> Result<(), ChainError> {
        let accepted = |feature: u32| self.features & (1 << feature) != 0;
        let rules = Rules {
            disk: self.engine.disk(),
            read_only: self.read_only,
            discard: accepted(abi::VIRTIO_BLK_F_DISCARD),
            write_zeroes: accepted(abi::VIRTIO_BLK_F_WRITE_ZEROES),
        };
        let (status, request) = request::parse(&mut self.chain, &self.memory, rules)?;
        let request = match request {
            Ok(Request::Identity) => return self.identify(status),
            Ok(request) => request,
            Err(refusal) => return self.refuse(status, refusal),
        };
        match self.submit(&request) {
            Ok((kind, bytes)) => {
                self.gate.charge(match kind {
                    Kind::Read | Kind::Write => bytes,
                    Kind::Flush | Kind::Discard => 0,
                });
                // `pop` checked that the head is below the queue's size.
                self.pending[usize::from(self.chain.head)] = Some(Pending {
                    status,
                    kind,
                    // A chain has less than 4 GiB, a range at most 2 GiB.
                    bytes: bytes as u32,
                });
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, ?request, "disk request refused");
                self.refuse(status, Status::IoError)
            }
        }
    }

    fn submit(&mut self, request: &Request) -> Result<(Kind, u64), SubmitError> {
        let token = u64::from(self.chain.head);
        let outside = |_| SubmitError::Range {
            offset: 0,
            length: 0,
            size: 0,
        };
        self.buffers.clear();
        match *request {
            Request::Read { offset } => {
                let data = &self.chain.writable;
                data.iovecs(&self.memory, &mut self.buffers)
                    .map_err(outside)?;
                // SAFETY: the buffers lie in guest memory, which `self.memory` keeps mapped until
                // the session is over, and no session ends before its engine is drained. Nobody
                // has references into guest memory.
                unsafe { self.engine.read(token, offset, &self.buffers) }?;
                Ok((Kind::Read, data.len()))
            }
            Request::Write { offset } => {
                let data = &self.chain.readable;
                data.iovecs(&self.memory, &mut self.buffers)
                    .map_err(outside)?;
                // SAFETY: as above.
                unsafe { self.engine.write(token, offset, &self.buffers) }?;
                Ok((Kind::Write, data.len()))
            }
            Request::Discard { offset, length } => {
                self.engine.discard(token, offset, length)?;
                Ok((Kind::Discard, length))
            }
            Request::WriteZeroes {
                offset,
                length,
                unmap,
            } => {
                self.engine.write_zeroes(token, offset, length, unmap)?;
                Ok((Kind::Discard, length))
            }
            Request::Flush | Request::Identity => {
                self.engine.flush(token)?;
                Ok((Kind::Flush, 0))
            }
        }
    }

    fn identify(&mut self, status: GuestAddress) -> Result<(), ChainError> {
        let count = (self.chain.writable.len() as usize).min(SERIAL_BYTES);
        self.chain
            .writable
            .write_at(&self.memory, 0, &self.serial[..count])?;
        self.give_back(self.chain.head, status, Status::Ok, count as u32)
    }

    fn refuse(&mut self, status: GuestAddress, refusal: Status) -> Result<(), ChainError> {
        add(&self.statistics.errors, 1);
        self.give_back(self.chain.head, status, refusal, 0)
    }

    /// Hands what is queued to the kernel, waits for something to happen if
    /// `sleep`, though not longer than requests are held back, and returns what is done to the driver.
    fn return_completed(&mut self, sleep: bool) -> Result<Fired, String> {
        let mut completions = std::mem::take(&mut self.completions);
        let most = if sleep {
            self.throttled
        } else {
            Some(Duration::ZERO)
        };
        let waited = self
            .engine
            .wait_at_most(most, &mut completions)
            .map_err(|error| broken(&error));
        let returned = self.give_back_all(&completions);
        completions.clear();
        self.completions = completions;
        returned.map_err(|error| error.to_string())?;
        waited
    }

    fn give_back_all(&mut self, completions: &[Completion]) -> Result<(), ChainError> {
        for completion in completions {
            let head = completion.token as u16;
            let pending = self.pending.get_mut(usize::from(head));
            let Some(pending) = pending.and_then(Option::take) else {
                continue;
            };
            if let Err(error) = completion.result {
                self.failed(head, pending, error)?;
                continue;
            }
            self.count(pending);
            let written = match pending.kind {
                Kind::Read => pending.bytes,
                _ => 0,
            };
            self.give_back(head, pending.status, Status::Ok, written)?;
        }
        Ok(())
    }

    /// Tells the driver that the host failed a request, or keeps it for the next session.
    fn failed(&mut self, head: u16, pending: Pending, error: IoError) -> Result<(), ChainError> {
        self.statistics.failed(error);
        let kind = pending.kind;
        if self.errors.holds_back(error, kind == Kind::Flush) {
            self.held_back.push(head);
            if self.held_back.len() == 1 {
                self.errors.tell(error);
            }
            return Ok(());
        }
        self.events
            .host_failed(&format!("a request failed on the host ({kind:?}): {error}"));
        self.give_back(head, pending.status, Status::IoError, 0)
    }

    fn count(&self, pending: Pending) {
        let statistics = self.statistics;
        let (operations, bytes) = match pending.kind {
            Kind::Read => (&statistics.reads, Some(&statistics.read_bytes)),
            Kind::Write => (&statistics.writes, Some(&statistics.write_bytes)),
            Kind::Flush => (&statistics.flushes, None),
            Kind::Discard => (&statistics.discards, Some(&statistics.discard_bytes)),
        };
        add(operations, 1);
        if let Some(bytes) = bytes {
            add(bytes, u64::from(pending.bytes));
        }
    }

    /// Returns one chain, of which the device wrote `written` bytes and the status.
    fn give_back(
        &mut self,
        head: u16,
        status_address: GuestAddress,
        status: Status,
        written: u32,
    ) -> Result<(), ChainError> {
        self.memory
            .write_obj(status as u8, status_address)
            .map_err(|_| ChainError::Memory {
                address: status_address.0,
            })?;
        self.in_flight.give_back(head);
        self.queue.add_used(&self.memory, head, written + 1)?;
        self.returned = true;
        Ok(())
    }

    fn interrupt_if_wanted(&mut self) -> Result<(), ChainError> {
        if std::mem::take(&mut self.returned) && self.queue.needs_notification(&self.memory)? {
            self.interrupt.notify();
        }
        Ok(())
    }

    /// Completes all the engine has, the regular end of a session. A driver that
    /// resets does not care; one that is paused finds its requests done.
    fn finish_all(&mut self) -> Result<(), String> {
        let mut completions = Vec::new();
        self.engine
            .drain(&mut completions)
            .map_err(|error| broken(&error))?;
        self.give_back_all(&completions)
            .and_then(|()| self.interrupt_if_wanted())
            .map_err(|error| error.to_string())
    }

    /// Waits until the engine touches neither memory nor events of this session.
    /// Results of a session that broke off are forgotten: its ring is unusable.
    fn quiesce(&mut self) -> Result<(), String> {
        let mut completions = Vec::new();
        if let Err(error) = self.engine.drain(&mut completions) {
            // Memory the kernel may still write to must not be given to anything else.
            tracing::error!(%error, "the disk engine cannot be stopped");
            std::process::abort();
        }
        self.engine.unwatch().map_err(|error| broken(&error))
    }
}

fn broken(error: &io::Error) -> String {
    format!("the host's I/O ring does not work: {error}")
}
