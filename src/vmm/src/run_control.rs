//! Running, paused, stopping: what a guest may be told to do when.

mod display;
mod events;
mod plug;
mod save;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use lodge_block::raw::RawDisk;
use lodge_devices::console::{AttachError, Console};
use lodge_vmm_proto::{
    Answer, ConsolePort, DeviceKey, DiskStuck, ErrorCode, ExitReason, ExitRecord, GuestEvent,
    GuestStatus, MemoryStatistics, PROTOCOL_VERSION, RequestBody, RunState,
};

use crate::machine::{Machine, open_image};
use crate::power::Wish;

/// The machine and its run state.
pub struct RunControl {
    machine: Machine,
    state: RunState,
    started: Instant,
    resets: u64,
    /// Paused for a connection.
    held: bool,
    events: Vec<GuestEvent>,
    /// When its system crashed, since its last reset, in milliseconds of Unix time.
    panicked_at_ms: Option<u64>,
    /// When its watchdog last expired, in milliseconds of Unix time.
    watchdog_expired_at_ms: Option<u64>,
    /// The disk that it was paused for.
    stuck: Option<DiskStuck>,
}

/// What came of a request.
pub struct Handled {
    /// For the one who asked.
    pub answer: Answer,
    /// The asker wants events from now on.
    pub subscribe: bool,
    /// The guest is held for the asker: [`RunControl::let_go`] when it goes away.
    pub holds: bool,
    /// The guest was asked for a device: [`RunControl::keep_devices`] when the asker goes away.
    pub asked: Option<DeviceKey>,
    /// The guest is at its end.
    pub end: Option<ExitRecord>,
}

impl RunControl {
    /// Lets the machine run.
    pub fn start(machine: Machine) -> Self {
        machine.run();
        Self {
            machine,
            state: RunState::Running,
            started: Instant::now(),
            resets: 0,
            held: false,
            events: Vec::new(),
            panicked_at_ms: None,
            watchdog_expired_at_ms: None,
            stuck: None,
        }
    }

