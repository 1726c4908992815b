//! Guests that work for minutes without a word: an emulator draws a BIOS's text pixel by pixel, and many guests share one
//! emulated processor.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::terminal::GuestConsole;

/// How often a wait may fall silent, as long as the guest's processors work meanwhile.
const SILENCES: usize = 4;

impl Host {
    /// Does `wait` again when it fell silent, a few times, if the guest's processors have worked meanwhile.
    ///
    /// # Errors
    /// When the guest stands still, or works and does not get there.
    pub fn while_it_works<T>(&self, vm: &str, wait: impl Fn() -> Result<T>) -> Result<T> {
        let worked = || Ok::<_, anyhow::Error>(self.vm(vm)?["status"]["cpu_time_us"].as_u64());
        let mut before = worked()?;
        for _ in 1..SILENCES {
            let silent = match wait() {
                Ok(done) => return Ok(done),
                Err(silent) => silent,
            };
            let now = worked()?;
            if now <= before {
                return Err(silent.context(format!("{vm} stands still: {}", self.condition(vm))));
            }
            before = now;
        }
        wait().with_context(|| self.condition(vm))
    }

    /// What a guest that has fallen silent is doing: its state, whether its screen changes, and what the host has of its console.
    pub fn condition(&self, vm: &str) -> String {
        let status = || match self.vm(vm) {
            Ok(vm) => vm["status"].to_string(),
            Err(problem) => problem.to_string(),
        };
        let console = GuestConsole::open(&self.cli, vm);
        let before = (status(), self.screen(vm));
        // Long enough to see a processor that runs in circles.
        std::thread::park_timeout(Duration::from_secs(5));
        let after = (status(), self.screen(vm));
        let screen = match (before.1, after.1) {
            (Some(before), Some(after)) if before == after => "stays as it is",
            (Some(_), Some(_)) => "changes",
            _ => "is not to be had",
        };
        let console = match console {
            Ok(console) => console.text(),
            Err(problem) => problem.to_string(),
        };
        format!(
            "{vm} was {}, and is {} now; its screen {screen}; its console from the beginning:\n{console}",
            before.0, after.0
        )
    }

    /// The picture on the guest's screen.
    fn screen(&self, vm: &str) -> Option<Vec<u8>> {
        let file = self.machine.directory().join("condition.png");
        let path = file.to_string_lossy();
        self.cli
            .ok(&["vm", "screenshot", vm, &path, "--force"])
            .ok()?;
        std::fs::read(&file).ok()
    }
}
