//! Devices that come to the running guest and leave it.

use std::os::fd::OwnedFd;

use lodge_api::vm::VmState;
use lodge_api::{ErrorCode, Problem};
use lodge_vmm_proto::{
    Answer, DeviceKey, DiskBus, DiskConfig, NewDevice, PluggedDevices, RequestBody,
};
use uuid::Uuid;

use super::{Actor, Command, KILL_PATIENCE, Reply};
use crate::Caller;
use crate::core::internal;
use crate::vms::control::refusal;
use crate::vms::disk_error;
use crate::vms::launch::{Descriptors, Guest, attach_nic, held_by, open_disk, serial};
use crate::vms::limits;
use crate::vms::plug::Device;
use crate::vms::run_dir::LaunchNote;

/// Somebody who waits until a device is out.
#[derive(Debug)]
pub(super) struct Leaving {
    key: DeviceKey,
    caller: Caller,
    reply: Reply,
}

impl Actor {
    /// Plugs a device in. It is noted as arriving until [`Actor::settle`].
    pub(super) async fn attach(&mut self, device: Device) -> Result<(), Problem> {
        self.require_not_held()?;
        self.control()?;
        if !matches!(self.state(), VmState::Running | VmState::Paused) {
            let detail = format!("the guest is {}", self.state().as_str());
            return Err(Problem::new(ErrorCode::WrongState, detail)
                .with_hint("wait until it runs or has stopped"));
        }
        let arriving = |guest: &Guest| guest.note.arriving.is_some();
        if self.guest.as_ref().is_some_and(arriving) {
            let detail = "it is not known yet what became of the last device that was added";
            return Err(
                Problem::new(ErrorCode::WrongState, detail).with_hint("try again in some seconds")
            );
        }
        self.claim(&device)?;
        if let Err(problem) = self.note(|note| note.arriving = Some(device.clone())) {
            self.unclaim(&device);
            return Err(problem);
        }
        let problem = match self.plug(&device).await {
            Ok(Answer::Done) => {
                // What is told of one that was here before under the same name was told before this answer.
                self.hear();
                let noted = self.note(|note| device.add_to(note));
                self.in_doubt = noted.is_err();
                self.show_devices();
                return noted;
            }
            Ok(Answer::Error { code, message }) => refusal(code, &message),
            Ok(_) => internal("the guest's monitor gave an unexpected answer"),
            Err(Plug::Not(problem)) => problem,
            Err(Plug::Unknown(problem)) => {
                // Found out at the next look at it.
                self.in_doubt = true;
                return Err(problem);
            }
        };
        self.in_doubt = self.release(&device).is_err();
        Err(problem)
    }

    /// What arrived is recorded in the configuration; or it could not be, and leaves again.
    pub(super) async fn settle(&mut self, recorded: bool) -> Result<(), Problem> {
        let arrived = self.guest.as_ref();
        let arrived = arrived.and_then(|guest| guest.note.arriving.clone());
        let settled = match arrived {
            Some(device) if !recorded => self.throw_out(&device).await,
            _ => self.note(|note| note.arriving = None),
        };
        // What failed is tried again at the next look at it.
        self.in_doubt = settled.is_err();
        settled
    }

    /// Asks for a device; whoever waits is told when it is out of machine and configuration.
    pub(super) async fn detach(
        &mut self,
        device: &Device,
        force: bool,
        caller: Caller,
        reply: Reply,
    ) {
        let key = device.key();
        let body = RequestBody::Detach {
            device: key.clone(),
            force,
        };
        let asked = match self.require_not_held() {
            Ok(()) => self.ask(body, None).await,
            Err(problem) => Err(problem),
        };
        match asked {
            Ok(()) => self.leaving.push(Leaving { key, caller, reply }),
            Err(problem) => drop(reply.send(Err(problem))),
        }
    }

    /// Asks for a device no longer.
    pub(super) async fn keep(&mut self, key: DeviceKey) -> Result<(), Problem> {
        let device = key.clone();
        self.ask(RequestBody::Keep { device }, None).await?;
        self.leaving.retain(|leaving| leaving.key != key);
        Ok(())
    }

