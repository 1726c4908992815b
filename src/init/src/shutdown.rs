//! The order of a shutdown, as a state machine without side effects: what happened goes in, what to do comes out.
//!
//! 1. Draining: the manager gives guests their power button and flushes its store. A second press of the power button
//!    leaves it [`HURRY`], a third nothing.
//! 2. Terminating: everybody gets `SIGTERM`.
//! 3. Killing: who is still there gets `SIGKILL`.
//! 4. Finish: unmount and switch off.

use std::time::{Duration, Instant};

use lodge_host::power::PowerAction;

/// How long guests have.
pub const DRAIN: Duration = Duration::from_secs(90);
/// How long they have when somebody presses again.
pub const HURRY: Duration = Duration::from_secs(10);
/// How long a manager that is not connected may take to come back, before it is given up.
pub const ABSENT: Duration = Duration::from_secs(5);
/// How long processes have after `SIGTERM`.
pub const TERMINATE: Duration = Duration::from_secs(10);
/// How long the kernel has to end processes after `SIGKILL`.
pub const KILL: Duration = Duration::from_secs(5);
/// How often the console says what is being waited for.
const REMIND: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants the machine down: a button, Ctrl-Alt-Del, the manager.
    Request(PowerAction),
    /// The manager has connected.
    ManagerConnected,
    /// The manager has gone.
    ManagerGone,
    /// The manager is done with guests and store.
    Drained,
    /// No process is left but PID 1.
    Alone,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// End the console programs, so that what is said can be read.
    StopConsoles,
    /// Tell a manager that has only now connected.
    NotifyNewest {
        /// What will happen at the end.
        action: PowerAction,
        /// How long it has.
        deadline: Duration,
    },
    /// Tell the manager.
    Notify {
        /// What will happen at the end.
        action: PowerAction,
        /// How long it has.
        deadline: Duration,
    },
    /// Tell the person at the console.
    Say(String),
    /// `SIGTERM` to everybody; nobody is started again.
    Terminate,
    /// `SIGKILL` to everybody.
    Kill,
    /// Unmount and switch off or restart.
    Finish(PowerAction),
}

/// Where a shutdown stands.
#[derive(Debug, Default)]
pub struct Shutdown {
    phase: Phase,
    manager: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Up,
    Draining {
        action: PowerAction,
        /// Somebody has pressed again.
        hurried: bool,
        deadline: Instant,
        remind: Instant,
        /// While the manager is not connected: how long it is waited for.
        absent_until: Option<Instant>,
    },
    Terminating {
        action: PowerAction,
        deadline: Instant,
    },
    Killing {
        action: PowerAction,
        deadline: Instant,
    },
    Finished,
}

impl Shutdown {
    /// Whether a shutdown has begun.
    pub fn begun(&self) -> bool {
        self.phase != Phase::Up
    }

    /// Whether processes have been told to end.
    pub fn ending_processes(&self) -> bool {
        matches!(
            self.phase,
            Phase::Terminating { .. } | Phase::Killing { .. }
        )
    }

