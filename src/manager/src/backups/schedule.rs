//! Backups that are made of guests every so often, one after the other.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lodge_api::backup::BackupSchedule;
use lodge_api::vm::VmState;
use lodge_api::{ErrorCode, Problem};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::make::{Full, Wanted};
use super::record;
use super::target::TargetRecord;
use crate::catalogue::{self, Object};
use crate::operations::outcome;
use crate::schedule::{KEPT, MINUTES, interval, is_due, later};
use crate::vms::VmRecord;
use crate::{Caller, Manager};

/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_secs(10);

/// How long the manager waits for one: the largest guests, by a slow line. What takes longer goes on, and is not begun again meanwhile.
const PATIENCE: Duration = Duration::from_secs(72 * 3600);

/// A failure is tried again after this, then after twice as long, and so on.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// The longest of these pauses.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);

const FULL_EVERY: RangeInclusive<u32> = 1..=100;

/// Refuses what is no schedule.
pub(crate) fn check(schedule: &BackupSchedule) -> Result<(), Problem> {
    let BackupSchedule {
        target: _,
        every_minutes,
        full_every,
        keep,
    } = schedule;
    for (field, value, range) in [
        ("every_minutes", every_minutes, MINUTES),
        ("full_every", full_every, FULL_EVERY),
        ("keep", keep, KEPT),
    ] {
        if !range.contains(value) {
            let pointer = format!("/backup_schedule/{field}");
            let hint = format!("give {} to {}", range.start(), range.end());
            return Err(
                Problem::invalid(pointer, format!("{value} is not possible")).with_hint(hint),
            );
        }
    }
    Ok(())
}

/// Refuses a schedule for a target that is not there.
pub(crate) fn require_target(
    schedule: &BackupSchedule,
    snapshot: &Snapshot,
) -> Result<(), Problem> {
    let name = &schedule.target;
    match catalogue::find_optional::<TargetRecord>(snapshot, name.as_str())? {
        Some(_) => Ok(()),
        None => Err(Problem::invalid(
            "/backup_schedule/target",
            format!("there is no backup target \"{name}\""),
        )
        .with_hint("`lodge backup target list` shows those there are")),
    }
}

/// A guest whose backups fail.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    until: Timestamp,
    pause: SignedDuration,
}

impl PutOff {
    /// After another failure: twice as long as before, but no longer than the schedule's own interval.
    fn after(before: Option<&Self>, now: Timestamp, interval: SignedDuration) -> Self {
        let doubled = |before: &Self| before.pause.saturating_add(before.pause);
        let pause = before.map_or(FIRST_PAUSE, doubled);
        let pause = pause.min(LONGEST_PAUSE).min(interval).max(FIRST_PAUSE);
        Self {
            until: later(now, pause),
            pause,
        }
    }
}

impl Manager {
    /// Makes scheduled backups for as long as the manager lives.
    pub(crate) async fn follow_backup_schedules(&self) {
        self.remove_trials().await;
        let mut put_off: HashMap<Uuid, PutOff> = HashMap::new();
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for (vm, schedule) in self.due_for_backup(&put_off) {
                // Not now, but soon.
                if self.core.require_changeable().is_err() {
                    break;
                }
                let made = self.back_up_scheduled(&vm, &schedule).await;
                let Err(problem) = made else {
                    put_off.remove(&vm.id);
                    self.core.backups.note(vm.id, None);
                    continue;
                };
                let now = Timestamp::now();
                let next =
                    PutOff::after(put_off.get(&vm.id), now, interval(schedule.every_minutes));
                put_off.insert(vm.id, next);
                self.core.backups.note(vm.id, Some((vm.name(), &problem)));
                let (name, minutes) = (vm.name(), next.pause.as_mins());
                self.core.tell_problem(format!(
                    "the scheduled backup of guest {name} failed, and is tried again in {minutes} minutes: {problem}"
                ));
            }
        }
    }

    /// The guests whose next backup is due.
    fn due_for_backup(&self, put_off: &HashMap<Uuid, PutOff>) -> Vec<(VmRecord, BackupSchedule)> {
        let (now, snapshot) = (Timestamp::now(), self.core.snapshot());
        let mut scheduled: Vec<(VmRecord, BackupSchedule)> = catalogue::list::<VmRecord>(&snapshot)
            .into_iter()
            .filter_map(|vm| Some((vm.value.clone(), vm.value.spec.backup_schedule?)))
            .collect();
        let wanted = |id: Uuid| scheduled.iter().any(|(vm, _)| vm.id == id);
        self.core.backups.keep_notes(wanted);
        if scheduled.is_empty() {
            return scheduled;
        }
        let made = record::all(&snapshot);
        scheduled.retain(|(vm, schedule)| {
            let state = self.core.vms.observed(vm.id).state;
            // In between there is a moment at which it can be.
            let can_be = !state.is_active() || matches!(state, VmState::Running | VmState::Paused);
            let waits = put_off.get(&vm.id).is_some_and(|off| off.until > now);
            let target =
                catalogue::find_optional::<TargetRecord>(&snapshot, schedule.target.as_str());
            let target = target.ok().flatten().map(|target| target.value.id);
            let of_it = made.iter().map(|made| &made.value);
            let of_it = of_it.filter(|made| made.vm_id == vm.id && Some(made.target) == target);
            can_be && !waits && is_due(schedule.every_minutes, of_it.map(|made| made.taken_at), now)
        });
        scheduled
    }

    async fn back_up_scheduled(
        &self,
        vm: &VmRecord,
        schedule: &BackupSchedule,
    ) -> Result<(), Problem> {
        let name = &schedule.target;
        let target =
            catalogue::find_optional::<TargetRecord>(&self.core.snapshot(), name.as_str())?;
        let target = target.ok_or_else(|| {
            Problem::new(
                ErrorCode::NotFound,
                format!("there is no backup target \"{name}\""),
            )
        })?;
        let wanted = Wanted {
            vm: vm.id,
            target: target.value.id,
            full: Full::Every(schedule.full_every),
            keep: Some(schedule.keep),
        };
        let started = self.start_backup(&Caller::manager(), wanted).await?;
        outcome(self.operation_wait(started.id, PATIENCE).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every_minutes: u32, full_every: u32, keep: u32) -> BackupSchedule {
        BackupSchedule {
            target: "safe".parse().unwrap(),
            every_minutes,
            full_every,
            keep,
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-11-30T{text}Z").parse().unwrap()
    }

    #[test]
    fn only_possible_schedules_are_taken() {
        check(&schedule(5, 1, 1)).unwrap();
        check(&schedule(525_600, 100, 500)).unwrap();
        for (wrong, field) in [
            (schedule(4, 1, 1), "every_minutes"),
            (schedule(5, 0, 1), "full_every"),
            (schedule(5, 101, 1), "full_every"),
            (schedule(5, 1, 0), "keep"),
            (schedule(5, 1, 501), "keep"),
        ] {
            let problem = check(&wrong).unwrap_err();
            let pointer = problem.pointer.clone().unwrap_or_default();
            assert!(pointer.ends_with(field), "{problem:?}");
        }
    }

    #[test]
    fn failures_are_tried_again_ever_later() {
        let (now, day) = (at("12:00:00"), SignedDuration::from_hours(24));
        let mut last: Option<PutOff> = None;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let next = PutOff::after(last.as_ref(), now, day);
            assert_eq!(next.until, later(now, next.pause));
            pauses.push(next.pause.as_mins());
            last = Some(next);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        let often = PutOff::after(last.as_ref(), now, SignedDuration::from_mins(5));
        assert_eq!(often.pause.as_mins(), 5, "no later than the next is due");
    }
}
