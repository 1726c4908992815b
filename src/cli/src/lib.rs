//! The command line: `lodge NOUN VERB [remote:]NAME`.
//!
//! It is a thin face of the API: it parses what a person types, asks the host
//! through [`lodge_client`], and shows the answer as a table, JSON or YAML.

mod args;
mod commands;
mod content;
mod context;
mod output;
mod progress;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs one command; `args` includes the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let arguments = args::Arguments::parse_from(args);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lodge: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(arguments));
    // A console may leave a thread waiting for a key; it must not hold us.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