    /// Readable while [`RunControl::grant_wish`] has something to do.
    #[allow(unsafe_code)]
    pub fn wishes(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the machine, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.machine.power().as_raw_fd()) }
    }

    /// Readable while [`RunControl::take_events`] has devices' complaints.
    #[allow(unsafe_code)]
    pub fn complaints(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the machine, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.machine.complaints().as_raw_fd()) }
    }

    /// Does what the guest wished for, if anything. A record means that the
    /// guest has ended.
    pub fn grant_wish(&mut self) -> Option<ExitRecord> {
        match self.machine.power().take()? {
            Wish::End(reason, message) => Some(self.end(reason, message)),
            Wish::Reset => match self.reset() {
                Ok(end) => end,
                Err(message) => Some(self.fail(message)),
            },
            Wish::Pause => {
                // Whoever holds it meanwhile does not let it go on.
                self.held = false;
                match self.pause() {
                    Ok(()) => None,
                    Err(message) => Some(self.fail(message)),
                }
            }
        }
    }

    /// Serves a request; `fds` came with it.
    pub fn handle(&mut self, request: &RequestBody, fds: Vec<OwnedFd>) -> Handled {
        // So that the answer fits what the guest has done.
        self.hear_ejections();
        let outcome = match *request {
            RequestBody::Status => {
                return Handled::answer(Answer::Status(Box::new(self.status())));
            }
            RequestBody::Subscribe => {
                return Handled {
                    subscribe: true,
                    ..Handled::answer(Answer::Done)
                };
            }
            RequestBody::AttachConsole { port, scrollback } => {
                return Handled::answer(self.attach(port, scrollback, fds));
            }
            RequestBody::ChangeDisc { drive, force } => {
                return Handled::answer(self.change_disc(drive, force, fds));
            }
            RequestBody::Attach { ref device } => {
                return Handled::answer(self.attach_device(device.clone(), fds));
            }
            RequestBody::Detach { ref device, force } => {
                let answer = self.detach_device(device, force);
                let asked = answer == Answer::Done && !force;
                return Handled {
                    asked: asked.then(|| device.clone()),
                    ..Handled::answer(answer)
                };
            }
            RequestBody::Keep { ref device } => {
                return Handled::answer(self.keep_device(device));
            }
            RequestBody::DiskGrew { ref serial } => {
                return Handled::answer(self.disk_grew(serial));
            }
            RequestBody::LimitDisk {
                ref serial,
                ref limits,
            } => {
                return Handled::answer(self.limit_disk(serial, limits));
            }
            RequestBody::DiskErrors {
                ref serial,
                on_error,
            } => {
                return Handled::answer(self.disk_errors(serial, on_error));
            }
            RequestBody::SetLink { mac, up } => return Handled::answer(self.set_link(mac, up)),
            RequestBody::SaveState => return Handled::answer(self.save_state(fds)),
            RequestBody::SaveMemory { offset, length } => {
                return Handled::answer(self.save_memory(offset, length, fds));
            }
            RequestBody::AttachViewer { ref name } => {
                return Handled::answer(self.attach_viewer(name, fds));
            }
            RequestBody::Screen => return Handled::answer(self.screen(fds)),
            RequestBody::Point { x, y, click } => {
                return Handled::answer(self.point(x, y, click));
            }
            RequestBody::Keys { ref keys } => return Handled::answer(self.keys(keys)),
            RequestBody::Text { ref text } => return Handled::answer(self.text(text)),
            RequestBody::SetBalloon { bytes } => {
                return Handled::answer(match self.machine.set_balloon(bytes) {
                    Ok(()) => Answer::Done,
                    Err(bad) => error(ErrorCode::BadRequest, bad.to_string()),
                });
            }
            RequestBody::Kill => {
                let record = self.end(ExitReason::Killed, String::new());
                return Handled {
                    end: Some(record),
                    ..Handled::answer(Answer::Done)
                };
            }
            RequestBody::PowerButton => {
                self.machine.press_power_button();
                Ok(None)
            }
            RequestBody::Pause => {
                self.held = false;
                self.pause().map(|()| None)
            }
            RequestBody::Hold => match self.hold() {
                Ok(()) => {
                    return Handled {
                        holds: true,
                        ..Handled::answer(Answer::Done)
                    };
                }
                Err(message) => Err(message),
            },
            RequestBody::Resume => {
                self.resume();
                Ok(None)
            }
            RequestBody::Reset => self.reset(),
        };
        match outcome {
            Ok(end) => Handled {
                end,
                ..Handled::answer(Answer::Done)
            },
            Err(message) => Handled {
                end: Some(self.fail(message.clone())),
                ..Handled::answer(error(ErrorCode::Internal, message))
            },
        }
    }

    /// Ends a guest that nobody wants any more.
    pub fn abandon(&mut self, message: &str) -> ExitRecord {
        self.end(ExitReason::LaunchFailed, message.to_owned())
    }

    /// Lets a guest run on whose holder is gone.
    pub fn let_go(&mut self) {
        if self.held {
            self.resume();
        }
    }

    fn hold(&mut self) -> Result<(), String> {
        if self.state == RunState::Running {
            self.pause()?;
            self.held = true;
        }
        Ok(())
    }

    /// An error means that the machine is beyond help.
    fn pause(&mut self) -> Result<(), String> {
        if self.state == RunState::Running {
            self.machine.hold().map_err(|stuck| stuck.to_string())?;
            // What was ejected up to here is no part of a state that is saved.
            self.hear_ejections();
            self.machine.pause_devices();
            self.enter(RunState::Paused);
        }
        Ok(())
    }

    fn resume(&mut self) {
        self.held = false;
        if self.state == RunState::Paused {
            self.unstick();
            self.machine.resume_devices();
            self.machine.run();
            self.enter(RunState::Running);
        }
    }

    /// An error means that the machine is beyond help, a record that the guest
    /// ended first.
    fn reset(&mut self) -> Result<Option<ExitRecord>, String> {
        self.machine.hold().map_err(|stuck| stuck.to_string())?;
        // With all vCPUs held nobody wishes any more. What was wished for until
        // now is granted by this, unless it was the end.
        if let Some(Wish::End(reason, message)) = self.machine.power().take() {
            return Ok(Some(self.end(reason, message)));
        }
        self.unstick();
        let gone = self.machine.reset();
        self.detached(gone.map_err(|failure| failure.to_string())?);
        // Devices' threads were not held: what they wished for before their devices were reset is granted as well.
        if let Some(Wish::End(reason, message)) = self.machine.power().take() {
            return Ok(Some(self.end(reason, message)));
        }
        self.resets += 1;
        self.happened(GuestEvent::Reset);
        if self.state == RunState::Running {
            self.machine.run();
        }
        Ok(None)
    }

    fn attach(&mut self, port: ConsolePort, scrollback: u32, fds: Vec<OwnedFd>) -> Answer {
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(fds) else {
            let message = "attach_console takes exactly one descriptor".to_owned();
            return error(ErrorCode::BadRequest, message);
        };
        match self.console(port).attach(socket, scrollback as usize) {
            Ok(()) => Answer::Done,
            Err(busy @ AttachError::Busy) => error(ErrorCode::Busy, busy.to_string()),
            Err(bad @ AttachError::Socket(_)) => error(ErrorCode::BadRequest, bad.to_string()),
        }
    }

    fn change_disc(&self, drive: u8, force: bool, fds: Vec<OwnedFd>) -> Answer {
        let bad = |message: String| error(ErrorCode::BadRequest, message);
        let Some(cdrom) = self.machine.cdrom(drive) else {
            return bad(format!("there is no CD-ROM drive {drive}"));
        };
        let mut fds = fds.into_iter();
        let disc = match (fds.next(), fds.next()) {
            (_, Some(_)) => return bad("change_disc takes at most one descriptor".to_owned()),
            (None, None) => None,
            (Some(fd), None) => match open_image(fd, RawDisk::open_for_reading) {
                Ok(disc) => Some(disc),
                Err(problem) => return bad(format!("the disc: {problem}")),
            },
        };
        if let Err(locked) = cdrom.eject(force) {
            return error(ErrorCode::WrongState, locked.to_string());
        }
        match disc.map(|disc| cdrom.insert(disc)) {
            None | Some(Ok(())) => Answer::Done,
            Some(Err(occupied)) => error(ErrorCode::WrongState, occupied.to_string()),
        }
    }

    fn console(&self, port: ConsolePort) -> &Console {
        match port {
            ConsolePort::Com1 => self.machine.com1(),
            ConsolePort::Virtio => self.machine.virtio_console(),
        }
    }

    fn status(&self) -> GuestStatus {
        let disks = self.machine.disk_use();
        let balloon = self.machine.balloon();
        GuestStatus {
            version: PROTOCOL_VERSION,
            state: self.state,
            uptime_ms: self.uptime_ms(),
            resets: self.resets,
            panicked_at_ms: self.panicked_at_ms,
            watchdog_expired_at_ms: self.watchdog_expired_at_ms,
            stuck: self.stuck.clone(),
            vcpu_time_us: u64::try_from(self.machine.cpu_time().as_micros()).unwrap_or(u64::MAX),
            disk_read_bytes: disks.read,
            disk_written_bytes: disks.written,
            disk_throttled_us: disks.throttled_us,
            balloon_target_bytes: balloon.target,
            balloon_actual_bytes: balloon.actual,
            devices: Some(self.machine.plugged()),
            memory: balloon.statistics.map(|memory| MemoryStatistics {
                total: memory.total,
                free: memory.free,
                available: memory.available,
                caches: memory.caches,
                swap_in: memory.swap_in,
                swap_out: memory.swap_out,
                major_faults: memory.major_faults,
            }),
        }
    }

    fn fail(&mut self, message: String) -> ExitRecord {
        tracing::error!("{message}");
        self.end(ExitReason::MonitorError, message)
    }

    fn end(&mut self, reason: ExitReason, message: String) -> ExitRecord {
        self.enter(RunState::Stopping);
        let uptime_ms = self.uptime_ms();
        if let Err(stuck) = self.machine.dismantle() {
            // The record says why the guest ended; this is only how.
            tracing::error!("{stuck}");
        }
        ExitRecord {
            reason,
            message,
            uptime_ms,
        }
    }

    fn enter(&mut self, state: RunState) {
        self.state = state;
        self.happened(GuestEvent::State { state });
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Handled {
    fn answer(answer: Answer) -> Self {
        Self {
            answer,
            subscribe: false,
            holds: false,
            asked: None,
            end: None,
        }
    }
}

fn error(code: ErrorCode, message: String) -> Answer {
    Answer::Error { code, message }
}
