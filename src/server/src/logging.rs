//! Where this process's log lines go.

use std::io::{self, Write};

use lodge_host::kmsg::{KmsgWriter, Level};
use lodge_manager::LogRing;
use tracing::Metadata;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// This process in the kernel's log; the manager's ring knows its own lines by it.
const NAME: &str = "lodge-serve";

/// Copies log lines to the ring the API shows and, on the appliance, to the kernel's ring (which
/// outlives this process), elsewhere to standard error. `LODGE_LOG` sets the levels, `info` by default.
pub fn install(ring: &LogRing, appliance: bool) {
    let registry = tracing_subscriber::registry().with(ring.layer().with_filter(filter()));
    let kernel = appliance.then(|| KmsgWriter::open(NAME).ok()).flatten();
    // Installing fails where somebody who embeds the server has done it before; that one stays.
    let _ = match kernel {
        Some(kernel) => {
            let layer = fmt::layer()
                .without_time()
                .with_ansi(false)
                .with_level(false)
                .with_target(false)
                .with_writer(KernelLog(kernel));
            registry.with(layer.with_filter(filter())).try_init()
        }
        None => {
            let layer = fmt::layer().with_ansi(false).with_writer(io::stderr);
            registry.with(layer.with_filter(filter())).try_init()
        }
    };
}

/// Without what sled says twice a second for as long as it cannot flush: the manager tells once that the data storage fails.
const USUAL: &str = "info,sled::flusher=off";

fn filter() -> Targets {
    let wanted = std::env::var("LODGE_LOG").ok();
    wanted
        .and_then(|levels| levels.parse().ok())
        .unwrap_or_else(usual)
}

fn usual() -> Targets {
    USUAL.parse().unwrap_or_default()
}

struct KernelLog(KmsgWriter);

/// One record in the making.
struct Record<'a> {
    log: &'a KmsgWriter,
    level: Level,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for KernelLog {
    type Writer = Record<'a>;

    fn make_writer(&'a self) -> Record<'a> {
        Record {
            log: &self.0,
            level: Level::Info,
            text: Vec::new(),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Record<'a> {
        let mut record = self.make_writer();
        record.level = match *meta.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        };
        record
    }
}

impl Write for Record<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        // There is nowhere to report a failure to.
        let _ = self.log.write(self.level, text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_usual_levels_are_understood() {
        let levels: Targets = USUAL.parse().unwrap();
        assert!(levels.would_enable("lodge_manager::vms", &Level::INFO));
        assert!(!levels.would_enable("lodge_manager::vms", &Level::DEBUG));
        assert!(!levels.would_enable("sled::flusher", &Level::ERROR));
        assert_eq!(levels, usual());
    }
}