    /// When [`Input::Tick`] is due.
    pub fn next_tick(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining {
                deadline,
                remind,
                absent_until,
                ..
            } => Some(deadline.min(remind).min(absent_until.unwrap_or(deadline))),
            Phase::Terminating { deadline, .. } | Phase::Killing { deadline, .. } => Some(deadline),
            Phase::Up | Phase::Finished => None,
        }
    }

    /// Takes in what happened at `now`; returns what to do, in order.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::ManagerConnected => self.manager = true,
            Input::ManagerGone => self.manager = false,
            _ => {}
        }
        match (self.phase, input) {
            (Phase::Up, Input::Request(action)) => self.begin(action, now),
            (Phase::Draining { .. }, Input::Request(action)) => self.hurry(action, now),
            (Phase::Draining { action, .. }, Input::Drained) => {
                self.terminate(action, "guests are stopped; ending programs", now)
            }
            (
                Phase::Draining {
                    action, deadline, ..
                },
                Input::ManagerConnected,
            ) => {
                self.wait_for_manager(None);
                vec![Effect::NotifyNewest {
                    action,
                    deadline: deadline.saturating_duration_since(now),
                }]
            }
            (Phase::Draining { .. }, Input::ManagerGone) => {
                self.wait_for_manager(Some(now + ABSENT));
                vec![Effect::Say(
                    "the manager has ended; waiting for it to come back".to_owned(),
                )]
            }
            (Phase::Draining { .. }, Input::Tick) => self.draining(now),
            (Phase::Terminating { action, .. } | Phase::Killing { action, .. }, Input::Alone) => {
                self.finish(action)
            }
            (Phase::Terminating { action, deadline }, Input::Tick) if now >= deadline => {
                self.phase = Phase::Killing {
                    action,
                    deadline: now + KILL,
                };
                vec![
                    Effect::Say("some programs did not end; killing them".to_owned()),
                    Effect::Kill,
                ]
            }
            (Phase::Killing { action, deadline }, Input::Tick) if now >= deadline => {
                let mut effects = vec![Effect::Say(
                    "some programs cannot be killed; going on".to_owned(),
                )];
                effects.extend(self.finish(action));
                effects
            }
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, action: PowerAction, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Draining {
            action,
            hurried: false,
            deadline: now + DRAIN,
            remind: now + REMIND,
            absent_until: (!self.manager).then(|| now + ABSENT),
        };
        let text = format!(
            "the machine will {}; guests have {} s to shut down (ask again to hurry)",
            action.verb(),
            DRAIN.as_secs()
        );
        vec![
            Effect::StopConsoles,
            Effect::Say(text),
            Effect::Notify {
                action,
                deadline: DRAIN,
            },
        ]
    }

    fn hurry(&mut self, action: PowerAction, now: Instant) -> Vec<Effect> {
        let Phase::Draining {
            hurried,
            deadline,
            remind,
            absent_until,
            ..
        } = self.phase
        else {
            return Vec::new();
        };
        if hurried {
            return self.terminate(action, "asked a third time; not waiting for guests", now);
        }
        let deadline = deadline.min(now + HURRY);
        self.phase = Phase::Draining {
            action,
            hurried: true,
            deadline,
            remind,
            absent_until,
        };
        let left = deadline.saturating_duration_since(now);
        let text = format!(
            "asked again: guests have {} s (ask again to stop them at once)",
            left.as_secs()
        );
        vec![
            Effect::Say(text),
            Effect::Notify {
                action,
                deadline: left,
            },
        ]
    }

    fn draining(&mut self, now: Instant) -> Vec<Effect> {
        let Phase::Draining {
            action,
            deadline,
            remind,
            absent_until,
            ..
        } = self.phase
        else {
            return Vec::new();
        };
        if now >= deadline {
            return self.terminate(action, "the time for guests is over; ending programs", now);
        }
        if absent_until.is_some_and(|until| now >= until) {
            return self.terminate(action, "the manager does not run; ending programs", now);
        }
        if now < remind {
            return Vec::new();
        }
        if let Phase::Draining { remind, .. } = &mut self.phase {
            *remind = now + REMIND;
        }
        let left = deadline.saturating_duration_since(now).as_secs();
        vec![Effect::Say(format!(
            "waiting for guests to shut down: {left} s left"
        ))]
    }

    fn wait_for_manager(&mut self, until: Option<Instant>) {
        if let Phase::Draining { absent_until, .. } = &mut self.phase {
            *absent_until = until;
        }
    }

    fn terminate(&mut self, action: PowerAction, why: &str, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Terminating {
            action,
            deadline: now + TERMINATE,
        };
        vec![Effect::Say(why.to_owned()), Effect::Terminate]
    }

    fn finish(&mut self, action: PowerAction) -> Vec<Effect> {
        self.phase = Phase::Finished;
        vec![Effect::Finish(action)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PowerAction::{Off, Reboot};

    fn said(effects: &[Effect]) -> bool {
        effects.iter().any(|e| matches!(e, Effect::Say(_)))
    }

    fn notified(effects: &[Effect]) -> Option<(PowerAction, Duration)> {
        effects.iter().find_map(|e| match e {
            Effect::Notify { action, deadline } | Effect::NotifyNewest { action, deadline } => {
                Some((*action, *deadline))
            }
            _ => None,
        })
    }

    fn connected(now: Instant) -> Shutdown {
        let mut shutdown = Shutdown::default();
        assert!(shutdown.step(Input::ManagerConnected, now).is_empty());
        shutdown
    }

    #[test]
    fn the_orderly_way() {
        let now = Instant::now();
        let mut shutdown = connected(now);
        assert_eq!(shutdown.next_tick(), None);
        let effects = shutdown.step(Input::Request(Off), now);
        assert_eq!(effects[0], Effect::StopConsoles);
        assert_eq!(notified(&effects), Some((Off, DRAIN)));
        assert!(shutdown.begun() && !shutdown.ending_processes());
        let effects = shutdown.step(Input::Drained, now + Duration::from_secs(4));
        assert!(effects.contains(&Effect::Terminate));
        assert!(shutdown.ending_processes());
        let effects = shutdown.step(Input::Alone, now + Duration::from_secs(5));
        assert_eq!(effects, [Effect::Finish(Off)]);
        assert_eq!(shutdown.next_tick(), None);
        for input in [
            Input::Tick,
            Input::Alone,
            Input::Request(Off),
            Input::Drained,
        ] {
            assert!(shutdown.step(input, now).is_empty());
        }
    }

    #[test]
    fn a_silent_manager_is_overtaken() {
        let mut now = Instant::now();
        let mut shutdown = connected(now);
        shutdown.step(Input::Request(Reboot), now);
        let start = now;
        let mut reminders = 0;
        let effects = loop {
            now = shutdown.next_tick().unwrap();
            let effects = shutdown.step(Input::Tick, now);
            if effects.contains(&Effect::Terminate) {
                break effects;
            }
            reminders += usize::from(said(&effects));
        };
        assert_eq!(now - start, DRAIN);
        assert_eq!(reminders, 8);
        assert!(said(&effects));
        now = shutdown.next_tick().unwrap();
        assert_eq!(now - start, DRAIN + TERMINATE);
        assert!(shutdown.step(Input::Tick, now).contains(&Effect::Kill));
        now = shutdown.next_tick().unwrap();
        assert_eq!(
            shutdown.step(Input::Tick, now).last(),
            Some(&Effect::Finish(Reboot))
        );
    }

    #[test]
    fn asking_again_hurries_and_changes_the_end() {
        let now = Instant::now();
        let mut shutdown = connected(now);
        shutdown.step(Input::Request(Reboot), now);
        let effects = shutdown.step(Input::Request(Off), now + Duration::from_secs(3));
        assert_eq!(notified(&effects), Some((Off, HURRY)));
        let effects = shutdown.step(Input::Request(Off), now + Duration::from_secs(5));
        assert!(effects.contains(&Effect::Terminate));
        assert_eq!(shutdown.step(Input::Alone, now), [Effect::Finish(Off)]);
        // Late in the drain a hurry never makes it longer.
        let mut shutdown = connected(now);
        shutdown.step(Input::Request(Off), now);
        let effects = shutdown.step(Input::Request(Off), now + DRAIN - Duration::from_secs(2));
        assert_eq!(notified(&effects), Some((Off, Duration::from_secs(2))));
    }

    #[test]
    fn without_a_manager_it_is_waited_for_shortly() {
        let now = Instant::now();
        let mut shutdown = Shutdown::default();
        shutdown.step(Input::Request(Off), now);
        assert_eq!(shutdown.next_tick(), Some(now + ABSENT));
        assert!(
            shutdown
                .step(Input::Tick, now + ABSENT)
                .contains(&Effect::Terminate)
        );
    }

    #[test]
    fn a_manager_that_crashes_and_comes_back_is_told_again() {
        let now = Instant::now();
        let mut shutdown = connected(now);
        shutdown.step(Input::Request(Off), now);
        shutdown.step(Input::ManagerGone, now + Duration::from_secs(1));
        assert_eq!(
            shutdown.next_tick(),
            Some(now + Duration::from_secs(1) + ABSENT)
        );
        let effects = shutdown.step(Input::ManagerConnected, now + Duration::from_secs(2));
        assert_eq!(
            notified(&effects),
            Some((Off, DRAIN - Duration::from_secs(2)))
        );
        assert_eq!(shutdown.next_tick(), Some(now + REMIND));
    }
}
