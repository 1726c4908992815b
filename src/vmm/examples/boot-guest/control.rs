//! The control socket, and what is asked over it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use lodge_vmm_proto::{Answer, Channel, Request, RequestBody, ServerMessage};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen,
};

fn seqpacket() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    Ok(socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A listening socket at an address the kernel chooses.
pub fn socket() -> Result<(OwnedFd, UnixAddr)> {
    let listener = seqpacket()?;
    bind(listener.as_raw_fd(), &UnixAddr::new_unnamed())?;
    listen(&listener, Backlog::new(1)?)?;
    let address = getsockname::<UnixAddr>(listener.as_raw_fd())?;
    Ok((listener, address))
}

pub fn join(address: &UnixAddr) -> Result<Channel> {
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), address).context("control socket")?;
    Ok(Channel::new(socket))
}

pub fn nameless_file() -> Result<File> {
    let path = format!("/tmp/boot-{}", std::process::id());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| path.clone())?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Asks, and waits for the answer. One thing is asked at a time, so the next answer is the one.
pub fn ask(channel: &Channel, body: RequestBody, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
    channel.send(&Request { id: 1, body }, fds)?;
    loop {
        match channel.receive::<ServerMessage>()?.0 {
            ServerMessage::Reply(reply) => match reply.answer {
                Answer::Error { message, .. } => bail!("{message}"),
                answer => return Ok(answer),
            },
            ServerMessage::Notice(_) => {}
        }
    }
}
