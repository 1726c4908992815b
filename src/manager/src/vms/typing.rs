//! Typing on a guest's keyboard, no faster than the guest reads.
//!
//! A keyboard holds a few keys only. The monitor takes what fits and says how much that was; the rest is sent again until it is
//! all typed, or the guest has taken nothing for a while.

use std::future::Future;
use std::time::Duration;

use lodge_api::keyboard::{Chord, ChordError, VmKeys};
use lodge_api::{ErrorCode, Problem};
use lodge_vmm_proto::{KeyEvent, MAX_KEYS, MAX_TEXT, RequestBody, typeable};
use tokio::time::{Instant, sleep};

/// Most chords of a request.
const MAX_CHORDS: usize = 64;

const _: () = assert!(2 * Chord::MAX <= MAX_KEYS);

/// How a text is typed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two tries. A guest with interrupts switched off, or a BIOS that looks from time to time, is not hurried.
    pub(super) pause: Duration,
    /// How long the guest may take nothing.
    pub(super) stall: Duration,
    /// How long all of it may take: clients wait for the answer.
    pub(super) total: Duration,
}

impl Pace {
    /// For guests.
    pub(super) const GUEST: Self = Self {
        pause: Duration::from_millis(20),
        stall: Duration::from_secs(20),
        total: Duration::from_secs(45),
    };
}

/// What is to be typed, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// ASCII only.
    Text(String),
    /// Each a sequence of presses and releases.
    Chords(Vec<Vec<KeyEvent>>),
}

impl Keys {
    /// Checks a request.
    pub(super) fn parse(keys: &VmKeys) -> Result<Self, Problem> {
        match (&keys.text, keys.keys.as_slice()) {
            (Some(text), []) => parse_text(text),
            (None, chords @ [_, ..]) => parse_chords(chords),
            (Some(_), _) => Err(Problem::invalid("/keys", "both text and keys are given")
                .with_hint("give one of them, and the other in a request of its own")),
            (None, []) => Err(Problem::invalid("", "neither text nor keys are given")
                .with_hint("give a text, or keys like [\"ctrl-alt-delete\", \"enter\"]")),
        }
    }
}

fn parse_text(text: &str) -> Result<Keys, Problem> {
    let length = text.chars().count();
    if !(1..=MAX_TEXT).contains(&length) {
        return Err(
            Problem::invalid("/text", format!("the text has {length} characters")).with_hint(
                format!("give 1 to {MAX_TEXT}, and more in further requests"),
            ),
        );
    }
    match text.chars().enumerate().find(|(_, c)| !typeable(*c)) {
        None => Ok(Keys::Text(text.to_owned())),
        Some((number, character)) => Err(Problem::invalid(
            "/text",
            format!(
                "no key of a US keyboard gives {character:?} (character {})",
                number + 1
            ),
        )
        .with_hint(
            "use printable ASCII, tabs and line feeds; other keys have names, for \"keys\"",
        )),
    }
}

fn parse_chords(chords: &[String]) -> Result<Keys, Problem> {
    if chords.len() > MAX_CHORDS {
        return Err(
            Problem::invalid("/keys", format!("{} keys are too many", chords.len())).with_hint(
                format!("give at most {MAX_CHORDS}, and more in further requests"),
            ),
        );
    }
    let chords = chords.iter().enumerate().map(|(number, text)| {
        let chord: Chord = text.parse().map_err(|error: ChordError| {
            let problem = Problem::invalid(format!("/keys/{number}"), error.to_string());
            match error {
                ChordError::Unknown(_) => {
                    let names: Vec<_> = Chord::names().collect();
                    problem.with_hint(format!(
                        "join keys that are held together by \"-\"; there are {}",
                        names.join(", ")
                    ))
                }
                ChordError::Twice(_) | ChordError::TooMany => {
                    problem.with_hint("give what is struck one after the other as several keys")
                }
            }
        })?;
        Ok(events(&chord))
    });
    chords.collect::<Result<_, _>>().map(Keys::Chords)
}

/// All keys go down in order, and come up the other way round.
fn events(chord: &Chord) -> Vec<KeyEvent> {
    let event = |pressed| {
        move |key: &u8| KeyEvent {
            key: u32::from(*key),
            pressed,
        }
    };
    let down = chord.keys().iter().map(event(true));
    down.chain(chord.keys().iter().rev().map(event(false)))
        .collect()
}

/// Types all of it. `ask` sends a request to the monitor, and returns how much of it was taken.
///
/// # Errors
/// Those of `ask`, and [`ErrorCode::WrongState`] when the guest takes nothing any more. No key stays down then.
pub(super) async fn type_all<F>(
    keys: &Keys,
    pace: Pace,
    ask: impl Fn(RequestBody) -> F,
) -> Result<(), Problem>
where
    F: Future<Output = Result<usize, Problem>>,
{
    let patience = Patience::new(pace);
    match keys {
        Keys::Text(text) => {
            let rest = |done| RequestBody::Text {
                text: text.get(done..).unwrap_or_default().to_owned(),
            };
            let typed = patience.until_taken(text.len(), |done| ask(rest(done)));
            typed
                .await?
                .map_err(|done| stalled(done, text.len(), "characters"))
        }
        Keys::Chords(chords) => {
            for (number, chord) in chords.iter().enumerate() {
                let from = |done| RequestBody::Keys {
                    keys: chord.get(done..).unwrap_or_default().to_vec(),
                };
                let typed = patience.until_taken(chord.len(), |done| ask(from(done)));
                if typed.await?.is_err() {
                    // Releases are always taken.
                    ask(from(chord.len() / 2)).await?;
                    return Err(stalled(number, chords.len(), "keys"));
                }
            }
            Ok(())
        }
    }
}

fn stalled(done: usize, all: usize, what: &str) -> Problem {
    Problem::new(
        ErrorCode::WrongState,
        format!("the guest took {done} of {all} {what}, and then no more"),
    )
    .with_hint("see whether it is paused, or busy; a system without a driver for PS/2 keyboards reads none")
}

/// The time there is left for one request of a client.
struct Patience {
    pace: Pace,
    end: Instant,
}

impl Patience {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            end: Instant::now() + pace.total,
        }
    }

    /// Asks until `all` is taken. The inner error is how much was, when the time is over.
    async fn until_taken<F>(
        &self,
        all: usize,
        ask: impl Fn(usize) -> F,
    ) -> Result<Result<(), usize>, Problem>
    where
        F: Future<Output = Result<usize, Problem>>,
    {
        let mut done = 0_usize;
        let mut limit = self.limit();
        loop {
            let taken = ask(done).await?;
            // A monitor may claim anything.
            done = done.saturating_add(taken).min(all);
            if done == all {
                return Ok(Ok(()));
            }
            if taken > 0 {
                limit = self.limit();
            }
            if Instant::now() >= limit {
                return Ok(Err(done));
            }
            sleep(self.pace.pause).await;
        }
    }

    fn limit(&self) -> Instant {
        self.end.min(Instant::now() + self.pace.stall)
    }
}

#[cfg(test)]
mod tests;
