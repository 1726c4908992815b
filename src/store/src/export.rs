//! The whole store as one readable text file, of which a few generations are kept.
//!
//! The first line is a header, each further one a record, the last the number
//! of records and the checksum of all lines before it: a file without it is incomplete.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{MAX_KEY, MAX_PAYLOAD, check_key};
use crate::snapshot::{Snapshot, Stored};

/// Version of the file format.
const VERSION: u32 = 1;

/// Longest line: a record's payload and key, with room for the rest.
const MAX_LINE: u64 = (MAX_PAYLOAD + 8 * MAX_KEY + 1024) as u64;

const PREFIX: &str = "store-";
const SUFFIX: &str = ".export";

/// An export that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a complete export of a known version.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    lodge_store_export: u32,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    table: String,
    key: String,
    schema: u32,
    revision: u64,
    #[serde(borrow)]
    value: &'a serde_json::value::RawValue,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    records: u64,
    crc32c: u32,
}

/// Writes `snapshot` into `directory`, whole or not at all, and removes all but
/// the newest `keep` generations.
pub(crate) fn write(directory: &Path, snapshot: &Snapshot, keep: usize) -> io::Result<PathBuf> {
    let path = directory.join(format!("{PREFIX}{:020}{SUFFIX}", snapshot.revision()));
    let part = directory.join(format!("{PREFIX}part"));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(&render(snapshot)?)?;
    file.sync_all()?;
    fs::rename(&part, &path)?;
    File::open(directory)?.sync_all()?;
    let generations = list(directory)?;
    for old in generations.iter().rev().skip(keep.max(1)) {
        fs::remove_file(old)?;
    }
    Ok(path)
}

fn render(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let header = Header {
        lodge_store_export: VERSION,
        revision: snapshot.revision(),
    };
    serde_json::to_writer(&mut text, &header)?;
    text.push(b'\n');
    let mut records = 0;
    for (table, key, stored) in snapshot.rows() {
        let row = Row {
            table: table.clone(),
            key: key.clone(),
            schema: stored.schema,
            revision: stored.revision,
            value: serde_json::from_slice(&stored.payload)?,
        };
        serde_json::to_writer(&mut text, &row)?;
        text.push(b'\n');
        records += 1;
    }
    let crc32c = crc32c::crc32c(&text);
    serde_json::to_writer(&mut text, &Trailer { records, crc32c })?;
    text.push(b'\n');
    Ok(text)
}

/// The export of exactly this revision, if it is the newest.
pub(crate) fn up_to_date(directory: &Path, revision: u64) -> io::Result<Option<PathBuf>> {
    let name = format!("{PREFIX}{revision:020}{SUFFIX}");
    let newest = list(directory)?.pop();
    Ok(newest.filter(|path| path.file_name().is_some_and(|found| found == name.as_str())))
}

/// All generations, oldest first.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            found.push(path);
        }
    }
    // Revisions have leading zeroes.
    found.sort();
    Ok(found)
}

/// The newest complete generation, and what was wrong with newer ones.
pub(crate) fn newest(directory: &Path) -> (Option<(PathBuf, Snapshot)>, Vec<ExportError>) {
    let mut errors = Vec::new();
    let files = list(directory).unwrap_or_else(|error| {
        errors.push(error.into());
        Vec::new()
    });
    for path in files.into_iter().rev() {
        match read(&path) {
            Ok(snapshot) => return (Some((path, snapshot)), errors),
            Err(error) => errors.push(error),
        }
    }
    (None, errors)
}

/// Reads an export.
pub(crate) fn read(path: &Path) -> Result<Snapshot, ExportError> {
    let invalid = |problem: String| ExportError::Invalid {
        path: path.to_owned(),
        problem,
    };
    let mut reader = BufReader::new(File::open(path)?);
    let first = line(&mut reader)?;
    let header: Header =
        serde_json::from_slice(&first).map_err(|error| invalid(format!("no export: {error}")))?;
    if header.lodge_store_export != VERSION {
        return Err(invalid(format!(
            "version {} is not known to this release",
            header.lodge_store_export
        )));
    }
    let mut snapshot = Snapshot {
        revision: header.revision,
        ..Snapshot::default()
    };
    let (mut sum, mut records) = (crc32c::crc32c(&first), 0);
    loop {
        let text = line(&mut reader)?;
        if text.is_empty() {
            return Err(invalid("it ends too early".to_owned()));
        }
        if let Ok(trailer) = serde_json::from_slice::<Trailer>(&text) {
            if trailer.records == records && trailer.crc32c == sum {
                return Ok(snapshot);
            }
            return Err(invalid("the checksum is wrong".to_owned()));
        }
        sum = crc32c::crc32c_append(sum, &text);
        records += 1;
        add_row(&mut snapshot, &text).map_err(invalid)?;
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut text)?;
    Ok(text)
}

fn add_row(snapshot: &mut Snapshot, text: &[u8]) -> Result<(), String> {
    let row: Row<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    check_key(&row.table, &row.key).map_err(|error| error.to_string())?;
    let stored = Stored {
        schema: row.schema,
        revision: row.revision,
        payload: row.value.get().as_bytes().into(),
    };
    snapshot.insert(&row.table, row.key, stored);
    Ok(())
}
