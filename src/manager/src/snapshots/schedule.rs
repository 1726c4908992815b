//! Snapshots that guests have taken of them every so often, and the end of those that are too many.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lodge_api::snapshot::SnapshotCreate;
use lodge_api::vm::{SnapshotSchedule, VmState};
use lodge_api::{Name, Problem};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::SnapshotRecord;
use crate::catalogue::{self, Object};
use crate::core::internal;
use crate::operations::outcome;
use crate::schedule::{KEPT, MINUTES, interval, is_due, later};
use crate::vms::VmRecord;
use crate::{Caller, IfMatch, Manager};

/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_secs(10);

/// How long one may take: with the memory of the largest guests, on a slow disk.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// A failure is tried again after this at most, whatever the schedule.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// Refuses what is no schedule.
pub(crate) fn check(schedule: &SnapshotSchedule) -> Result<(), Problem> {
    let SnapshotSchedule {
        every_minutes,
        keep,
        memory: _,
    } = schedule;
    if !MINUTES.contains(every_minutes) {
        let detail = format!("{every_minutes} minutes between snapshots are not possible");
        return Err(Problem::invalid("/snapshot_schedule/every_minutes", detail)
            .with_hint(format!("give {} to {}", MINUTES.start(), MINUTES.end())));
    }
    if !KEPT.contains(keep) {
        let detail = format!("{keep} snapshots cannot be kept");
        return Err(
            Problem::invalid("/snapshot_schedule/keep", detail).with_hint(format!(
                "give {} to {}",
                KEPT.start(),
                KEPT.end()
            )),
        );
    }
    Ok(())
}

impl Manager {
    /// Takes and deletes scheduled snapshots for as long as the manager lives, one after the other.
    pub(crate) async fn follow_schedules(&self) {
        let mut put_off: HashMap<Uuid, Timestamp> = HashMap::new();
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for (vm, schedule) in self.due(&put_off) {
                // Not now, but soon.
                if self.core.require_changeable().is_err() {
                    break;
                }
                let taken = self.take_scheduled(&vm, &schedule).await;
                let Err(problem) = taken else {
                    put_off.remove(&vm.id);
                    continue;
                };
                let pause = interval(schedule.every_minutes).min(LONGEST_PAUSE);
                put_off.insert(vm.id, later(Timestamp::now(), pause));
                let name = vm.name();
                self.core.tell_problem(format!(
                    "the scheduled snapshot of guest {name} failed: {problem}"
                ));
            }
        }
    }

    /// The guests that run and whose next snapshot is due.
    fn due(&self, put_off: &HashMap<Uuid, Timestamp>) -> Vec<(VmRecord, SnapshotSchedule)> {
        let (now, snapshot) = (Timestamp::now(), self.core.snapshot());
        let mut wanted = Vec::new();
        for vm in catalogue::list::<VmRecord>(&snapshot) {
            let vm = vm.value;
            let Some(schedule) = vm.spec.snapshot_schedule.clone() else {
                continue;
            };
            let state = self.core.vms.observed(vm.id).state;
            if matches!(state, VmState::Running | VmState::Paused)
                && put_off.get(&vm.id).is_none_or(|until| *until <= now)
            {
                wanted.push((vm, schedule));
            }
        }
        // Most hosts have nothing to look through the snapshots for.
        if wanted.is_empty() {
            return wanted;
        }
        let taken = scheduled(&snapshot);
        wanted.retain(|(vm, schedule)| {
            let of_it = taken.iter().filter(|taken| taken.vm_id == vm.id);
            is_due(
                schedule.every_minutes,
                of_it.map(|taken| taken.created_at),
                now,
            )
        });
        wanted
    }

    async fn take_scheduled(
        &self,
        vm: &VmRecord,
        schedule: &SnapshotSchedule,
    ) -> Result<(), Problem> {
        let create = SnapshotCreate {
            name: name(vm.name(), Timestamp::now())?,
            description: "taken by the guest's schedule".to_owned(),
            memory: Some(schedule.memory),
        };
        let mut plan = self.core.plan_snapshot(&vm.id.to_string(), create).await?;
        plan.record.scheduled = true;
        let started = self.start_snapshot(&Caller::manager(), plan).await?;
        let ended = self.operation_wait(started.id, PATIENCE).await?;
        outcome(ended)?;
        self.delete_surplus(vm.id, schedule.keep).await
    }

    /// Deletes the oldest of a guest's scheduled snapshots, so that so many are left.
    async fn delete_surplus(&self, vm: Uuid, keep: u32) -> Result<(), Problem> {
        let taken = scheduled(&self.core.snapshot()).into_iter();
        let of_it = taken.filter(|taken| taken.vm_id == vm);
        let of_it = of_it.map(|taken| (taken.created_at, taken.id)).collect();
        for id in surplus(of_it, keep) {
            self.snapshot_delete(&Caller::manager(), &id.to_string(), IfMatch::Any)
                .await?;
        }
        Ok(())
    }
}

