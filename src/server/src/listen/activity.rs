//! What a connection is doing: whether it may be closed for idleness, and whether its peer takes its answers.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The requests of one connection. Clones share them.
#[derive(Debug, Clone)]
pub struct Activity {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    requests: HashMap<u64, Phase>,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The handler works; it has its own bounds.
    Handling,
    /// The answer was last asked for a piece at that time.
    Responding(Instant),
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Close it: nobody asked anything for too long.
    Idle,
    /// Drop it: an answer is not taken.
    Stalled,
}

/// One request of a connection, until its answer is sent or given up.
#[derive(Debug)]
pub struct Request {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Activity {
    /// A connection without requests.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                next: 0,
                requests: HashMap::new(),
                last: Instant::now(),
            })),
        }
    }

    /// A request's header has been read.
    pub fn begin(&self) -> Request {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.requests.insert(number, Phase::Handling);
        Request {
            state: Arc::clone(&self.state),
            number,
        }
    }

    /// What is to be done at the time `now`.
    pub fn verdict(&self, idle: Duration, stall: Duration, now: Instant) -> Verdict {
        let state = lock(&self.state);
        let since = |time: Instant| now.saturating_duration_since(time);
        let stalled = |phase: &Phase| matches!(phase, Phase::Responding(t) if since(*t) > stall);
        if state.requests.values().any(stalled) {
            Verdict::Stalled
        } else if state.requests.is_empty() && since(state.last) > idle {
            Verdict::Idle
        } else {
            Verdict::Fine
        }
    }
}

impl Request {
    fn progress(&self) {
        let phase = Phase::Responding(Instant::now());
        lock(&self.state).requests.insert(self.number, phase);
    }

    /// Follows the request until `body` has been sent.
    pub fn follow(self, body: Body) -> Body {
        self.progress();
        Body::new(Followed {
            body,
            request: self,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.requests.remove(&self.number);
        state.last = Instant::now();
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Followed {
    body: Body,
    request: Request,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.request.progress();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(90);
    const STALL: Duration = Duration::from_secs(60);

    /// What is to be done when so much time has passed.
    fn verdict_after(activity: &Activity, passed: Duration) -> Verdict {
        activity.verdict(IDLE, STALL, Instant::now() + passed)
    }

    #[test]
    fn idle_only_without_requests() {
        let activity = Activity::new();
        let request = activity.begin();
        assert_eq!(verdict_after(&activity, IDLE * 2), Verdict::Fine);
        drop(request);
        assert_eq!(verdict_after(&activity, Duration::ZERO), Verdict::Fine);
        assert_eq!(verdict_after(&activity, IDLE * 2), Verdict::Idle);
    }

    #[test]
    fn an_answer_nobody_takes_is_a_stall() {
        let activity = Activity::new();
        let body = activity.begin().follow(Body::from("x"));
        assert_eq!(verdict_after(&activity, STALL * 2), Verdict::Stalled);
        drop(body);
        assert_eq!(verdict_after(&activity, STALL), Verdict::Fine);
    }
}
