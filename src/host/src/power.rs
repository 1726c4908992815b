//! The socket between PID 1 and the manager: power requests one way, notice of a shutdown the other.
//!
//! A stream socket with one JSON object per line. `lodge init` listens on [`INIT_SOCKET`]; `lodge serve` connects
//! when it starts and stays connected, see [`InitLink`].

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Where `lodge init` listens on the appliance.
pub const INIT_SOCKET: &str = "/run/lodge/init.sock";

/// The longest line either side accepts, in bytes.
pub const LINE_LIMIT: u64 = 4096;

/// What the machine shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Switch off.
    Off,
    /// Restart.
    Reboot,
}

impl PowerAction {
    /// For messages to people: "power off" or "restart".
    pub fn verb(self) -> &'static str {
        match self {
            Self::Off => "power off",
            Self::Reboot => "restart",
        }
    }
}

/// From the manager to PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InitRequest {
    /// Shut down in an orderly way: PID 1 answers everybody with [`InitNotice::Shutdown`].
    Power {
        /// What to do at the end.
        action: PowerAction,
    },
    /// Guests are stopped and the store is flushed: PID 1 need not wait longer.
    Drained,
    /// The image that was started for a trial works: PID 1 need not restart the machine.
    Works,
}

/// From PID 1 to the manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InitNotice {
    /// The machine is going down: stop every guest, flush everything, answer [`InitRequest::Drained`].
    /// Sent again with a smaller deadline when somebody is in a hurry.
    Shutdown {
        /// What will happen at the end.
        action: PowerAction,
        /// Seconds until PID 1 goes on without an answer.
        deadline_s: u64,
    },
    /// A request was not understood.
    Refused {
        /// What was wrong with it.
        message: String,
    },
}

/// The manager's end of the socket.
#[derive(Debug)]
pub struct InitLink {
    /// Sends requests.
    pub sender: InitSender,
    /// Receives notices.
    pub receiver: InitReceiver,
}

/// Sends requests to PID 1.
#[derive(Debug)]
pub struct InitSender {
    stream: OwnedWriteHalf,
}

/// Receives PID 1's notices.
#[derive(Debug)]
pub struct InitReceiver {
    stream: BufReader<OwnedReadHalf>,
}

impl InitLink {
    /// Connects to PID 1; `path` is [`INIT_SOCKET`] on the appliance.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(path).await?.into_split();
        Ok(Self {
            sender: InitSender { stream: write },
            receiver: InitReceiver {
                stream: BufReader::new(read),
            },
        })
    }
}

impl InitSender {
    /// Sends one request.
    pub async fn send(&mut self, request: &InitRequest) -> io::Result<()> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }
}

impl InitReceiver {
    /// Waits for the next notice. `None` when PID 1 has closed the connection.
    ///
    /// Not safe to cancel in the middle of a line: give it a task of its own.
    pub async fn next(&mut self) -> io::Result<Option<InitNotice>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LINE_LIMIT);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let power = InitRequest::Power {
            action: PowerAction::Off,
        };
        assert_eq!(
            serde_json::to_string(&power).unwrap(),
            r#"{"type":"power","action":"off"}"#
        );
        assert_eq!(
            serde_json::to_string(&InitRequest::Drained).unwrap(),
            r#"{"type":"drained"}"#
        );
        let notice = InitNotice::Shutdown {
            action: PowerAction::Reboot,
            deadline_s: 90,
        };
        assert_eq!(
            serde_json::to_string(&notice).unwrap(),
            r#"{"type":"shutdown","action":"reboot","deadline_s":90}"#
        );
    }

    #[tokio::test]
    async fn both_directions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut link = InitLink::connect(&path).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        link.sender.send(&InitRequest::Drained).await.unwrap();
        let mut buffer = [0; 64];
        let n = peer.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"{\"type\":\"drained\"}\n");
        peer.write_all(b"{\"type\":\"shutdown\",\"action\":\"off\",\"deadline_s\":5}\n")
            .await
            .unwrap();
        drop(peer);
        let notice = link.receiver.next().await.unwrap();
        assert_eq!(
            notice,
            Some(InitNotice::Shutdown {
                action: PowerAction::Off,
                deadline_s: 5
            })
        );
        assert_eq!(link.receiver.next().await.unwrap(), None);
    }
}
