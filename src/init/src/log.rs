//! PID 1's log is the kernel's: every `tracing` event becomes a record of `/dev/kmsg`, and so a line on the consoles.
//!
//! The kernel's ring survives the manager, which merges it into its own log when it starts.

use std::fmt::{self, Write as _};

use lodge_host::kmsg::{KmsgWriter, Level};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Sends events to the kernel's log.
struct KmsgSubscriber {
    writer: KmsgWriter,
    /// The most detailed events that are kept.
    detail: tracing::Level,
}

/// Makes the kernel's log the destination of every event of this process. Without `/dev/kmsg` events are lost.
pub(crate) fn install(detail: tracing::Level) {
    if let Ok(writer) = KmsgWriter::open("lodge-init") {
        // Fails only when it was called before.
        let _ = tracing::subscriber::set_global_default(KmsgSubscriber { writer, detail });
    }
}

/// How detailed the log shall be: `lodge.log=debug` on the kernel's command line, else information.
pub(crate) fn detail(command_line: &str) -> tracing::Level {
    command_line
        .split_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix("lodge.log=")?.parse().ok())
        .unwrap_or(tracing::Level::INFO)
}

impl Subscriber for KmsgSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.detail
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = kernel_level(*event.metadata().level());
        // There is nowhere to report a failure to.
        let _ = self
            .writer
            .write(level, &format!("{}{}", line.message, line.fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What PID 1 has to tell is for the person at the console, so information is a kernel notice: the consoles show
/// notices, and not the kernel's own chatter one level below.
fn kernel_level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Notice,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// Collects an event: its message, then its fields as `key=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_from_the_command_line() {
        assert_eq!(detail("quiet lodge.log=debug"), tracing::Level::DEBUG);
        assert_eq!(
            detail("lodge.log=debug lodge.log=warn"),
            tracing::Level::WARN
        );
        assert_eq!(detail("lodge.log=loud"), tracing::Level::INFO);
        assert_eq!(detail(""), tracing::Level::INFO);
    }
}
