//! One message per packet, descriptors attached.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message in bytes. Both sides refuse a larger one.
pub const MAX_MESSAGE: usize = 64 << 10;

/// Most descriptors with one message: the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer closed its end.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket is non-blocking and not ready.
    #[error("not ready")]
    WouldBlock,
    /// More than [`MAX_MESSAGE`] bytes or [`MAX_FDS`] descriptors.
    #[error("message too large")]
    TooLarge,
    /// Not a message of this protocol.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The socket failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<nix::Error> for ChannelError {
    fn from(error: nix::Error) -> Self {
        match error {
            nix::Error::EAGAIN => Self::WouldBlock,
            nix::Error::ECONNRESET | nix::Error::EPIPE => Self::Closed,
            nix::Error::EMSGSIZE => Self::TooLarge,
            other => Self::Io(other.into()),
        }
    }
}

/// A connected `SOCK_SEQPACKET` Unix socket that speaks JSON.
///
/// Blocking or not is the descriptor's own mode; [`ChannelError::WouldBlock`]
/// reports the latter.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Wraps a connected `SOCK_SEQPACKET` socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives the socket back.
    pub fn into_inner(self) -> OwnedFd {
        self.socket
    }

    /// Sends one message with descriptors, which stay open here.
    ///
    /// # Errors
    /// [`ChannelError::TooLarge`] before anything is sent; others from the socket.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(ChannelError::TooLarge);
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(ChannelError::TooLarge)
        }
    }

    /// Receives one message and the descriptors that came with it, marked close-on-exec.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end; descriptors of a refused message are closed.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0_u8; MAX_MESSAGE];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let fds = take_descriptors(message.cmsgs()?);
        let truncated = message
            .flags
            .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        let length = message.bytes;
        if truncated {
            return Err(ChannelError::TooLarge);
        }
        if length == 0 {
            return Err(ChannelError::Closed);
        }
        Ok((serde_json::from_slice(&bytes[..length])?, fds))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[allow(unsafe_code)]
fn take_descriptors(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for message in messages {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just installed these descriptors in this
            // process for this message; nothing else knows them.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair() -> (Channel, Channel) {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("socketpair");
        (Channel::new(a), Channel::new(b))
    }

    #[test]
    fn carries_a_message_and_its_descriptors() {
        let (a, b) = pair();
        let file = tempfile::tempfile().expect("temporary file");
        a.send(&"hello", &[file.as_fd(), file.as_fd()])
            .expect("send");
        let (text, fds) = b.receive::<String>().expect("receive");
        assert_eq!(text, "hello");
        assert_eq!(fds.len(), 2);
    }

    #[test]
    fn reports_the_end_of_the_peer() {
        let (a, b) = pair();
        drop(a);
        assert!(matches!(b.receive::<String>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn refuses_what_is_too_large_before_sending() {
        let (a, _b) = pair();
        let text = "x".repeat(MAX_MESSAGE);
        assert!(matches!(a.send(&text, &[]), Err(ChannelError::TooLarge)));
    }

    #[test]
    fn garbage_is_an_error_and_the_channel_goes_on() {
        let (a, b) = pair();
        nix::unistd::write(&a, b"{not json").expect("write");
        a.send(&7_u32, &[]).expect("send");
        assert!(matches!(
            b.receive::<u32>(),
            Err(ChannelError::Malformed(_))
        ));
        assert_eq!(b.receive::<u32>().expect("second message").0, 7);
    }
}
