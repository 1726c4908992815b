//! What a connection is doing: whether it may be closed for idleness, and whether its peer takes its answers.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

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

    /// What is to be done now.
    pub fn verdict(&self, idle: Duration, stall: Duration) -> Verdict {
        let state = lock(&self.state);
        let stalled = |phase: &Phase| matches!(phase, Phase::Responding(t) if t.elapsed() > stall);
        if state.requests.values().any(stalled) {
            Verdict::Stalled
        } else if state.requests.is_empty() && state.last.elapsed() > idle {
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

    #[tokio::test(start_paused = true)]
    async fn idle_only_without_requests() {
        let activity = Activity::new();
        let request = activity.begin();
        tokio::time::advance(IDLE * 2).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Fine);
        drop(request);
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Fine);
        tokio::time::advance(IDLE + Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_nobody_takes_is_a_stall() {
        let activity = Activity::new();
        let body = activity.begin().follow(Body::from("x"));
        tokio::time::advance(STALL + Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Stalled);
        drop(body);
        assert_eq!(activity.verdict(IDLE, STALL), Verdict::Fine);
    }
}
