//! Watching processes that are not our children, through pidfds: no process id is ever reused under us.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A handle on one process, which stays on that process even after it has ended.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl PidFd {
    /// Opens process `pid`. [`io::ErrorKind::NotFound`] when there is none.
    ///
    /// To be sure that it is the right process, take `pid` from a connection it holds open (`SO_PEERCRED`), and check
    /// after opening that the connection is still there.
    pub fn open(pid: i32) -> io::Result<Self> {
        if pid <= 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = check(result)?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Sends a signal. [`io::ErrorKind::NotFound`] when the process has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: a null siginfo is allowed; the other arguments are integers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd,
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        check(result).map(drop)
    }

    /// Sends `SIGKILL`; a process that has already ended is fine.
    pub fn kill(&self) -> io::Result<()> {
        match self.signal(libc::SIGKILL) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, and the count says so; a timeout of zero does not wait.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        Ok(check(ready.into())? > 0)
    }

    /// Turns this into a handle that can be waited on. Must be called inside a tokio runtime.
    pub fn into_async(self) -> io::Result<AsyncPidFd> {
        // SAFETY: the handle owns its descriptor, never replaces it, and always names that one.
        let inner = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(AsyncPidFd { inner: inner? })
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A [`PidFd`] that can be waited on.
#[derive(Debug)]
pub struct AsyncPidFd {
    inner: AsyncFd<PidFd>,
}

impl AsyncPidFd {
    /// Returns when the process has ended. Safe to cancel and to repeat.
    pub async fn ended(&self) -> io::Result<()> {
        // The readiness is never cleared: an ended process stays ended.
        self.inner.readable().await.map(drop)
    }

    /// The handle itself, for signals.
    pub fn get(&self) -> &PidFd {
        self.inner.get_ref()
    }
}

/// -1 means errno.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ESRCH) => io::Error::from(io::ErrorKind::NotFound),
            e => e,
        });
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = PidFd::open(pid).unwrap();
        assert!(!pidfd.has_ended().unwrap());
        let pidfd = pidfd.into_async().unwrap();
        pidfd.get().kill().unwrap();
        pidfd.ended().await.unwrap();
        assert!(pidfd.get().has_ended().unwrap());
        child.wait().unwrap();
        pidfd.get().kill().unwrap();
        assert_eq!(
            PidFd::open(pid).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_group_or_nobody_is_not_a_process() {
        for pid in [0, -1] {
            assert_eq!(
                PidFd::open(pid).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
    }
}
