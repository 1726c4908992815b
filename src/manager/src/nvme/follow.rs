//! How connections are, for as long as the manager lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lodge_api::nvme::NvmeState;
use lodge_host::nvmf::{Association, ControllerState, FAIL_AFTER, Wanted};

use super::connect::{controllers_of, disks_of, end, wait_for_disks};
use super::connection::ConnectionRecord;
use super::refusal::refusal;
use super::registry::Link;
use crate::catalogue;
use crate::core::{Core, blocking};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);

/// When a try is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    /// At once.
    Now,
    /// After a pause that grows with each.
    WhenDue,
}

/// What the kernel has of a connection.
struct Look {
    state: Option<ControllerState>,
    disks: Vec<String>,
}

impl Core {
    /// Looks after exports and connections, each connection by itself.
    pub(crate) async fn follow_nvme(self: &Arc<Self>) {
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.look_at_exports().await;
            for record in self.connections() {
                let core = self.clone();
                self.tasks.spawn(async move {
                    core.look_at_connection(&record, Try::WhenDue).await;
                    core.tell_of(&record);
                });
            }
        }
    }

    /// Looks how one is, and connects it where the kernel does not. Returns whether it is there.
    pub(super) async fn look_at_connection(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        when: Try,
    ) -> bool {
        if self.is_forgotten(record) {
            return false;
        }
        let Ok(wanted) = self.wanted(record) else {
            return false;
        };
        let link = self.nvme.link(record.id);
        let looking = wanted.clone();
        let look = blocking(move || {
            let controllers = controllers_of(&looking)?;
            Ok(Look {
                state: controllers.first().map(|controller| controller.state),
                disks: disks_of(&controllers)?,
            })
        });
        match look.await {
            Ok(look) if look.state == Some(ControllerState::Live) => {
                link.update(|seen| seen.live(look.disks));
            }
            Ok(look) => self.see_to(record, &link, wanted, look.state, when).await,
            Err(problem) => tracing::warn!(%problem, "a connection cannot be looked at"),
        }
        link.seen().state == NvmeState::Live
    }

    /// It is not there.
    async fn see_to(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        link: &Arc<Link>,
        wanted: Wanted,
        state: Option<ControllerState>,
        when: Try,
    ) {
        link.update(|seen| {
            let waits = seen
                .away_since
                .is_none_or(|since| since.elapsed() < FAIL_AFTER);
            let kernel_tries = state == Some(ControllerState::Connecting);
            // At first nobody has tried yet.
            let new = state.is_none() && seen.reason.is_none() && seen.state != NvmeState::Live;
            seen.away(match kernel_tries && waits || new {
                true => NvmeState::Connecting,
                false => NvmeState::Lost,
            });
        });
        let Ok(changing) = link.changing.clone().try_lock_owned() else {
            return;
        };
        let now = Instant::now();
        if when == Try::WhenDue && !link.seen().is_due(now) {
            return;
        }
        link.update(|seen| seen.tried(now));
        if state.is_some() {
            // The kernel tries, and does not say why it does not come to anything.
            let reason = self.why_not(wanted).await;
            link.update(|seen| seen.reason = reason);
            return;
        }
        match self.establish(wanted.clone(), changing).await {
            Ok(controller) if self.is_forgotten(record) => end(controller).await,
            Ok(_) => {
                let disks = wait_for_disks(&wanted).await.unwrap_or_default();
                link.update(|seen| seen.live(disks));
            }
            Err(problem) => link.update(|seen| {
                seen.reason = Some(in_one_line(&problem));
                seen.away(NvmeState::Lost);
            }),
        }
    }

    async fn why_not(&self, wanted: Wanted) -> Option<String> {
        let asked = blocking(move || {
            Association::open(wanted.target, &wanted.nqn, wanted.host)
                .map(drop)
                .map_err(|error| refusal(&error, wanted.host))
        });
        asked.await.err().map(|problem| in_one_line(&problem))
    }

    pub(super) fn is_forgotten(&self, record: &ConnectionRecord) -> bool {
        catalogue::is_gone::<ConnectionRecord>(&self.snapshot(), record.id)
    }

    /// Tells people of a change.
    pub(super) fn tell_of(&self, record: &ConnectionRecord) {
        if self.is_forgotten(record) {
            return;
        }
        let link = self.nvme.link(record.id);
        let seen = link.seen();
        if seen.state == seen.told {
            return;
        }
        link.update(|seen| seen.told = seen.state);
        match self.connection_warning(record) {
            Some(warning) => self.tell_problem(warning),
            None => {
                let (name, target) = (&record.name, record.target_address());
                self.tell(format!(
                    "The NVMe connection \"{name}\" to {target} is there again."
                ));
            }
        }
        self.console_changed();
    }
}

fn in_one_line(problem: &lodge_api::Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{}; {hint}", problem.detail),
        None => problem.detail.clone(),
    }
}
