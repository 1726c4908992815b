//! What a guest's task does when time has passed.

use lodge_api::{ErrorCode, Problem};
use lodge_vmm_proto::GuestStatus;
use tokio::time::Instant;

use super::{Actor, KILL_PATIENCE, TICK, Waiter, at};
use crate::vms::balloon::MemoryReport;
use crate::vms::control;
use crate::vms::launch::Guest;

impl Actor {
    pub(super) fn next_deadline(&self) -> Instant {
        let waiting = self.waiters.iter().filter_map(|waiter| waiter.deadline);
        waiting
            .chain(self.press_at)
            .chain(self.signal_at)
            .chain(self.reconnect_at)
            .chain(self.restarts.due())
            .chain([self.tick_at])
            .min()
            .unwrap_or(self.tick_at)
    }

    pub(super) async fn time(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.press_at) {
            self.press_again().await;
        }
        if due(self.signal_at) {
            self.signal_at = None;
            if let Some(guest) = &self.guest
                && let Err(error) = guest.process.get().kill()
            {
                tracing::error!(vm = %self.name(), %error, "a guest's monitor cannot be killed");
            }
        }
        if due(self.reconnect_at) {
            self.reconnect_at = None;
            self.reconnect().await;
        }
        if due(self.restarts.due()) {
            tracing::info!(vm = %self.name(), "restarting a crashed guest");
            self.start(None, None);
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.look().await;
        }
        self.check_waiters(now).await;
    }

    pub(super) async fn check_waiters(&mut self, now: Instant) {
        let late = |waiter: &Waiter| waiter.deadline.is_some_and(|at| at <= now);
        if self
            .waiters
            .iter()
            .any(|waiter| late(waiter) && waiter.force)
        {
            for waiter in &mut self.waiters {
                if late(waiter) {
                    waiter.deadline = None;
                }
            }
            tracing::warn!(vm = %self.name(), "the guest did not power off in time and is killed");
            self.kill().await;
            return;
        }
        let waiters = std::mem::take(&mut self.waiters);
        let (over, waiting): (Vec<_>, Vec<_>) = waiters.into_iter().partition(late);
        self.waiters = waiting;
        if over.is_empty() {
            return;
        }
        for waiter in over {
            let problem = Problem::new(
                ErrorCode::WrongState,
                format!(
                    "the guest did not power off within {} seconds, and runs on",
                    waiter.seconds
                ),
            )
            .with_hint("look at its console, give it more time, or kill it");
            let _ = waiter.reply.send(Err(problem));
        }
        self.stop_is_over();
    }

    pub(super) async fn reconnect(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        match control::find(&guest.run.socket()).await {
            Ok(found) => {
                guest.control = found.control;
                self.notices = Some(found.notices);
                self.catch_up(&found.status);
            }
            Err(error) => {
                tracing::warn!(vm = %self.name(), %error, "a guest's monitor cannot be reached");
                self.reconnect_at = Some(Instant::now() + TICK);
            }
        }
    }

    /// What was not heard of the guest while there was no connection.
    fn catch_up(&mut self, status: &GuestStatus) {
        let Some(guest) = &self.guest else { return };
        let disk_error = super::disk_error::of(status, &guest.note);
        self.observed.send_modify(|observed| {
            observed.resets = status.resets;
            observed.disk_error = disk_error;
        });
        self.follow(status.state);
    }

    /// Looks at a running guest: its counters, and what its monitor logs.
    pub(super) async fn look(&mut self) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        self.relay_log(&guest);
        let asked = guest.control.status();
        let mut plugged = None;
        if let Ok(Ok(status)) = tokio::time::timeout(KILL_PATIENCE, asked).await {
            self.observed.send_modify(|observed| {
                observed.disk_read_bytes = status.disk_read_bytes;
                observed.disk_written_bytes = status.disk_written_bytes;
                observed.disk_throttled_us = status.disk_throttled_us;
                observed.memory = Some(MemoryReport::new(&status));
                observed.panicked_at = at(status.panicked_at_ms);
                observed.watchdog_expired_at = at(status.watchdog_expired_at_ms);
            });
            plugged = status.devices;
        }
        self.guest = Some(guest);
        self.compare(plugged).await;
    }

    pub(super) fn relay_log(&mut self, guest: &Guest) {
        let source = format!("vmm/{}", self.name());
        for line in guest.run.new_lines(&mut self.log_offset) {
            let (level, text) = split_level(&line);
            match level {
                "ERROR" => tracing::error!(log_source = source, "{text}"),
                "WARN" => tracing::warn!(log_source = source, "{text}"),
                "DEBUG" | "TRACE" => tracing::debug!(log_source = source, "{text}"),
                _ => tracing::info!(log_source = source, "{text}"),
            }
        }
    }
}

/// Level and text of a line `TIME LEVEL text`; other lines, such as those of a panic, are text only.
fn split_level(line: &str) -> (&str, &str) {
    let mut words = line.splitn(2, ' ');
    let (time, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !time.ends_with('Z') || !time.starts_with(|c: char| c.is_ascii_digit()) {
        return ("", line);
    }
    let rest = rest.trim_start();
    match rest.split_once(' ') {
        Some((level @ ("ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"), text)) => (level, text),
        _ => ("", line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_monitors_lines() {
        for (line, level, text) in [
            (
                "2026-11-24T07:38:48.296486Z  INFO lodge_vmm: x",
                "INFO",
                "lodge_vmm: x",
            ),
            ("2026-11-24T07:38:48.296486Z ERROR y", "ERROR", "y"),
            ("thread 'main' panicked", "", "thread 'main' panicked"),
            ("", "", ""),
            ("2026Z", "", "2026Z"),
        ] {
            assert_eq!(split_level(line), (level, text));
        }
    }
}