    /// A device is out: it leaves the configuration as well. This may be told of it twice, by the monitor and by a look at what it has.
    pub(super) fn detached(&mut self, key: &DeviceKey) {
        let all = self.guest.as_ref().map(|guest| Device::all(&guest.note));
        let mut all = all.unwrap_or_default().into_iter();
        let Some(device) = all.find(|device| device.key() == *key) else {
            return;
        };
        if self.gone.contains(&device) {
            return;
        }
        self.unclaim(&device);
        self.gone.push(device.clone());
        self.show_devices();
        let waiting = std::mem::take(&mut self.leaving);
        let (out, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|leaving| leaving.key == *key);
        self.leaving = waiting;
        let (core, vm) = (self.core.clone(), self.id);
        self.core.tasks.spawn(async move {
            let caller = out.first().map(|leaving| leaving.caller.clone());
            let caller = caller.unwrap_or_else(Caller::manager);
            let forgotten = core.forget_device(vm, &device, &caller).await;
            if let Err(problem) = &forgotten {
                tracing::warn!(%vm, %problem, "a device that is out stays in the configuration");
            }
            if let Some(handle) = core.vms.handle(vm) {
                // A guest that was deleted has nothing to note.
                let _ = handle.commands.send(Command::Forgotten { device }).await;
            }
            for leaving in out {
                let _ = leaving.reply.send(forgotten.clone());
            }
        });
    }

    /// A device that is out is no longer in the configuration.
    pub(super) fn forgotten(&mut self, device: &Device) {
        self.gone.retain(|gone| gone != device);
        if let Err(problem) = self.note(|note| device.leave(note)) {
            tracing::warn!(vm = %self.name(), %problem, "a guest's note");
        }
    }

    /// Compares what the monitor has with what it should have, and puts right what was not heard of.
    pub(super) async fn compare(&mut self, plugged: Option<PluggedDevices>) {
        for device in self.missing(plugged).await {
            self.detached(&device.key());
        }
    }

    /// As [`Actor::compare`], for a guest that was just found. Configuration and guest agree on return.
    pub(super) async fn agree(&mut self, plugged: Option<PluggedDevices>) {
        self.in_doubt = true;
        for device in self.missing(plugged).await {
            self.unclaim(&device);
            let caller = Caller::manager();
            let forgotten = self.core.forget_device(self.id, &device, &caller).await;
            if let Err(problem) = forgotten {
                tracing::warn!(vm = %self.name(), %problem, "a device that is out stays in the configuration");
            }
            self.forgotten(&device);
            self.show_devices();
        }
    }

    /// What the guest should have and has not. Decides about what was arriving, if that is in doubt.
    async fn missing(&mut self, plugged: Option<PluggedDevices>) -> Vec<Device> {
        // Monitors of earlier releases plug nothing.
        let (Some(plugged), Some(guest)) = (plugged, &self.guest) else {
            return Vec::new();
        };
        let arriving = guest.note.arriving.clone();
        if let Some(device) = arriving.filter(|_| self.in_doubt) {
            self.judge_arrival(device, &plugged).await;
        }
        let Some(guest) = &self.guest else {
            return Vec::new();
        };
        let all = Device::all(&guest.note).into_iter();
        all.filter(|device| !self.gone.contains(device) && !plugged.has(&device.key()))
            .collect()
    }

    /// What was arriving when this or the last manager lost sight of it stays if it is recorded, and leaves if not.
    async fn judge_arrival(&mut self, device: Device, plugged: &PluggedDevices) {
        let there = plugged.has(&device.key());
        let recorded = self.record().is_ok_and(|record| device.is_in(&record.spec));
        let judged = match (there, recorded) {
            (true, true) => self.claim(&device).and_then(|()| {
                self.note(|note| {
                    device.add_to(note);
                    note.arriving = None;
                })
            }),
            (true, false) => self.throw_out(&device).await,
            (false, _) => self.release(&device),
        };
        self.show_devices();
        self.in_doubt = judged.is_err();
        if let Err(problem) = judged {
            tracing::warn!(vm = %self.name(), %problem, "a device that was being added");
        }
    }

    /// Those who wait for a device wait in vain.
    pub(super) fn fail_leaving(&mut self, detail: &str) {
        for leaving in self.leaving.drain(..) {
            let problem = Problem::new(ErrorCode::WrongState, detail);
            let _ = leaving.reply.send(Err(problem));
        }
    }

