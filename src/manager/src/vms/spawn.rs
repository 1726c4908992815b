//! Starting a monitor's program: nothing inherited but its log, and inside its cgroup from the first
//! instruction.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lodge_host::cgroup::Cgroup;

/// The command that starts `program` as a monitor.
pub(super) fn command(program: &Path, log: File, cgroup: Option<&Cgroup>) -> io::Result<Command> {
    let mut command = Command::new(program);
    command
        .arg("vmm")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    if let Some(cgroup) = cgroup {
        let procs = File::options()
            .write(true)
            .open(cgroup.path().join("cgroup.procs"))?;
        enter(&mut command, procs);
    }
    Ok(command)
}

fn enter(command: &mut Command, procs: File) {
    let join = move || {
        // "0" is the process that writes.
        // SAFETY: a plain system call on an open descriptor and a static buffer.
        let written = unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) };
        if written == 1 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure makes one async-signal-safe system call; the file it owns stays open with the
    // command, and is close-on-exec.
    unsafe { command.pre_exec(join) };
}
