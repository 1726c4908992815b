//! The manager's end of a monitor's control socket.
//!
//! A monitor may be hostile: its answers are bounded in size, number and time.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use lodge_api::{ErrorCode, Problem};
use lodge_host::process::PidFd;
use lodge_vmm_proto::{
    Answer, Channel, ChannelError, ErrorCode as VmmErrorCode, GuestEvent, GuestStatus, Reply,
    Request, RequestBody, ServerMessage,
};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::core::internal;
use crate::images::no_space;

/// How long a monitor may take to answer. While its guest is reset it serves nobody, and loads the
/// kernel anew: ten seconds on a machine that emulates KVM and has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests and notices under way.
const QUEUE: usize = 64;

/// A request, and who waits for its answer.
#[derive(Debug)]
struct Outgoing {
    body: RequestBody,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// A connection to a running monitor. Clones share it; it closes with the last.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    requests: mpsc::Sender<Outgoing>,
}

/// A monitor that was found through its socket.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) control: Control,
    pub(crate) notices: mpsc::Receiver<GuestEvent>,
    pub(crate) process: PidFd,
    pub(crate) pid: i32,
    pub(crate) status: GuestStatus,
}

/// Connects to the monitor that listens at `path`, and subscribes to its notices.
pub(crate) async fn find(path: &Path) -> io::Result<Found> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let pid = getsockopt(&socket.as_fd(), PeerCredentials)?.pid();
    // A manager that died may still be named as the peer: no reason to think that nobody listens.
    let process =
        PidFd::open(pid).map_err(|error| io::Error::other(format!("process {pid}: {error}")))?;
    let channel = register(Channel::new(socket))?;
    let (requests, outgoing) = mpsc::channel(QUEUE);
    let (events, notices) = mpsc::channel(QUEUE);
    tokio::spawn(converse(channel, outgoing, events));
    let control = Control { requests };
    let failed = |problem: Problem| match problem.code {
        ErrorCode::WrongState => io::Error::new(io::ErrorKind::ConnectionReset, problem.detail),
        _ => io::Error::other(problem.detail),
    };
    // The process is the right one if it answers after it was opened by its number.
    control
        .ask(RequestBody::Subscribe, None)
        .await
        .map_err(failed)?;
    let status = control.status().await.map_err(failed)?;
    Ok(Found {
        control,
        notices,
        process,
        pid,
        status,
    })
}

#[allow(unsafe_code)]
fn register(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a channel owns its socket, never replaces it, and always names that socket's descriptor.
    Ok(unsafe { AsyncFd::register(channel) }?)
}

impl Control {
    /// Sends a request and waits until it is done.
    pub(crate) async fn ask(
        &self,
        body: RequestBody,
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<Answer, Problem> {
        match self.exchange(body, descriptors).await? {
            Answer::Error { code, message } => Err(refusal(code, &message)),
            answer => Ok(answer),
        }
    }

    /// Sends a request and waits for its answer, which may be a refusal.
    pub(crate) async fn exchange(
        &self,
        body: RequestBody,
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<Answer, Problem> {
        let (answer, reply) = oneshot::channel();
        let outgoing = Outgoing {
            body,
            descriptors: descriptors.into_iter().collect(),
            answer,
        };
        let gone = || Problem::new(ErrorCode::WrongState, "the guest has just ended");
        let conversation = async {
            self.requests.send(outgoing).await.map_err(|_| gone())?;
            reply.await.map_err(|_| gone())
        };
        tokio::time::timeout(PATIENCE, conversation)
            .await
            .map_err(|_| {
                internal("the guest's monitor does not answer").with_hint("kill the guest")
            })?
    }

    /// The guest's condition.
    pub(crate) async fn status(&self) -> Result<GuestStatus, Problem> {
        match self.ask(RequestBody::Status, None).await? {
            Answer::Status(status) => Ok(*status),
            _ => Err(internal("the guest's monitor gave an unexpected answer")),
        }
    }
}

/// What a monitor's refusal means to the caller.
pub(crate) fn refusal(code: VmmErrorCode, message: &str) -> Problem {
    let message: String = message.chars().take(300).collect();
    let code = match code {
        VmmErrorCode::NoSpace => return no_space(message),
        VmmErrorCode::WrongState => ErrorCode::WrongState,
        VmmErrorCode::Busy => ErrorCode::InsufficientResources,
        VmmErrorCode::BadRequest | VmmErrorCode::Internal => ErrorCode::Internal,
    };
    Problem::new(code, message)
}

/// Carries requests one way, answers and notices the other, until either side ends.
async fn converse(
    channel: AsyncFd<Channel>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<GuestEvent>,
) {
    let mut waiting: HashMap<u64, oneshot::Sender<Answer>> = HashMap::new();
    let mut last_id = 0;
    loop {
        tokio::select! {
            request = outgoing.recv() => {
                let Some(request) = request else { return };
                last_id += 1;
                if let Err(error) = send(&channel, last_id, &request).await {
                    tracing::debug!(%error, "a monitor's control connection failed");
                    return;
                }
                // Those who gave up waiting.
                waiting.retain(|_, answer| !answer.is_closed());
                waiting.insert(last_id, request.answer);
            }
            message = receive(&channel) => match message {
                Ok(ServerMessage::Reply(Reply { id, answer })) => {
                    if let Some(waiting) = waiting.remove(&id) {
                        // Nobody waits any more: fine.
                        let _ = waiting.send(answer);
                    }
                }
                Ok(ServerMessage::Notice(notice)) => {
                    if events.send(notice.event).await.is_err() {
                        return;
                    }
                }
                Err(ChannelError::Malformed(error)) => {
                    tracing::warn!(%error, "a monitor sent a malformed message");
                }
                Err(_) => return,
            }
        }
    }
}

async fn send(channel: &AsyncFd<Channel>, id: u64, request: &Outgoing) -> Result<(), ChannelError> {
    let message = Request {
        id,
        body: request.body.clone(),
    };
    let descriptors: Vec<_> = request.descriptors.iter().map(AsFd::as_fd).collect();
    loop {
        match channel.get_ref().send(&message, &descriptors) {
            Err(ChannelError::WouldBlock) => {
                let mut ready = channel.writable().await.map_err(ChannelError::Io)?;
                ready.clear_ready();
            }
            result => return result,
        }
    }
}

async fn receive(channel: &AsyncFd<Channel>) -> Result<ServerMessage, ChannelError> {
    loop {
        let mut ready = channel.readable().await.map_err(ChannelError::Io)?;
        match channel.get_ref().receive() {
            Err(ChannelError::WouldBlock) => ready.clear_ready(),
            // Descriptors are not expected, and closed.
            result => return result.map(|(message, _)| message),
        }
    }
}
