//! Starting a child: its session, its terminal, and where its words go.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lodge_host::kmsg::{KmsgWriter, Level};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;

/// What to start and how.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// What people call it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the first is the name it sees itself by.
    pub arguments: Vec<String>,
    /// Its whole environment, besides what every child gets.
    pub environment: Vec<(String, String)>,
    /// The terminal it owns. Without one it has no input, and its output goes to the log.
    pub terminal: Option<PathBuf>,
    /// How unwilling the kernel shall be to kill it for want of memory: -1000 to 1000, less is more unwilling.
    pub oom_score: i32,
}

/// A child that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) output: Option<ChildOutput>,
}

/// The environment of every child.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/sbin:/bin:/usr/sbin:/usr/bin"),
    ("TZ", "UTC"),
    ("RUST_BACKTRACE", "1"),
];

impl ChildSpec {
    /// Starts it in a session of its own.
    pub(super) fn start(&self) -> io::Result<Started> {
        let mut command = Command::new(&self.program);
        let mut arguments = self.arguments.iter();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/");
        let output = match &self.terminal {
            Some(path) => {
                let terminal = open_terminal(path)?;
                command
                    .stdin(terminal.try_clone()?)
                    .stdout(terminal.try_clone()?)
                    .stderr(terminal);
                None
            }
            None => {
                let (reader, writer) = io::pipe()?;
                command
                    .stdin(Stdio::null())
                    .stdout(writer.try_clone()?)
                    .stderr(writer);
                Some(ChildOutput::new(&self.name, reader)?)
            }
        };
        let owns_terminal = self.terminal.is_some();
        // SAFETY: between fork and exec only system calls are made, which are safe there.
        unsafe {
            command.pre_exec(move || own_session(owns_terminal));
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Too late for the first instructions of the child, which does not matter.
        let _ = fs::write(
            format!("/proc/{pid}/oom_score_adj"),
            self.oom_score.to_string(),
        );
        Ok(Started { pid, output })
    }
}

/// In the child: a new session, the terminal as its controlling one, and no signal blocked.
fn own_session(owns_terminal: bool) -> io::Result<()> {
    nix::unistd::setsid()?;
    if owns_terminal {
        // The argument takes the terminal away from a session that still has it.
        // SAFETY: TIOCSCTTY takes an integer.
        let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 1) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Opens a terminal without waiting for a modem's carrier.
fn open_terminal(path: &PathBuf) -> io::Result<File> {
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    set_nonblocking(terminal.as_fd(), false)?;
    Ok(terminal)
}

fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// The longest line of output that is kept together, in bytes.
const LINE_MAX: usize = 4096;

/// What a child without a terminal says: line by line into the kernel's log, under its own name.
///
/// It is kept until the other end is closed by everybody, also after the child's own end, so that its last words are
/// not lost.
#[derive(Debug)]
pub struct ChildOutput {
    reader: PipeReader,
    log: Option<KmsgWriter>,
    line: Vec<u8>,
    closed: bool,
}

impl ChildOutput {
    fn new(name: &str, reader: PipeReader) -> io::Result<Self> {
        set_nonblocking(reader.as_fd(), true)?;
        Ok(Self {
            reader,
            log: KmsgWriter::open(&format!("lodge-{name}")).ok(),
            line: Vec::new(),
            closed: false,
        })
    }

    /// Notes that its end was reached.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether its end was reached.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Logs what there is; at most a few pages at once, so that nobody keeps PID 1 busy. False at the end.
    pub(crate) fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match (&self.reader).read(&mut buffer) {
            Ok(0) => {
                self.flush();
                false
            }
            Ok(len) => {
                self.take(&buffer[..len]);
                true
            }
            Err(e) => matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() == LINE_MAX {
                self.flush();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if let Some(log) = &self.log
            && !text.trim().is_empty()
        {
            // There is nowhere to report a failure to.
            let _ = log.write(level(&text), text.trim_end());
        }
    }
}

impl AsRawFd for ChildOutput {
    fn as_raw_fd(&self) -> i32 {
        self.reader.as_raw_fd()
    }
}

impl AsFd for ChildOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// The message of a panic is an error; anything else a child says outside its own log is information.
fn level(line: &str) -> Level {
    if line.contains("panicked at") || line.starts_with("fatal") {
        Level::Error
    } else {
        Level::Info
    }
}
