//! Starting a crashed guest again, with growing pauses.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each further crash doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// A guest that ran that long has not crashed because it was started.
const STABLE: Duration = Duration::from_secs(600);

/// When a crashed guest is started again.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    in_a_row: u32,
    started_at: Option<Instant>,
    due: Option<Instant>,
}

impl Restarts {
    /// When the next start is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The guest runs.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
        self.due = None;
    }

    /// The guest has crashed, or could not be started: plans the next start.
    pub(crate) fn plan(&mut self, now: Instant) {
        if self
            .started_at
            .take()
            .is_some_and(|start| now.saturating_duration_since(start) >= STABLE)
        {
            self.in_a_row = 0;
        }
        let pause = FIRST
            .saturating_mul(1_u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX))
            .min(LONGEST);
        self.in_a_row = self.in_a_row.saturating_add(1).min(30);
        self.due = Some(now + pause);
    }

    /// Plans nothing any more.
    pub(crate) fn cancel(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_guest_is_stable() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            restarts.plan(now);
            assert_eq!(restarts.due(), Some(now + Duration::from_secs(expected)));
            now += Duration::from_secs(expected);
            restarts.started(now);
            assert_eq!(restarts.due(), None);
        }
        restarts.plan(now + STABLE);
        assert_eq!(restarts.due(), Some(now + STABLE + FIRST));
        restarts.cancel();
        assert_eq!(restarts.due(), None);
    }
}
