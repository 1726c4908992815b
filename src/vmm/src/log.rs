//! The log: standard error, which the manager reads.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A library that logs what a guest does wrong, as often as the guest does it. What it finds reaches people as a complaint of the
/// device, with a limit.
const LOGS_FOR_GUESTS: &str = "virtio_queue";

/// Starts logging. A second call changes nothing.
pub fn start() {
    let levels = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(LOGS_FOR_GUESTS, LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let started = tracing_subscriber::registry()
        .with(lines)
        .with(levels)
        .try_init();
    drop(started);
}
