//! How a guest ends: asked to, killed, or by itself.

use std::time::Duration;

use lodge_api::event::EventBody;
use lodge_api::vm::{OnCrash, VmAction, VmState};
use lodge_api::{ErrorCode, Problem};
use lodge_store::{Batch, Precondition};
use lodge_vmm_proto::RequestBody;
use tokio::time::Instant;

use super::{Actor, KILL_PATIENCE, Reply, Waiter};
use crate::catalogue;
use crate::vms::VmRecord;
use crate::vms::launch::clean_up;
use crate::vms::state::{End, Outcome};

/// How long a guest that was asked to power off is left alone until it is asked again.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

impl Actor {
    pub(super) fn wait_for_end(&mut self, timeout: Option<Duration>, force: bool, reply: Reply) {
        self.waiters.push(Waiter {
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            force,
            seconds: timeout.map_or(0, |timeout| timeout.as_secs()),
            reply,
        });
    }

    pub(super) async fn stop(&mut self, timeout: Duration, force: bool, reply: Reply) {
        let paused = self.state() == VmState::Paused;
        let pressed = match self.check(VmAction::Stop, force) {
            Ok(()) if paused => Ok(()),
            Ok(()) => self.ask(RequestBody::PowerButton, None).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = pressed {
            let _ = reply.send(Err(problem));
            return;
        }
        self.asked_to_end = true;
        if paused {
            self.wait_for_end(None, true, reply);
            self.kill().await;
            return;
        }
        self.wait_for_end(Some(timeout), force, reply);
        self.powers_off();
    }

    /// Its power button was pressed.
    fn powers_off(&mut self) {
        self.press_at = Some(Instant::now() + PRESS_AGAIN);
        self.set_state(VmState::Stopping, None);
    }

    /// Presses the power button once more, as long as somebody waits for that.
    pub(super) async fn press_again(&mut self) {
        self.press_at = None;
        if self.state() != VmState::Stopping || self.guest.is_none() {
            return;
        }
        if let Err(problem) = self.ask(RequestBody::PowerButton, None).await {
            tracing::warn!(vm = %self.name(), %problem, "the power button does not work");
        }
        self.press_at = Some(Instant::now() + PRESS_AGAIN);
    }

    pub(super) async fn power_off(&mut self, timeout: Duration, reply: Reply) {
        self.restarts.cancel();
        if !self.state().is_active() {
            let _ = reply.send(Ok(()));
            return;
        }
        if self.guest.is_none() {
            // Starting: killed as soon as it runs.
            self.wait_for_end(None, true, reply);
            return;
        }
        if self.state() == VmState::Paused
            && let Err(problem) = self.ask(RequestBody::Resume, None).await
        {
            tracing::warn!(vm = %self.name(), %problem, "a paused guest cannot be resumed to power it off");
        }
        self.asked_to_end = true;
        self.wait_for_end(Some(timeout), true, reply);
        match self.ask(RequestBody::PowerButton, None).await {
            Ok(()) => self.powers_off(),
            Err(problem) => {
                tracing::warn!(vm = %self.name(), %problem, "the power button does not work: killing the guest");
                self.kill().await;
            }
        }
    }

    pub(super) async fn kill(&mut self) {
        let Some(guest) = &self.guest else { return };
        self.asked_to_end = true;
        let control = guest.control.clone();
        let asked = control.ask(RequestBody::Kill, None);
        let answer = tokio::time::timeout(KILL_PATIENCE, asked).await;
        let now = Instant::now();
        self.signal_at = Some(match answer {
            Ok(Ok(_)) => now + KILL_PATIENCE,
            _ => now,
        });
    }

    /// The guest's monitor has ended.
    pub(super) async fn ended(&mut self) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        self.notices = None;
        self.held = None;
        self.gone.clear();
        self.in_doubt = false;
        self.fail_leaving(
            "the guest has just ended, and still has the device in its configuration",
        );
        self.relay_log(&guest);
        let end = End {
            record: guest.run.exit_record(),
            asked: self.asked_to_end,
            out_of_memory: guest
                .cgroup
                .as_ref()
                .and_then(|group| group.usage().ok())
                .is_some_and(|usage| usage.oom_kills > 0),
            last_line: guest.run.last_line(),
        };
        clean_up(&self.core, &guest.run, self.id).await;
        self.rest(&end).await;
    }

    /// The guest is at rest from now on.
    pub(super) async fn rest(&mut self, end: &End) {
        self.core.vms.claims.release(self.id);
        let (state, reason) = end.verdict();
        match &reason {
            Some(reason) => tracing::warn!(vm = %self.name(), state = state.as_str(), "{reason}"),
            None => tracing::info!(vm = %self.name(), "guest stopped"),
        }
        self.signal_at = None;
        self.reconnect_at = None;
        self.observed.send_modify(|observed| {
            observed.pid = None;
            observed.launched = None;
            observed.disks = Vec::new();
            observed.cgroup = None;
            observed.memory = None;
            observed.vsock_cid = None;
            observed.panicked_at = None;
        });
        self.set_state(state, reason);
        self.keep_outcome().await;
        self.release_waiters();
        if let Some(system_call) = end.violation() {
            let system_call = system_call.to_owned();
            self.publish(|vm| EventBody::VmJailViolation { vm, system_call });
            // Whoever has broken out of a guest once is not given another try.
            return;
        }
        let restart = self
            .record()
            .is_ok_and(|vm| vm.spec.on_crash == OnCrash::Restart);
        if state == VmState::Crashed && restart && !self.asked_to_end {
            self.restarts.plan(Instant::now());
        }
    }

    pub(super) async fn keep_outcome(&self) {
        let observed = self.observed.borrow().clone();
        let outcome = Outcome {
            state: observed.state,
            reason: observed.reason,
            since: observed.since,
        };
        let key = self.id.to_string();
        let mut batch = Batch::new();
        let kept = batch
            .may_use_reserve()
            .require::<VmRecord>(key.clone(), Precondition::Present)
            .and_then(|batch| batch.put(key, &outcome, Precondition::Any))
            .map(drop)
            .map_err(|error| catalogue::record_problem(&error));
        let kept = match kept {
            Ok(()) => self.core.commit(batch).await.map(drop),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = kept {
            tracing::warn!(vm = %self.name(), %problem, "how a guest ended is not recorded");
        }
    }

    pub(super) fn release_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.reply.send(Ok(()));
        }
    }

    pub(super) fn fail_waiters(&mut self, detail: &str) {
        for waiter in self.waiters.drain(..) {
            let problem = Problem::new(ErrorCode::WrongState, detail);
            let _ = waiter.reply.send(Err(problem));
        }
    }

    /// A guest nobody waits for any more was not stopped: it runs.
    pub(super) fn stop_is_over(&mut self) {
        if self.waiters.is_empty() && self.state() == VmState::Stopping {
            self.asked_to_end = false;
            self.set_state(VmState::Running, None);
        }
    }
}
