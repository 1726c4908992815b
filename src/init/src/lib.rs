//! PID 1 of the appliance: `lodge init`.
//!
//! Small and synchronous, one thread. It brings the machine up ([`run`]), starts the manager and the consoles, starts
//! them again when they end, and takes the machine down in order. It never exits: a bug in a stage of the boot costs that
//! stage, and one in the loop restarts the loop.

mod boot;
mod buttons;
mod clock;
mod console;
mod data;
mod finish;
mod link;
mod log;
mod machine;
mod media;
pub mod modules;
mod mounts;
mod oem_string;
mod random;
mod seed;
mod settings;
mod settle;
pub mod shutdown;
pub mod supervise;
mod uevent;
mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use console::Consoles;
pub use machine::MANAGER;
pub use modules::modprobe;

use supervise::ChildSpec;

/// Runs as PID 1 of the appliance.
pub fn main() -> ! {
    run(appliance_children)
}

/// Runs as PID 1 with other children.
pub fn run(children: impl FnOnce(&Consoles) -> Vec<ChildSpec>) -> ! {
    machine::block_signals();
    let booted = boot::boot();
    let children = children(&Consoles::find());
    match machine::Machine::new(booted, children) {
        Ok(mut machine) => loop {
            // The state survives a panic; whatever was being handled is lost.
            let ended = catch_unwind(AssertUnwindSafe(|| machine.run()));
            if ended.is_err() {
                tracing::error!("the loop of PID 1 failed; starting it again");
            }
            std::thread::sleep(Duration::from_secs(1));
        },
        Err(error) => loop {
            tracing::error!("PID 1 cannot watch its children: {error}");
            std::thread::sleep(Duration::from_secs(60));
        },
    }
}

/// The manager, and a console on every terminal.
fn appliance_children(consoles: &Consoles) -> Vec<ChildSpec> {
    let mut children = vec![ChildSpec {
        name: MANAGER.to_owned(),
        program: own_program(),
        arguments: ["lodge", "serve", "--appliance"]
            .map(str::to_owned)
            .to_vec(),
        environment: Vec::new(),
        terminal: None,
        // Guests find their memory gone before the manager does.
        oom_score: -500,
    }];
    if let Some(screen) = &consoles.screen {
        children.push(console_child("screen", screen, "linux"));
    }
    for serial in &consoles.serial {
        let name = serial.file_name().unwrap_or_default().to_string_lossy();
        let mut child = console_child(&name, serial, "vt220");
        // Somebody may watch the log there: the full-screen console waits to be asked for.
        child.arguments.push("--wait".to_owned());
        children.push(child);
    }
    children
}

fn console_child(name: &str, terminal: &Path, kind: &str) -> ChildSpec {
    ChildSpec {
        name: format!("console-{name}"),
        program: own_program(),
        arguments: ["lodge", "tui", "--local"].map(str::to_owned).to_vec(),
        environment: vec![("TERM".to_owned(), kind.to_owned())],
        terminal: Some(terminal.to_owned()),
        oom_score: 0,
    }
}

/// This program, whatever it is called; in a child it is still the same one.
fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_for_every_terminal() {
        let consoles = Consoles {
            screen: Some("/dev/tty1".into()),
            serial: vec!["/dev/ttyS0".into()],
        };
        let lines: Vec<String> = appliance_children(&consoles)
            .iter()
            .map(|child| child.arguments.join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "lodge serve --appliance",
                "lodge tui --local",
                "lodge tui --local --wait"
            ]
        );
        assert_eq!(appliance_children(&Consoles::default()).len(), 1);
    }
}
