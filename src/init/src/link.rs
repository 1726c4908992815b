//! PID 1's end of the socket to the manager. Never blocks: a manager that does not read misses notices.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use lodge_host::power::{InitNotice, InitRequest, LINE_LIMIT};

/// The listening socket, and the manager when it is connected.
#[derive(Debug)]
pub(crate) struct Link {
    listener: UnixListener,
    manager: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
}

/// What a read from the manager brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) requests: Vec<InitRequest>,
    /// The connection is over.
    pub(crate) closed: bool,
}

impl Link {
    /// Listens at `path`, in a folder only root can enter.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            manager: None,
        })
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(crate) fn manager(&self) -> Option<BorrowedFd<'_>> {
        self.manager
            .as_ref()
            .map(|connection| connection.stream.as_fd())
    }

    /// Takes a new connection. There is one manager, so the newest is it. Says whether there was one.
    pub(crate) fn accept(&mut self) -> bool {
        let Ok((stream, _)) = self.listener.accept() else {
            return false;
        };
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        self.manager = Some(Connection {
            stream,
            line: Vec::new(),
        });
        true
    }

    /// Reads what the manager has sent.
    pub(crate) fn read(&mut self) -> Received {
        let mut received = Received::default();
        let Some(connection) = &mut self.manager else {
            return received;
        };
        let mut buffer = [0; 1024];
        match (&connection.stream).read(&mut buffer) {
            Ok(0) => received.closed = true,
            Ok(len) => {
                for byte in &buffer[..len] {
                    if *byte == b'\n' {
                        received.requests.extend(connection.request());
                    } else if connection.line.len() as u64 >= LINE_LIMIT {
                        connection.send(&InitNotice::Refused {
                            message: format!("a line is longer than {LINE_LIMIT} bytes"),
                        });
                        received.closed = true;
                        break;
                    } else {
                        connection.line.push(*byte);
                    }
                }
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => received.closed = true,
        }
        if received.closed {
            self.manager = None;
        }
        received
    }

    /// Sends a notice, if the manager is connected.
    pub(crate) fn notify(&mut self, notice: &InitNotice) {
        if let Some(connection) = &mut self.manager {
            connection.send(notice);
        }
    }
}

impl Connection {
    /// The request in the line that is now complete; one that is not understood is answered.
    fn request(&mut self) -> Option<InitRequest> {
        let line = std::mem::take(&mut self.line);
        match serde_json::from_slice(&line) {
            Ok(request) => Some(request),
            Err(error) => {
                tracing::warn!("request not understood: {error}");
                self.send(&InitNotice::Refused {
                    message: error.to_string(),
                });
                None
            }
        }
    }

    fn send(&mut self, notice: &InitNotice) {
        let Ok(mut line) = serde_json::to_vec(notice) else {
            return;
        };
        line.push(b'\n');
        // A line fits in the socket's buffer unless the manager has not read for hundreds of them.
        if let Err(error) = self.stream.write_all(&line) {
            tracing::warn!("the manager does not listen: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_host::power::PowerAction;
    use std::io::{BufRead, BufReader};

    fn pair() -> (tempfile::TempDir, Link, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.sock");
        let mut link = Link::listen(&path).unwrap();
        let peer = UnixStream::connect(&path).unwrap();
        assert!(link.accept());
        assert!(!link.accept());
        (dir, link, peer)
    }

    #[test]
    fn requests_in_pieces_and_nonsense() {
        let (_dir, mut link, mut peer) = pair();
        assert_eq!(link.read(), Received::default());
        peer.write_all(b"{\"type\":\"power\",").unwrap();
        assert_eq!(link.read(), Received::default());
        peer.write_all(b"\"action\":\"off\"}\nnonsense\n{\"type\":\"drained\"}\n")
            .unwrap();
        let received = link.read();
        assert_eq!(
            received.requests,
            [
                InitRequest::Power {
                    action: PowerAction::Off
                },
                InitRequest::Drained
            ]
        );
        let mut line = String::new();
        BufReader::new(&peer).read_line(&mut line).unwrap();
        assert!(line.contains("refused"), "{line}");
        drop(peer);
        assert!(link.read().closed);
        assert!(link.manager().is_none());
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (_dir, mut link, mut peer) = pair();
        peer.write_all(&vec![b'x'; 2 * LINE_LIMIT as usize])
            .unwrap();
        let closed = (0..16).any(|_| link.read().closed);
        assert!(closed);
    }

    #[test]
    fn a_manager_that_does_not_read_blocks_nobody() {
        let (_dir, mut link, _peer) = pair();
        let notice = InitNotice::Shutdown {
            action: PowerAction::Reboot,
            deadline_s: 90,
        };
        for _ in 0..100_000 {
            link.notify(&notice);
        }
    }

    #[test]
    fn the_newest_manager_counts() {
        let (dir, mut link, _old) = pair();
        let new = UnixStream::connect(dir.path().join("init.sock")).unwrap();
        assert!(link.accept());
        link.notify(&InitNotice::Refused {
            message: "x".into(),
        });
        let mut line = String::new();
        BufReader::new(&new).read_line(&mut line).unwrap();
        assert!(line.contains("refused"));
    }
}
