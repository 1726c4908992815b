//! A serial line of the machine: everything it said, and a keyboard.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::trace::timed;

/// How long a line may be silent before a wait gives up. Emulated machines pause for
/// seconds when the real one is busy.
pub const SILENCE: Duration = Duration::from_secs(120);

/// What a host says that has crashed.
const PANIC: &str = "Kernel panic - not syncing";

/// How much of the end of a line an error shows.
const TAIL: usize = 4000;

/// Everything a line said so far.
#[derive(Default)]
struct Heard {
    text: String,
    closed: bool,
    /// A panic of the kernel before this position was wanted.
    forgiven: usize,
}

/// One serial line. Clones share it.
#[derive(Clone)]
pub struct Serial {
    name: String,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    writer: Arc<Mutex<UnixStream>>,
}

/// A line that waits for its machine.
pub struct Socket {
    listener: UnixListener,
    name: String,
    transcript: File,
}

impl Socket {
    /// Listens at `path`, to which the machine will connect. What it says is written to
    /// `path` with `.log` behind it too, for whoever watches a test.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(path: &Path, name: &str) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self {
            listener,
            name: name.to_owned(),
            transcript: File::create(path.with_extension("log"))?,
        })
    }

    /// Takes the machine's connection and begins to listen.
    ///
    /// # Errors
    /// When the machine did not connect.
    pub fn accept(self) -> Result<Serial> {
        let (stream, _) = self.listener.accept()?;
        let serial = Serial {
            name: self.name,
            heard: Arc::default(),
            writer: Arc::new(Mutex::new(stream.try_clone()?)),
        };
        let heard = Arc::clone(&serial.heard);
        std::thread::spawn(move || collect(stream, self.transcript, &heard));
        Ok(serial)
    }
}

fn collect(mut stream: UnixStream, mut transcript: File, heard: &(Mutex<Heard>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).unwrap_or(0);
        // Only for a person; the test has its own copy.
        let _ = transcript.write_all(&buffer[..length]);
        let mut state = heard.0.lock().unwrap();
        state
            .text
            .push_str(&String::from_utf8_lossy(&buffer[..length]));
        state.closed |= length == 0;
        heard.1.notify_all();
        if length == 0 {
            return;
        }
    }
}

impl Serial {
    /// Everything said so far.
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Where the line stands now, for [`Serial::wait_after`].
    pub fn position(&self) -> usize {
        self.lock().text.len()
    }

    /// Waits for `pattern` anywhere since the start; returns the rest of its line.
    ///
    /// # Errors
    /// When the line closed or fell silent first; with its last words.
    pub fn wait(&self, pattern: &str) -> Result<String> {
        self.wait_after(0, pattern)
    }

    /// Waits for `pattern` after `position`; returns the rest of its line.
    ///
    /// # Errors
    /// See [`Serial::wait`].
    pub fn wait_after(&self, position: usize, pattern: &str) -> Result<String> {
        timed(
            || format!("{}: {pattern:?}", self.name),
            || self.wait_for(position, pattern),
        )
    }

    fn wait_for(&self, position: usize, pattern: &str) -> Result<String> {
        let mut state = self.lock();
        loop {
            if let Some(found) = find_line(&state.text[position..], pattern) {
                return Ok(found);
            }
            // It would restart for ever and never be silent.
            let panicked = |text: &str| text.contains(PANIC);
            if state.closed || state.text.get(state.forgiven..).is_some_and(panicked) {
                bail!(
                    "{} ended before {pattern:?}; its last words:\n{}",
                    self.name,
                    tail(&state.text)
                );
            }
            let before = state.text.len();
            let (next, timeout) = self.heard.1.wait_timeout(state, SILENCE).unwrap();
            state = next;
            if timeout.timed_out() && state.text.len() == before {
                bail!(
                    "{} was silent for {SILENCE:?} while waiting for {pattern:?}; its last words:\n{}",
                    self.name,
                    tail(&state.text)
                );
            }
        }
    }

    /// Waits until the machine's kernel panics after `position`, and holds it against it no longer.
    ///
    /// # Errors
    /// See [`Serial::wait`].
    pub fn wait_panic(&self, position: usize) -> Result<()> {
        self.lock().forgiven = usize::MAX;
        let panicked = self.wait_after(position, PANIC);
        let mut state = self.lock();
        state.forgiven = state.text.len();
        panicked.map(drop)
    }

    /// Whether the machine closed the line, i.e. ended.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Types on the line.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn write(&self, text: &str) -> Result<()> {
        self.writer
            .lock()
            .unwrap()
            .write_all(text.as_bytes())
            .with_context(|| format!("writing to {}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.0.lock().unwrap()
    }
}

/// The rest of the line after `pattern`, once that line is complete.
fn find_line(text: &str, pattern: &str) -> Option<String> {
    let begin = text.find(pattern)? + pattern.len();
    let rest = &text[begin..];
    // A prompt has no end of line: what is there then is the answer.
    // A full-screen program moves the cursor instead.
    let end = rest.find(['\r', '\n', '\x1b']);
    match end {
        Some(end) => Some(rest[..end].to_owned()),
        None if pattern.ends_with(": ") || pattern.ends_with("# ") => Some(rest.to_owned()),
        None => None,
    }
}

fn tail(text: &str) -> &str {
    let begin = text.len().saturating_sub(TAIL);
    let begin = (begin..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[begin..]
}
