//! Progress on a terminal; silence elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lodge_api::operation::{Operation, OperationStatus};
use lodge_client::{Client, ClientError};

/// A bar for a known number of bytes.
pub(crate) fn bytes(total: u64, label: &str) -> ProgressBar {
    let bar = amount(label);
    set_total(&bar, total);
    bar
}

/// Bytes that go by, of which nobody knows how many there will be.
pub(crate) fn amount(label: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length().with_message(label.to_owned());
    let style = ProgressStyle::with_template("{msg} {bytes} {bytes_per_sec} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Now the number is known.
pub(crate) fn set_total(bar: &ProgressBar, total: u64) {
    bar.set_length(total);
    let style = ProgressStyle::with_template(
        "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
    );
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
}

/// Waits for an operation, showing what it does, and returns it when it succeeded.
pub(crate) async fn follow(
    client: &Client,
    operation: Operation,
) -> Result<Operation, ClientError> {
    if operation.status == OperationStatus::Succeeded {
        return Ok(operation);
    }
    let spinner = spinner(&operation);
    let result = client
        .wait_operation(operation.id, |operation| describe(&spinner, operation))
        .await;
    spinner.finish_and_clear();
    result
}

fn spinner(operation: &Operation) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(operation.kind.replace('_', " "));
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn describe(spinner: &ProgressBar, operation: &Operation) {
    if let Some(progress) = &operation.progress {
        let share = match progress.total {
            0 => String::new(),
            total => format!(" {}%", progress.done.saturating_mul(100) / total),
        };
        spinner.set_message(format!("{}{share}", progress.phase));
    }
}
