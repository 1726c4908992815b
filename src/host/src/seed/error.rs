//! Errors in a seed, with the place.

use std::ops::Range;

/// Why a seed is refused: where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct SeedError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field, with the tables it is in, e.g. `network.address`; empty when the text is not TOML at all.
    pub field: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl SeedError {
    /// An error about the bytes `span` of `text`.
    pub(super) fn at(text: &str, span: &Range<usize>, message: impl Into<String>) -> Self {
        let offset = floor_boundary(text, span.start);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field_at(text, line_start),
            message: message.into(),
        }
    }

    /// An error about `key` of the table that `span` lies in.
    pub(super) fn about(
        text: &str,
        span: &Range<usize>,
        field: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            field: field.to_owned(),
            ..Self::at(text, span, message)
        }
    }
}

/// The nearest character boundary at or before `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// The dotted name of what the line starting at `line_start` sets, as far as a line-by-line look can tell.
fn field_at(text: &str, line_start: usize) -> String {
    let line = text[line_start..].lines().next().unwrap_or("").trim();
    let table = text[..line_start].lines().rev().find_map(header);
    match (header(line), line.split_once('=')) {
        (Some(own), _) => own.to_owned(),
        (None, Some((key, _))) if is_key(key.trim()) => match table {
            Some(table) => format!("{table}.{}", key.trim()),
            None => key.trim().to_owned(),
        },
        _ => table.unwrap_or("").to_owned(),
    }
}

/// The name in a `[table]` or `[[table]]` line.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?;
    let name = inner.trim_start_matches('[').split(']').next()?.trim();
    is_key(name).then_some(name)
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}
