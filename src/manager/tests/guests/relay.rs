//! A process between managers and a guest's monitor that keeps what the monitor tells of itself until it next answers `Attach`: as late as
//! it can come.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;

use lodge_vmm_proto::{Channel, ChannelError, Request, RequestBody, ServerMessage};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};

use crate::support::Host;

/// A relay in a process of its own: a manager takes its peer for the monitor, and would kill it.
pub struct Relay {
    child: Child,
    socket: PathBuf,
    behind: PathBuf,
}

impl Relay {
    /// Puts itself in front of a guest's monitor.
    pub fn start(host: &Host, vm: &str) -> Self {
        let id = host.vm(vm).id.to_string();
        let run = host.config.run_dir.join("vms").join(id);
        let (socket, behind) = (run.join("control.sock"), run.join("behind.sock"));
        std::fs::rename(&socket, &behind).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("relay")
            .args([&socket, &behind])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Self {
            child,
            socket,
            behind,
        }
    }

    /// Goes away.
    pub fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::rename(&self.behind, &self.socket).unwrap();
    }
}

/// What the process does.
pub fn run(front: &Path, behind: &Path) -> ExitCode {
    let listener = seqpacket();
    bind(listener.as_raw_fd(), &UnixAddr::new(front).unwrap()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    println!("ready");
    loop {
        let raw = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap();
        // SAFETY: it has just been made for us.
        let manager = Channel::new(unsafe { OwnedFd::from_raw_fd(raw) });
        let monitor = seqpacket();
        connect(monitor.as_raw_fd(), &UnixAddr::new(behind).unwrap()).unwrap();
        let monitor = Channel::new(monitor);
        std::thread::spawn(move || {
            let attaching = Mutex::new(None);
            std::thread::scope(|scope| {
                scope.spawn(|| requests(&manager, &monitor, &attaching));
                answers(&monitor, &manager, &attaching)
            })
        });
    }
}

fn requests(
    manager: &Channel,
    monitor: &Channel,
    attaching: &Mutex<Option<u64>>,
) -> Result<(), ChannelError> {
    loop {
        let (request, descriptors): (Request, _) = manager.receive()?;
        if matches!(request.body, RequestBody::Attach { .. }) {
            *attaching.lock().unwrap() = Some(request.id);
        }
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        monitor.send(&request, &descriptors)?;
    }
}

fn answers(
    monitor: &Channel,
    manager: &Channel,
    attaching: &Mutex<Option<u64>>,
) -> Result<(), ChannelError> {
    let mut kept = Vec::new();
    loop {
        let message: ServerMessage = monitor.receive()?.0;
        match &message {
            ServerMessage::Notice(_) => {
                kept.push(message);
                continue;
            }
            ServerMessage::Reply(reply) if Some(reply.id) == *attaching.lock().unwrap() => {
                for notice in kept.drain(..) {
                    manager.send(&notice, &[])?;
                }
            }
            ServerMessage::Reply(_) => {}
        }
        manager.send(&message, &[])?;
    }
}

fn seqpacket() -> OwnedFd {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}
