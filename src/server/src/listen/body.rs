//! Request bodies that must make progress, and what to do with what nobody read of them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};

/// A request's body that fails when its next piece takes too long.
pub struct ProgressBody {
    /// There until the end.
    body: Option<Incoming>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Takes the body if it is dropped before its end.
    leftover: Option<oneshot::Sender<Incoming>>,
}

/// What the answer's author did not read of a request's body.
pub struct Leftover(oneshot::Receiver<Incoming>);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No piece came in time.
    #[error("no byte of the body came for {} seconds", .0.as_secs())]
    Stalled(Duration),
    /// The connection or the framing broke.
    #[error("the body ended early: {0}")]
    Broken(#[from] hyper::Error),
}

impl ProgressBody {
    /// Fails when a piece of the body takes longer than `limit`.
    pub fn wrap(request: Request<Incoming>, limit: Duration) -> (Request<Self>, Leftover) {
        let (sender, receiver) = oneshot::channel();
        // A client that waits to be told to go on has sent nothing yet, and need not.
        let waits = request.headers().contains_key(http::header::EXPECT);
        let request = request.map(|body| Self {
            body: Some(body),
            limit,
            timer: None,
            leftover: (!waits).then_some(sender),
        });
        (request, Leftover(receiver))
    }
}

impl Drop for ProgressBody {
    fn drop(&mut self) {
        if let (Some(body), Some(leftover)) = (self.body.take(), self.leftover.take())
            && !body.is_end_stream()
        {
            // Without a receiver nobody minds.
            let _ = leftover.send(body);
        }
    }
}

impl Leftover {
    /// Reads and forgets up to `bytes` bytes for at most `time`. Clients exist (curl 7.88 with
    /// HTTP/2 is one) which miss an answer that comes while they are still sending.
    pub async fn discard(mut self, bytes: usize, time: Duration) {
        let Ok(mut body) = self.0.try_recv() else {
            return;
        };
        let read = async {
            let mut left = bytes;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // What did not come in time is dropped, and the answer cuts it off.
        let _ = timeout(time, read).await;
    }
}

impl Body for ProgressBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            self.timer = None;
            if !matches!(frame, Some(Ok(_))) {
                self.body = None;
            }
            return Poll::Ready(frame.map(|r| r.map_err(BodyError::from)));
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(BodyError::Stalled(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
