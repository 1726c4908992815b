//! Boots one guest without a manager: its serial console on the terminal, its end
//! the exit status. For tests and measurements; `boot-guest --help` tells the options.

mod control;
mod launch;
mod options;
mod save;
mod tap;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lodge_vmm_proto::{
    Channel, ConsolePort, ExitReason, ExitRecord, RequestBody, ServerMessage, spawn,
};

use crate::launch::Descriptors;
use crate::options::{HELP, Options, SaveOptions};

/// Scroll-back asked for: whatever the guest has printed before we were attached.
const EVERYTHING: u32 = u32::MAX;

const START_LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("vmm") => return lodge_vmm::main_from_birth_socket(),
        Some("--help") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(record) => {
            eprintln!(
                "boot-guest: {:?} after {} ms {}",
                record.reason, record.uptime_ms, record.message
            );
            match record.reason {
                ExitReason::GuestPoweroff | ExitReason::GuestReset | ExitReason::Killed => {
                    ExitCode::SUCCESS
                }
                _ => ExitCode::from(3),
            }
        }
        Err(error) => {
            eprintln!("boot-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitRecord> {
    let (listener, address) = control::socket()?;
    let mut record = control::nameless_file()?;
    let mut fds = Descriptors::default();
    let launch = launch::launch(options, &mut fds, listener, record.try_clone()?)?;

    let mut command = Command::new(&options.monitor);
    command.arg("vmm").stdin(Stdio::null());
    let borrowed: Vec<_> = fds.0.iter().map(AsFd::as_fd).collect();
    spawn(command, &launch, &borrowed, START_LIMIT)?;
    drop(borrowed);
    drop(fds);

    let channel = control::join(&address)?;
    follow(&channel, options)?;
    // It says nothing more, and closes the channel when its record is written.
    while channel.receive::<ServerMessage>().is_ok() {}
    let mut text = String::new();
    record.read_to_string(&mut text)?;
    ensure!(!text.is_empty(), "the monitor crashed");
    Ok(serde_json::from_str(&text)?)
}

/// Joins the terminal to the guest's console until the guest ends, or has been saved.
fn follow(channel: &Channel, options: &Options) -> Result<()> {
    let (console, theirs) = UnixStream::pair()?;
    let port = ConsolePort::Com1;
    let scrollback = EVERYTHING;
    let body = RequestBody::AttachConsole { port, scrollback };
    control::ask(channel, body, &[theirs.as_fd()]).context("the console")?;
    drop(theirs);
    let from_guest = console.try_clone()?;
    std::thread::spawn(move || copy(std::io::stdin(), console));
    let Some(SaveOptions { folder, at }) = &options.save else {
        copy(from_guest, std::io::stdout());
        return Ok(());
    };
    let (said, heard) = mpsc::channel();
    let text = at.clone();
    std::thread::spawn(move || listen_for(from_guest, &text, &said));
    heard
        .recv()
        .with_context(|| format!("the guest ended without \"{at}\""))?;
    save::save(channel, folder, options.memory)
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..count])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Copies what the guest says to the terminal, and tells when it has said `text`.
fn listen_for(mut from: impl Read, text: &str, said: &Sender<()>) {
    let (mut buffer, mut seen) = ([0; 4096], Vec::new());
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let _ = std::io::stdout().write_all(&buffer[..count]);
        let _ = std::io::stdout().flush();
        seen.extend_from_slice(&buffer[..count]);
        if seen
            .windows(text.len().max(1))
            .any(|window| window == text.as_bytes())
        {
            let _ = said.send(());
            seen.clear();
        }
    }
}
