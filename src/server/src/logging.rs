//! Where this process's log lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use lodge_manager::LogRing;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The kernel cuts longer records off, in bytes.
const MAX_RECORD: usize = 900;

/// Copies log lines to the ring the API shows and, on the appliance, to the kernel's ring (which
/// outlives this process), elsewhere to standard error. `LODGE_LOG` sets the levels, `info` by default.
pub fn install(ring: &LogRing, appliance: bool) {
    let filter = || EnvFilter::try_from_env("LODGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let kernel = if appliance {
        KernelLog::open().ok()
    } else {
        None
    };
    let (to_kernel, to_stderr) = match kernel {
        Some(kernel) => {
            let layer = tracing_subscriber::fmt::layer()
                .without_time()
                .with_ansi(false)
                .with_level(false)
                .with_target(false)
                .with_writer(kernel)
                .with_filter(filter());
            (Some(layer), None)
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(io::stderr)
                .with_filter(filter());
            (None, Some(layer))
        }
    };
    // Whoever embeds the server may have installed its own.
    let _ = tracing_subscriber::registry()
        .with(ring.layer().with_filter(filter()))
        .with(to_kernel)
        .with(to_stderr)
        .try_init();
}

/// `/dev/kmsg`: one write is one record.
struct KernelLog {
    file: File,
}

/// One record in the making.
struct Record<'a> {
    file: &'a File,
    text: Vec<u8>,
}

impl KernelLog {
    fn open() -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open("/dev/kmsg")?;
        Ok(Self { file })
    }

    /// `priority` as in syslog(2), of the facility "daemon".
    fn record(&self, priority: u8) -> Record<'_> {
        const DAEMON: u8 = 3;
        let text = format!("<{}>lodge-serve: ", DAEMON << 3 | priority).into_bytes();
        Record {
            file: &self.file,
            text,
        }
    }
}

impl<'a> MakeWriter<'a> for KernelLog {
    type Writer = Record<'a>;

    fn make_writer(&'a self) -> Record<'a> {
        self.record(6)
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Record<'a> {
        self.record(match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        })
    }
}

impl Write for Record<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_RECORD.saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        // Nothing to be done when even the log fails.
        let _ = self.file.write_all(&self.text);
    }
}