/// All that were taken by a schedule.
fn scheduled(snapshot: &Snapshot) -> Vec<SnapshotRecord> {
    let all = catalogue::list::<SnapshotRecord>(snapshot).into_iter();
    all.map(|taken| taken.value)
        .filter(|taken| taken.scheduled)
        .collect()
}

/// The oldest of these, so that so many are left.
fn surplus(mut taken: Vec<(Timestamp, Uuid)>, keep: u32) -> Vec<Uuid> {
    taken.sort_unstable();
    let surplus = taken.len().saturating_sub(keep as usize);
    taken.into_iter().take(surplus).map(|(_, id)| id).collect()
}

/// `web-20261130-081500`, with as much of the guest's name as fits.
fn name(vm: &Name, now: Timestamp) -> Result<Name, Problem> {
    let moment = now.strftime("%Y%m%d-%H%M%S").to_string();
    let room = Name::MAX_LENGTH - moment.len() - 1;
    let vm: String = vm.as_str().chars().take(room).collect();
    format!("{vm}-{moment}")
        .parse()
        .map_err(|error| internal(format!("no name for a snapshot: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every_minutes: u32, keep: u32) -> SnapshotSchedule {
        SnapshotSchedule {
            every_minutes,
            keep,
            memory: false,
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-11-30T{text}Z").parse().unwrap()
    }

    #[test]
    fn only_possible_schedules_are_taken() {
        for (every, keep) in [(5, 1), (60, 24), (525_600, 500)] {
            check(&schedule(every, keep)).unwrap();
        }
        for (every, keep, field) in [
            (4, 1, "every_minutes"),
            (525_601, 1, "every_minutes"),
            (5, 0, "keep"),
            (5, 501, "keep"),
        ] {
            let problem = check(&schedule(every, keep)).unwrap_err();
            let pointer = problem.pointer.clone().unwrap_or_default();
            assert!(pointer.ends_with(field), "{problem:?}");
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let taken = [3, 1, 2].map(|n| (at(&format!("0{n}:00:00")), Uuid::from_u128(n)));
        let surplus = |keep| surplus(taken.to_vec(), keep);
        assert_eq!(surplus(1), [1, 2].map(Uuid::from_u128));
        assert_eq!(surplus(2), [Uuid::from_u128(1)]);
        assert!(surplus(3).is_empty() && surplus(500).is_empty());
    }

    #[test]
    fn names_say_what_and_when() {
        let of = |vm: &str| name(&vm.parse().unwrap(), at("08:15:00.5")).unwrap();
        assert_eq!(of("web").as_str(), "web-20261130-081500");
        let long = of(&"x".repeat(Name::MAX_LENGTH));
        assert_eq!(long.as_str().len(), Name::MAX_LENGTH);
        assert!(long.as_str().ends_with("x-20261130-081500"));
    }
}
