//! Two kinds of terminals: a guest's console through the CLI, and a full screen in tmux.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts;
use crate::cli::Cli;
use crate::process::tool;
use crate::serial::SILENCE;
use crate::trace::timed;

/// `lodge vm console`, without a terminal.
pub struct GuestConsole {
    child: Child,
    input: ChildStdin,
    heard: Arc<(Mutex<(String, bool)>, Condvar)>,
}

impl GuestConsole {
    /// Opens the console of a guest, from the beginning of what is kept.
    ///
    /// # Errors
    /// When the CLI cannot be started.
    pub fn open(cli: &Cli, vm: &str) -> Result<Self> {
        let mut child = cli.spawn(&["vm", "console", vm, "--scrollback", "262144"])?;
        let input = child.stdin.take().context("no input")?;
        let mut output = child.stdout.take().context("no output")?;
        let heard: Arc<(Mutex<(String, bool)>, Condvar)> = Arc::default();
        let sink = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let length = output.read(&mut buffer).unwrap_or(0);
                let mut state = sink.0.lock().unwrap();
                state
                    .0
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
                state.1 |= length == 0;
                sink.1.notify_all();
                if length == 0 {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            input,
            heard,
        })
    }

    /// Waits for `pattern`; returns the rest of its line.
    ///
    /// # Errors
    /// When the console ended or fell silent first.
    pub fn wait(&self, pattern: &str) -> Result<String> {
        self.wait_count(pattern, 1)
    }

    /// Waits until `pattern` was seen that often; returns the rest of its last line.
    ///
    /// # Errors
    /// See [`GuestConsole::wait`].
    pub fn wait_count(&self, pattern: &str, count: usize) -> Result<String> {
        self.wait_until(pattern, |heard, ended| {
            let (at, _) = heard.match_indices(pattern).nth(count - 1)?;
            let rest = &heard[at + pattern.len()..];
            // A prompt is not followed by anything.
            let prompt = [": ", "# ", "> "].iter().any(|end| pattern.ends_with(end));
            let line_ends = rest.contains('\n') || prompt;
            (line_ends || ended).then(|| rest.lines().next().unwrap_or_default().trim().to_owned())
        })
    }

    /// Waits for text on a screen that is drawn piece by piece, with cursor movements in between.
    ///
    /// # Errors
    /// See [`GuestConsole::wait`].
    pub fn wait_drawn(&self, pattern: &str) -> Result<()> {
        self.wait_until(pattern, |heard, _| {
            without_escapes(heard).contains(pattern).then_some(())
        })
    }

    /// Waits until `find` finds what it looks for in what was heard so far; it is told whether the console has ended.
    fn wait_until<T>(&self, pattern: &str, find: impl FnMut(&str, bool) -> Option<T>) -> Result<T> {
        timed(
            || format!("console: {pattern:?}"),
            || self.wait_for(pattern, find),
        )
    }

    fn wait_for<T>(
        &self,
        pattern: &str,
        mut find: impl FnMut(&str, bool) -> Option<T>,
    ) -> Result<T> {
        let mut state = self.heard.0.lock().unwrap();
        loop {
            if let Some(found) = find(&state.0, state.1) {
                return Ok(found);
            }
            if state.1 {
                bail!("the console ended before {pattern:?}:\n{}", state.0);
            }
            let before = state.0.len();
            let (next, timeout) = self.heard.1.wait_timeout(state, SILENCE).unwrap();
            state = next;
            if timeout.timed_out() && state.0.len() == before {
                bail!(
                    "the console was silent while waiting for {pattern:?}:\n{}",
                    state.0
                );
            }
        }
    }

    /// Everything seen so far.
    pub fn text(&self) -> String {
        self.heard.0.lock().unwrap().0.clone()
    }

    /// Types.
    ///
    /// # Errors
    /// When the console is closed.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.input
            .write_all(text.as_bytes())
            .and_then(|()| self.input.flush())
            .context("typing")
    }
}

/// Leaves out what moves the cursor and changes colours (ECMA-48, 5.4).
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split("\x1b[");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| ('@'..='~').contains(&c));
        plain.push_str(end.map_or("", |end| &piece[end + 1..]));
    }
    // It moves the cursor as well: a BIOS goes to the beginning of the line and from there to the next letter's place now and then.
    plain.retain(|c| c != '\r');
    plain
}

impl Drop for GuestConsole {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A full-screen program in a tmux of its own, 80 columns by 24 lines.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Runs `lodge ARGS` in a new terminal without colours.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn run(cli: &Cli, args: &[&str]) -> Result<Self> {
        let socket = format!("lodge-test-{}-{:?}", std::process::id(), Instant::now())
            .replace([' ', '{', '}', ':', ','], "");
        let (variable, directory) = cli.environment();
        let command = format!(
            "env {variable}='{}' NO_COLOR=1 TERM=vt100 '{}' {}",
            directory.display(),
            artifacts::program().display(),
            args.join(" ")
        );
        tool(
            "tmux",
            [
                "-L",
                &socket,
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                "80",
                "-y",
                "24",
                &command,
            ],
        )?;
        Ok(Self { socket })
    }

    /// What the screen shows.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn screen(&self) -> Result<String> {
        tool("tmux", ["-L", &self.socket, "capture-pane", "-p"])
    }

    /// Presses keys, as tmux names them.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        tool("tmux", [&["-L", &self.socket, "send-keys"], keys].concat()).map(drop)
    }

    /// Waits until the screen shows `text`.
    ///
    /// # Errors
    /// When it does not for too long.
    pub fn wait(&self, text: &str) -> Result<String> {
        let mut last = String::new();
        let begin = Instant::now();
        let mut changed = begin;
        loop {
            let screen = self.screen()?;
            if screen.contains(text) {
                return Ok(screen);
            }
            if screen != last {
                last = screen;
                changed = Instant::now();
            }
            // Clocks and loads change without end: a limit for the whole is needed too.
            ensure!(
                changed.elapsed() < SILENCE && begin.elapsed() < 3 * SILENCE,
                "{text:?} does not appear on\n{last}"
            );
            // tmux tells nobody when a screen changes; looking a few times a second is cheap.
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = tool("tmux", ["-L", &self.socket, "kill-server"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_in_pieces_is_read_in_one() {
        let drawn = "\x1b[0;30;47mW\r\x1b[10;02Helcome t\x1b[10;09H\x1b[10;10Ho \x1b[10;11H\x1b[10;12HGR\x1b[10;13H\x1b[10;14HUB!\r\n";
        assert_eq!(without_escapes(drawn), "Welcome to GRUB!\n");
        assert_eq!(without_escapes("plain\x1b["), "plain");
    }
}
