//! One manager's connection.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lodge_vmm_proto::{
    Answer, Channel, ChannelError, DeviceKey, ErrorCode, GuestEvent, Notice, Reply, Request,
    ServerMessage,
};
use nix::poll::PollFlags;

/// Messages kept for a manager that does not read; one more, and it is let go.
const MAX_PENDING: usize = 256;

/// Requests served for one connection before the others have their turn.
const BATCH: usize = 16;

/// A connection, and what it has not yet taken.
pub struct Connection {
    channel: Channel,
    pending: VecDeque<ServerMessage>,
    subscribed: bool,
    holds: bool,
    /// Devices the guest is asked for by this one.
    asked: Vec<DeviceKey>,
}

/// The connection is at its end.
pub struct Gone;

/// Something a manager sent.
pub enum Incoming {
    /// A request with its descriptors.
    Request(Request, Vec<OwnedFd>),
    /// Not a request: the answer is ready.
    Bad(Reply),
}

impl Connection {
    /// Serves an accepted, non-blocking socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            channel: Channel::new(socket),
            pending: VecDeque::new(),
            subscribed: false,
            holds: false,
            asked: Vec::new(),
        }
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        if self.pending.is_empty() {
            PollFlags::POLLIN
        } else {
            // Who does not take answers is asked nothing more.
            PollFlags::POLLOUT
        }
    }

    /// Sends later events here too.
    pub fn subscribe(&mut self) {
        self.subscribed = true;
    }

    /// The guest is held for this one.
    pub fn hold(&mut self) {
        self.holds = true;
    }

    /// Whether the guest was held for this one.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// The guest is asked for a device by this one.
    pub fn ask_for(&mut self, device: DeviceKey) {
        if !self.asked.contains(&device) {
            self.asked.push(device);
        }
    }

    /// Devices the guest was asked for by this one, and has not given up.
    pub fn into_asked(self) -> Vec<DeviceKey> {
        self.asked
    }

    /// Takes the requests that have arrived, a few at most.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn receive(&self) -> Result<Vec<Incoming>, Gone> {
        let mut incoming = Vec::new();
        while incoming.len() < BATCH {
            match self.channel.receive::<serde_json::Value>() {
                Ok((value, fds)) => incoming.push(parse(value, fds)),
                Err(ChannelError::WouldBlock) => break,
                Err(error @ (ChannelError::Malformed(_) | ChannelError::TooLarge)) => {
                    incoming.push(Incoming::Bad(bad_request(0, error.to_string())));
                }
                // What came before the end is still answered.
                Err(_) if !incoming.is_empty() => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(incoming)
    }

    /// Sends an answer, or keeps it until the peer takes it.
    ///
    /// # Errors
    /// When the peer is gone or takes nothing any more.
    pub fn reply(&mut self, reply: Reply) -> Result<(), Gone> {
        self.send(ServerMessage::Reply(reply))
    }

    /// Passes an event on, if the peer wants events.
    ///
    /// # Errors
    /// As [`Connection::reply`].
    pub fn notify(&mut self, event: &GuestEvent) -> Result<(), Gone> {
        if let GuestEvent::Detached { device } = event {
            self.asked.retain(|asked| asked != device);
        }
        if !self.subscribed {
            return Ok(());
        }
        self.send(ServerMessage::Notice(Notice {
            event: event.clone(),
        }))
    }

    /// Sends what is pending, as far as the peer takes it.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while let Some(message) = self.pending.front() {
            match self.channel.send(message, &[]) {
                Ok(()) => {
                    self.pending.pop_front();
                }
                Err(ChannelError::WouldBlock) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn send(&mut self, message: ServerMessage) -> Result<(), Gone> {
        if self.pending.len() >= MAX_PENDING {
            return Err(Gone);
        }
        self.pending.push_back(message);
        self.flush()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn parse(value: serde_json::Value, fds: Vec<OwnedFd>) -> Incoming {
    let id = value.get("id").and_then(serde_json::Value::as_u64);
    match serde_json::from_value(value) {
        Ok(request) => Incoming::Request(request, fds),
        Err(error) => Incoming::Bad(bad_request(id.unwrap_or(0), error.to_string())),
    }
}

fn bad_request(id: u64, message: String) -> Reply {
    Reply {
        id,
        answer: Answer::Error {
            code: ErrorCode::BadRequest,
            message,
        },
    }
}
