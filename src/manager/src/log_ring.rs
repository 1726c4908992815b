//! The host's log in memory: Lodge's own tracing events and the kernel's ring.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use lodge_api::Problem;
use lodge_api::log::{LogEntry, LogLevel, LogParams};
use lodge_api::page::Page;
use lodge_host::kmsg::{KmsgItem, KmsgReader, KmsgRecord, Level};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::Context;

use crate::Manager;
use crate::core::Core;

/// Lines kept.
const KEEP: usize = 10_000;

/// Bytes of text kept; what a guest can write into its monitor's log must not fill the memory.
const KEEP_BYTES: usize = 4 << 20;

/// Longest line, in characters.
const LINE: usize = 2000;

/// Lines answered unless asked otherwise.
const DEFAULT_LIMIT: u32 = 500;

/// Name under which the manager itself writes to the kernel's ring.
const SELF: &str = "serve";

/// The ring. Make one early, install its [`RingLayer`] as a tracing layer, and give it to
/// [`Manager::open`].
#[derive(Debug, Clone, Default)]
pub struct LogRing {
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    last: u64,
}

impl LogRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layer that copies tracing events into this ring.
    pub fn layer(&self) -> RingLayer {
        RingLayer { ring: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(crate) fn push(&self, time: Timestamp, level: LogLevel, source: &str, message: &str) {
        let message: String = message.chars().take(LINE).collect();
        let mut ring = self.lock();
        ring.last += 1;
        ring.bytes += message.len();
        let sequence = ring.last;
        ring.entries.push_back(LogEntry {
            sequence,
            time,
            level,
            source: source.to_owned(),
            message,
        });
        while ring.entries.len() > KEEP || ring.bytes > KEEP_BYTES {
            let Some(oldest) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes -= oldest.message.len();
        }
    }

    fn page(&self, params: &LogParams) -> Result<Page<LogEntry>, Problem> {
        let limit = match params.limit {
            None => DEFAULT_LIMIT,
            Some(limit @ 1..=10_000) => limit,
            Some(limit) => {
                return Err(
                    Problem::invalid("?limit", format!("{limit} is out of range"))
                        .with_hint("give 1 to 10000"),
                );
            }
        };
        let level = params.level.unwrap_or(LogLevel::Info);
        let since = params.since.unwrap_or(0);
        let ring = self.lock();
        let mut items: Vec<LogEntry> = ring
            .entries
            .iter()
            .rev()
            .take_while(|entry| entry.sequence > since)
            .filter(|entry| entry.level <= level)
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .cloned()
            .collect();
        items.reverse();
        Ok(Page {
            items,
            next_page: None,
        })
    }
}

/// A tracing layer that copies events into a [`LogRing`].
#[derive(Debug)]
pub struct RingLayer {
    ring: LogRing,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for RingLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => LogLevel::Error,
            tracing::Level::WARN => LogLevel::Warning,
            tracing::Level::INFO => LogLevel::Info,
            tracing::Level::DEBUG => LogLevel::Debug,
            tracing::Level::TRACE => return,
        };
        let mut text = Text::default();
        event.record(&mut text);
        let audit = event.metadata().target() == "audit";
        let source = match text.source {
            Some(source) => source,
            None if audit => "audit".to_owned(),
            None => SELF.to_owned(),
        };
        let mut message = text.message;
        // The audit log's messages say it all; their fields are for programs.
        if !audit {
            message.push_str(&text.fields);
        }
        self.ring.push(Timestamp::now(), level, &source, &message);
    }
}

/// An event as text: its message, and its fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    /// Field `log_source`: who wrote the line, where it is not the manager.
    source: Option<String>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log_source" => self.source = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

fn level_of(level: Level) -> LogLevel {
    if level <= Level::Error {
        LogLevel::Error
    } else if level == Level::Warning {
        LogLevel::Warning
    } else if level == Level::Debug {
        LogLevel::Debug
    } else {
        LogLevel::Info
    }
}

