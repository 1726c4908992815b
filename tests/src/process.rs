//! Running programs.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; `None`: killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a program that succeeded.
    ///
    /// # Errors
    /// When it failed; with everything it printed.
    pub fn success(self) -> Result<String> {
        ensure!(
            self.code == Some(0),
            "exit status {:?}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }

    /// Standard error of a program that failed.
    ///
    /// # Errors
    /// When it succeeded.
    pub fn failure(self) -> Result<String> {
        ensure!(
            self.code.is_some_and(|code| code != 0),
            "expected a failure, but it ended with {:?}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self.stderr)
    }
}

/// Makes the child end with this process, however this process ends.
#[allow(unsafe_code)]
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs in the forked child and makes one system call.
    unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) }
}

/// Runs a prepared command to its end, with `input` as standard input.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Outcome> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = die_with_parent(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is not our failure.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for {name}"))?;
    Ok(Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a tool that must succeed.
///
/// # Errors
/// When it cannot be started or fails.
pub fn tool(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    run(Command::new(name).args(args), b"")?
        .success()
        .with_context(|| format!("running {name}"))
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let said = tool("sha256sum", [file])?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}
