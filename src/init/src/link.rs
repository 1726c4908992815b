//! PID 1's end of the socket to the manager. Never blocks: a manager that does not read misses notices.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use lodge_host::power::{InitNotice, InitRequest, LINE_LIMIT};

/// The manager holds one connection for long, and one for each power request.
const CONNECTIONS: usize = 8;

/// The listening socket, and the manager's connections, the newest last.
#[derive(Debug)]
pub(crate) struct Link {
    listener: UnixListener,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
    closed: bool,
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
            connections: Vec::new(),
        })
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Every connection, in an order that only [`Link::accept`] and [`Link::sweep`] change.
    pub(crate) fn connections(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.connections
            .iter()
            .map(|connection| connection.stream.as_fd())
    }

    /// Whether anybody is connected.
    pub(crate) fn connected(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Takes a new connection; beyond a handful the oldest is dropped. Says whether there was one.
    pub(crate) fn accept(&mut self) -> bool {
        let Ok((stream, _)) = self.listener.accept() else {
            return false;
        };
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        if self.connections.len() == CONNECTIONS {
            self.connections.remove(0);
        }
        self.connections.push(Connection {
            stream,
            line: Vec::new(),
            closed: false,
        });
        true
    }

    /// Reads what came on one connection.
    pub(crate) fn read(&mut self, index: usize) -> Vec<InitRequest> {
        match self.connections.get_mut(index) {
            Some(connection) => connection.read(),
            None => Vec::new(),
        }
    }

    /// Drops connections that have ended. Says whether any did.
    pub(crate) fn sweep(&mut self) -> bool {
        let before = self.connections.len();
        self.connections.retain(|connection| !connection.closed);
        self.connections.len() != before
    }

    /// Sends a notice to everybody who is connected.
    pub(crate) fn notify(&mut self, notice: &InitNotice) {
        for connection in &mut self.connections {
            connection.send(notice);
        }
    }

    /// Sends a notice to who connected last.
    pub(crate) fn notify_newest(&mut self, notice: &InitNotice) {
        if let Some(connection) = self.connections.last_mut() {
            connection.send(notice);
        }
    }
}

impl Connection {
    fn read(&mut self) -> Vec<InitRequest> {
        let mut requests = Vec::new();
        let mut buffer = [0; 1024];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(len) => {
                for byte in &buffer[..len] {
                    if *byte == b'\n' {
                        requests.extend(self.request());
                    } else if self.line.len() as u64 >= LINE_LIMIT {
                        self.send(&InitNotice::Refused {
                            message: format!("a line is longer than {LINE_LIMIT} bytes"),
                        });
                        self.closed = true;
                        break;
                    } else {
                        self.line.push(*byte);
                    }
                }
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.closed = true,
        }
        requests
    }

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

    fn line(stream: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

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
        assert!(link.read(0).is_empty());
        peer.write_all(b"{\"type\":\"power\",").unwrap();
        assert!(link.read(0).is_empty());
        peer.write_all(b"\"action\":\"off\"}\nnonsense\n{\"type\":\"drained\"}\n")
            .unwrap();
        assert_eq!(
            link.read(0),
            [
                InitRequest::Power {
                    action: PowerAction::Off
                },
                InitRequest::Drained
            ]
        );
        assert!(line(&peer).contains("refused"));
        assert!(!link.sweep());
        drop(peer);
        link.read(0);
        assert!(link.sweep() && !link.connected());
        assert!(link.read(0).is_empty());
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (_dir, mut link, mut peer) = pair();
        peer.write_all(&vec![b'x'; 2 * LINE_LIMIT as usize])
            .unwrap();
        for _ in 0..16 {
            link.read(0);
        }
        assert!(link.sweep());
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
    fn everybody_is_told_or_only_the_newest() {
        let (dir, mut link, old) = pair();
        let new = UnixStream::connect(dir.path().join("init.sock")).unwrap();
        assert!(link.accept());
        link.notify_newest(&InitNotice::Refused {
            message: "first".into(),
        });
        link.notify(&InitNotice::Refused {
            message: "second".into(),
        });
        assert!(line(&old).contains("second"));
        assert!(line(&new).contains("first"));
        drop(old);
        link.read(0);
        assert!(link.sweep() && link.connected());
    }

    #[test]
    fn no_more_than_a_handful() {
        let (dir, mut link, old) = pair();
        let path = dir.path().join("init.sock");
        let peers: Vec<UnixStream> = (0..CONNECTIONS)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        while link.accept() {}
        assert_eq!(link.connections().count(), CONNECTIONS);
        assert_eq!((&old).read(&mut [0; 8]).unwrap(), 0);
        drop(peers);
    }
}