/// Who wrote a record, and what: Lodge's own programs write `lodge-init: text`, or `init: text`.
fn split_source(record: &KmsgRecord) -> (String, &str) {
    if record.facility == 0 {
        return ("kernel".to_owned(), &record.message);
    }
    match record.message.split_once(": ") {
        Some((source, text)) if source.len() <= 80 && !source.contains(' ') => {
            let source = source.strip_prefix("lodge-").unwrap_or(source);
            (source.to_owned(), text)
        }
        _ => ("user".to_owned(), &record.message),
    }
}

impl Core {
    /// Copies the kernel's ring, and what comes to it, into ours. Returns when it cannot be read.
    pub(crate) async fn follow_kernel_log(&self) {
        let reader = KmsgReader::open().and_then(KmsgReader::into_async);
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                tracing::info!(%error, "the kernel's log is not shown");
                return;
            }
        };
        let booted = self.host.booted_at;
        loop {
            match reader.next().await {
                Ok(KmsgItem::Record(record)) => {
                    let micros = i64::try_from(record.timestamp_us).unwrap_or(i64::MAX);
                    let time = booted
                        .checked_add(SignedDuration::from_micros(micros))
                        .unwrap_or(booted);
                    let (source, text) = split_source(&record);
                    // What this manager wrote itself came here directly.
                    if source != SELF || time < self.started_at {
                        self.log.push(time, level_of(record.level), &source, text);
                    }
                }
                Ok(_) => self.log.push(
                    Timestamp::now(),
                    LogLevel::Warning,
                    "kernel",
                    "lines of the kernel's log were lost",
                ),
                Err(error) => {
                    tracing::warn!(%error, "the kernel's log cannot be read any more");
                    return;
                }
            }
        }
    }
}

impl Manager {
    /// `GET /v1/system/log`: the newest lines, oldest first. `next_page` is never set.
    pub fn log(&self, params: &LogParams) -> Result<Page<LogEntry>, Problem> {
        self.core.log.page(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn messages(ring: &LogRing, params: &LogParams) -> Vec<String> {
        let page = ring.page(params).unwrap();
        page.items.into_iter().map(|entry| entry.message).collect()
    }

    #[test]
    fn tracing_events_become_lines() {
        let ring = LogRing::new();
        let subscriber = tracing_subscriber::registry().with(ring.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(size = 7, name = "x", "made");
            tracing::info!(target: "audit", user = "ann", "ann did it");
            tracing::warn!(log_source = "vmm/web", "odd");
            tracing::debug!("detail");
            tracing::trace!("nobody reads that");
        });
        let page = ring.page(&LogParams::default()).unwrap();
        let lines: Vec<_> = page
            .items
            .iter()
            .map(|entry| (entry.source.as_str(), entry.message.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                ("serve", "made size=7 name=x"),
                ("audit", "ann did it"),
                ("vmm/web", "odd")
            ]
        );
        let debug = LogParams {
            level: Some(LogLevel::Debug),
            since: Some(3),
            limit: None,
        };
        assert_eq!(messages(&ring, &debug), ["detail"]);
        let warnings = LogParams {
            level: Some(LogLevel::Warning),
            ..LogParams::default()
        };
        assert_eq!(messages(&ring, &warnings), ["odd"]);
    }

    #[test]
    fn the_ring_is_bounded_in_lines_and_bytes() {
        let ring = LogRing::new();
        let long = "x".repeat(10 * LINE);
        for _ in 0..KEEP + 100 {
            ring.push(Timestamp::now(), LogLevel::Info, "t", &long);
        }
        let kept = ring.lock();
        assert!(kept.entries.len() <= KEEP && kept.bytes <= KEEP_BYTES);
        assert_eq!(kept.entries.back().unwrap().sequence, (KEEP + 100) as u64);
    }

    #[test]
    fn limits_are_checked() {
        let params = LogParams {
            limit: Some(0),
            ..LogParams::default()
        };
        assert_eq!(
            LogRing::new().page(&params).unwrap_err().pointer.unwrap(),
            "?limit"
        );
    }
}
