//! The full-screen text console: on the host itself (`lodge tui --local`) and
//! anywhere else (`lodge tui [REMOTE:]`), over the same HTTPS API.
//!
//! `model` holds what is shown and turns keys and answers into effects,
//! `view` draws it, `runtime` carries effects out. Only the runtime does
//! input and output, so that the other two are tested without a terminal.

mod arguments;
mod backend;
mod banner;
mod effects;
mod fetch;
mod guest_console;
mod installer;
mod keys;
mod local;
mod model;
mod runtime;
mod terminal;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use lodge_client::{ClientError, Remotes};

use arguments::Arguments;
use runtime::Source;

/// Runs `lodge tui …`; `args` begins after the word `tui`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::parse(args) {
        Ok(Arguments::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("lodge tui: {problem}\n\n{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), ClientError> {
    match arguments {
        Arguments::Help => Ok(()),
        Arguments::Local { wait: false } => runtime::run(Source::Local),
        Arguments::Local { wait: true } => loop {
            banner::wait_for_enter()?;
            runtime::run(Source::Local)?;
        },
        Arguments::Remote(name) => {
            let remotes = Remotes::load(&Remotes::path()?)?;
            let (name, remote) = remotes.find(name.as_deref())?;
            runtime::run(Source::Remote {
                name: name.to_owned(),
                remote: Box::new(remote.clone()),
            })
        }
    }
}
