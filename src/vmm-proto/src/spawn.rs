//! The parent's side of a monitor's birth.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::{BIRTH_FD, Channel, ChannelError, Launch, LaunchError, LaunchReply};

/// A monitor that did not come to life. None is left running.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be started.
    #[error("cannot start the monitor: {0}")]
    Start(#[source] io::Error),
    /// The monitor could not be told what to do, or its answer not understood.
    #[error("cannot talk to the new monitor: {0}")]
    Channel(#[from] ChannelError),
    /// The monitor ended or closed the birth socket without an answer.
    #[error("the monitor ended before its guest ran; its log may say why")]
    Died,
    /// The guest did not run within the time allowed.
    #[error("the guest did not start within {0:?}")]
    Timeout(Duration),
    /// The monitor says why the guest cannot be built.
    #[error("{message}")]
    Refused {
        /// What kind of failure.
        error: LaunchError,
        /// What is wrong and what to do about it, for a person.
        message: String,
    },
}

/// Starts `command` as a monitor, sends it `launch` with `fds`, and waits until
/// its guest runs.
///
/// Arguments, environment and standard streams are the caller's business; the
/// birth socket is put at [`BIRTH_FD`]. The program forks the real monitor into
/// its jail and exits itself; it has been waited for when this returns. Blocks
/// for at most about `timeout`.
///
/// # Errors
/// [`SpawnError`]; the monitor notices the closed birth socket and gives up.
pub fn spawn(
    mut command: Command,
    launch: &Launch,
    fds: &[BorrowedFd<'_>],
    timeout: Duration,
) -> Result<(), SpawnError> {
    let deadline = Instant::now() + timeout;
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| SpawnError::Start(errno.into()))?;
    pass_birth_socket(&mut command, &theirs);
    let child = Reaped {
        child: command.spawn().map_err(SpawnError::Start)?,
        deadline,
    };
    drop(theirs);
    let channel = Channel::new(ours);
    let reply = converse(&channel, launch, fds, deadline, timeout);
    drop(channel);
    drop(child);
    match reply? {
        LaunchReply::Launched => Ok(()),
        LaunchReply::Failed { error, message } => Err(SpawnError::Refused { error, message }),
    }
}

fn converse(
    channel: &Channel,
    launch: &Launch,
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
    timeout: Duration,
) -> Result<LaunchReply, SpawnError> {
    let died = |error| match error {
        ChannelError::Closed => SpawnError::Died,
        other => SpawnError::Channel(other),
    };
    channel.send(launch, fds).map_err(died)?;
    if !wait_readable(channel.as_fd(), deadline).map_err(ChannelError::Io)? {
        return Err(SpawnError::Timeout(timeout));
    }
    Ok(channel.receive::<LaunchReply>().map_err(died)?.0)
}

fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for the short-lived first process, so that no zombie stays behind.
struct Reaped {
    child: Child,
    deadline: Instant,
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It has forked, failed, or lost its birth socket by now: each ends it
        // at once. Should it hang all the same it is killed.
        const STEP: Duration = Duration::from_millis(2);
        let deadline = self.deadline.max(Instant::now() + Duration::from_secs(1));
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(STEP),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(unsafe_code)]
fn pass_birth_socket(command: &mut Command, socket: &OwnedFd) {
    let raw = socket.as_raw_fd();
    let place = move || {
        if raw == BIRTH_FD {
            // dup2 onto itself would keep close-on-exec.
            // SAFETY: plain system call on a descriptor that is open.
            check(unsafe { nix::libc::fcntl(raw, nix::libc::F_SETFD, 0) })
        } else {
            // SAFETY: plain system call; whatever was open at the target is meant to go.
            check(unsafe { nix::libc::dup2(raw, BIRTH_FD) })
        }
    };
    // SAFETY: the closure makes one async-signal-safe system call and touches
    // no memory but its own copy of a number. `raw` stays open until after
    // the spawn, because the caller holds `socket` that long.
    unsafe { command.pre_exec(place) };
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, FdIndex, GuestConfig, PROTOCOL_VERSION};
    use std::process::Stdio;

    fn launch() -> Launch {
        Launch {
            version: PROTOCOL_VERSION,
            guest: GuestConfig {
                id: uuid::Uuid::nil(),
                name: "test".to_owned(),
                vcpus: 1,
                cpu: crate::CpuConfig::default(),
                memory: 64 << 20,
                boot: Boot::Direct {
                    kernel: FdIndex(0),
                    initrd: None,
                    cmdline: String::new(),
                },
                disks: Vec::new(),
                cdroms: Vec::new(),
                nics: Vec::new(),
                vsock: None,
                on_reset: crate::OnReset::Boot,
                watchdog: None,
            },
            kvm: FdIndex(0),
            control: FdIndex(0),
            exit_record: FdIndex(0),
            uid_gid: None,
            restore: None,
            jail: true,
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn a_program_that_ends_without_a_word_has_died() {
        let result = spawn(shell("exit 0"), &launch(), &[], Duration::from_secs(20));
        assert!(matches!(result, Err(SpawnError::Died)), "{result:?}");
    }

    #[test]
    fn a_program_that_says_nothing_times_out_and_is_killed() {
        let timeout = Duration::from_millis(50);
        let result = spawn(shell("exec sleep 1000"), &launch(), &[], timeout);
        assert!(matches!(result, Err(SpawnError::Timeout(_))), "{result:?}");
    }

    #[test]
    fn a_missing_program_is_a_start_error() {
        let result = spawn(
            Command::new("/nonexistent/lodge"),
            &launch(),
            &[],
            Duration::from_secs(1),
        );
        assert!(matches!(result, Err(SpawnError::Start(_))), "{result:?}");
    }

    #[test]
    fn the_answer_arrives() {
        // Linux lets a shell use the seqpacket socket like any file; the
        // launch message must be taken, or the end of the program resets the socket.
        let script = r#"dd bs=65536 count=1 <&3 >/dev/null 2>&1; printf '{"type":"launched"}' >&3"#;
        spawn(shell(script), &launch(), &[], Duration::from_secs(20)).expect("launched");
        let script = r#"dd bs=65536 count=1 <&3 >/dev/null 2>&1; printf '{"type":"failed","error":"kernel","message":"no"}' >&3"#;
        let result = spawn(shell(script), &launch(), &[], Duration::from_secs(20));
        assert!(
            matches!(
                &result,
                Err(SpawnError::Refused { error: LaunchError::Kernel, message }) if message == "no"
            ),
            "{result:?}"
        );
    }
}
