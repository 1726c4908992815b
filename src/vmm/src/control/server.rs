//! The main thread's loop: wishes of the guest, requests of managers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use lodge_vmm_proto::{ExitRecord, Reply};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Backlog, SockFlag, accept4, getsockopt, listen};

use super::connection::{Connection, Gone, Incoming};
use crate::run_control::{Handled, RunControl};

/// Most managers connected at a time.
const MAX_CONNECTIONS: usize = 16;

/// Waits for managers on the control socket.
pub struct Server {
    listener: OwnedFd,
    connections: Vec<Connection>,
    /// Besides root, who may connect.
    owner: u32,
}

impl Server {
    /// Takes over the bound control socket. Root and `owner` may connect.
    ///
    /// # Errors
    /// When it is no socket that can be listened on.
    pub fn new(listener: OwnedFd, owner: u32) -> io::Result<Self> {
        // Listening again records this process as the socket's owner: a
        // manager that connects finds the monitor by the peer's credentials.
        listen(&listener, Backlog::new(MAX_CONNECTIONS as i32)?)?;
        set_nonblocking(&listener)?;
        Ok(Self {
            listener,
            connections: Vec::new(),
            owner,
        })
    }

    /// Serves until the guest is at its end, and tells why it ended. The
    /// machine has come to rest then.
    pub fn serve(&mut self, control: &mut RunControl) -> ExitRecord {
        loop {
            self.wait(control);
            // Requests first: a console attached at the last moment still
            // gets the guest's last words.
            self.accept();
            let mut end = self.serve_connections(control);
            if end.is_none() {
                control.hear_ejections();
                end = control.grant_wish();
            }
            self.broadcast(control);
            if let Some(record) = end {
                return record;
            }
        }
    }

    fn serve_connections(&mut self, control: &mut RunControl) -> Option<ExitRecord> {
        for index in (0..self.connections.len()).rev() {
            match self.serve_connection(index, control) {
                Ok(None) => {}
                Ok(end) => return end,
                Err(Gone) => end(self.connections.swap_remove(index), control),
            }
        }
        None
    }

    fn wait(&self, control: &RunControl) {
        let guest = [control.wishes(), control.complaints(), control.ejections()];
        let mut fds = guest.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).to_vec();
        // Who comes when it is full waits in the socket's backlog.
        let accepting = if self.connections.len() < MAX_CONNECTIONS {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        fds.push(PollFd::new(self.listener.as_fd(), accepting));
        for connection in &self.connections {
            fds.push(PollFd::new(connection.as_fd(), connection.interest()));
        }
        // Interrupted or not: everything that follows looks for itself.
        let _ = poll(&mut fds, PollTimeout::NONE);
    }

    fn accept(&mut self) {
        while self.connections.len() < MAX_CONNECTIONS {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let Ok(raw) = accept4(self.listener.as_raw_fd(), flags) else {
                return;
            };
            let socket = own(raw);
            if self.may_connect(&socket) {
                self.connections.push(Connection::new(socket));
            }
        }
    }

    fn may_connect(&self, socket: &OwnedFd) -> bool {
        let uid = getsockopt(socket, PeerCredentials).map(|peer| peer.uid());
        let welcome = matches!(uid, Ok(uid) if uid == 0 || uid == self.owner);
        if !welcome {
            tracing::warn!(?uid, "refused a control connection");
        }
        welcome
    }

    fn serve_connection(
        &mut self,
        index: usize,
        control: &mut RunControl,
    ) -> Result<Option<ExitRecord>, Gone> {
        let connection = &mut self.connections[index];
        connection.flush()?;
        if !connection.interest().contains(PollFlags::POLLIN) {
            return Ok(None);
        }
        for incoming in connection.receive()? {
            match incoming {
                Incoming::Bad(reply) => connection.reply(reply)?,
                Incoming::Request(request, fds) => {
                    let Handled {
                        answer,
                        subscribe,
                        holds,
                        asked,
                        end,
                    } = control.handle(&request.body, fds);
                    if subscribe {
                        connection.subscribe();
                    }
                    if holds {
                        connection.hold();
                    }
                    if let Some(device) = asked {
                        connection.ask_for(device);
                    }
                    let reply = connection.reply(Reply {
                        id: request.id,
                        answer,
                    });
                    if end.is_some() {
                        return Ok(end);
                    }
                    reply?;
                }
            }
        }
        Ok(None)
    }

    fn broadcast(&mut self, control: &mut RunControl) {
        for event in control.take_events() {
            let all = std::mem::take(&mut self.connections);
            for mut connection in all {
                match connection.notify(&event) {
                    Ok(()) => self.connections.push(connection),
                    Err(Gone) => end(connection, control),
                }
            }
        }
    }
}

/// Nothing is done any longer for the sake of a connection that is gone.
fn end(connection: Connection, control: &mut RunControl) {
    if connection.holds() {
        control.let_go();
    }
    control.keep_devices(connection.into_asked());
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[allow(unsafe_code)]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: `accept4` has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
