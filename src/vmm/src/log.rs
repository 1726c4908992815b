//! The log: standard error, which the manager reads.

/// Starts logging. A second call changes nothing.
pub fn start() {
    let started = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .try_init();
    drop(started);
}
