//! The command line of a user on another machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::artifacts;
use crate::process::{Outcome, die_with_parent, run};
use crate::trace::timed;

/// `lodge` with a configuration directory of its own.
pub struct Cli {
    config: PathBuf,
}

impl Cli {
    /// A user who knows no remote yet.
    pub fn new(directory: &Path) -> Self {
        Self {
            config: directory.join("config"),
        }
    }

    /// The prepared command, for those who want to hold the process.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(artifacts::program());
        command
            .args(args)
            .env("LODGE_CONFIG_DIR", &self.config)
            .env("NO_COLOR", "1");
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn outcome(&self, args: &[&str], input: &str) -> Result<Outcome> {
        timed(
            || format!("lodge {}", args.join(" ")),
            || run(&mut self.command(args), input.as_bytes()),
        )
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.outcome(args, "")?
            .success()
            .with_context(|| format!("lodge {}", args.join(" ")))
    }

    /// Runs a command that must fail; returns its error message.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fails(&self, args: &[&str]) -> Result<String> {
        self.outcome(args, "")?
            .failure()
            .with_context(|| format!("lodge {}", args.join(" ")))
    }

    /// Runs a command with `-o json` and reads its answer.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ok(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Starts a command and leaves it running, its output in a pipe.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        die_with_parent(&mut command)
            .spawn()
            .context("starting lodge")
    }

    /// Environment for programs that start `lodge` themselves.
    pub fn environment(&self) -> (&'static str, &Path) {
        ("LODGE_CONFIG_DIR", &self.config)
    }
}