    /// Takes out what arrived and is not to stay.
    async fn throw_out(&mut self, device: &Device) -> Result<(), Problem> {
        let body = RequestBody::Detach {
            device: device.key(),
            force: true,
        };
        self.soon(self.ask(body, None)).await?;
        self.release(device)
    }

    /// Bounds a request that is made again later.
    pub(super) async fn soon(
        &self,
        asked: impl Future<Output = Result<(), Problem>>,
    ) -> Result<(), Problem> {
        tokio::time::timeout(KILL_PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(internal("the guest's monitor does not answer")))
    }

    pub(super) async fn disk_grew(&self, disk: Uuid) -> Result<(), Problem> {
        let serial = serial(disk);
        self.ask(RequestBody::DiskGrew { serial }, None).await
    }

    /// Tells the guest the sizes of its disks: one may have been made larger when nobody could tell it, because it was just being
    /// started or the last manager died.
    pub(super) async fn tell_sizes(&self) {
        let disks = self.observed.borrow().disks.clone();
        let all = async {
            for disk in disks {
                self.disk_grew(disk).await?;
            }
            Ok(())
        };
        if let Err(problem) = self.soon(all).await {
            tracing::debug!(vm = %self.name(), %problem, "sizes of disks are not told");
        }
    }

    /// Nothing of it is held, noted or shown any longer.
    fn release(&mut self, device: &Device) -> Result<(), Problem> {
        self.unclaim(device);
        let noted = self.note(|note| {
            note.arriving = None;
            device.leave(note);
        });
        self.show_devices();
        noted
    }

    fn claim(&self, device: &Device) -> Result<(), Problem> {
        let Device::Disk { id, entry } = device else {
            return Ok(());
        };
        let claimed = self
            .core
            .vms
            .claims
            .add_disk(self.id, (*id, entry.read_only));
        claimed.map_err(|conflict| {
            held_by(&self.core.snapshot(), &entry.disk, conflict.holder).with_pointer("/disk/disk")
        })
    }

    fn unclaim(&self, device: &Device) {
        if let Device::Disk { id, .. } = device {
            self.core.vms.claims.remove_disk(self.id, *id);
        }
    }

    async fn plug(&self, device: &Device) -> Result<Answer, Plug> {
        let mut fds = Descriptors::default();
        let config = match device {
            Device::Disk { id, entry } => {
                let file = open_disk(&self.core, entry, *id).await;
                let file = file.map_err(|problem| problem.with_pointer("/disk/disk"));
                NewDevice::Disk(DiskConfig {
                    file: fds.add(file.map_err(Plug::Not)?),
                    bus: DiskBus::Virtio,
                    read_only: entry.read_only,
                    serial: serial(*id),
                    limits: limits::of_disk(&entry.limits),
                    on_error: disk_error::configured(entry.on_error),
                })
            }
            Device::Nic(nic) => {
                let config = attach_nic(&self.core, self.id, nic, "/nic", &mut fds).await;
                NewDevice::Nic(config.map_err(Plug::Not)?)
            }
        };
        let fds: Vec<OwnedFd> = fds.into_all();
        let body = RequestBody::Attach { device: config };
        let control = self.control().map_err(Plug::Not)?;
        control.exchange(body, fds).await.map_err(Plug::Unknown)
    }

    /// Changes the note by which the next manager finds the guest.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut LaunchNote)) -> Result<(), Problem> {
        let Some(guest) = &mut self.guest else {
            return Ok(());
        };
        let mut note = guest.note.clone();
        change(&mut note);
        guest
            .run
            .write_note(&note)
            .map_err(|error| internal(format!("the run directory: {error}")))?;
        guest.note = note;
        Ok(())
    }

    /// What the guest runs with, as others see it: without what is on its way out of the configuration.
    fn show_devices(&self) {
        let Some(guest) = &self.guest else { return };
        let mut note = guest.note.clone();
        for device in &self.gone {
            device.leave(&mut note);
        }
        self.observed.send_modify(|observed| {
            observed.disks = note.disks;
            if let Some(launched) = &mut observed.launched {
                launched.disks = note.spec.disks;
                launched.nics = note.spec.nics;
                launched.boot.order = note.spec.boot.order;
            }
        });
    }
}

/// A device that was not plugged in, or of which that is not known.
enum Plug {
    Not(Problem),
    Unknown(Problem),
}
