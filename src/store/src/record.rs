//! Records: their typed face, and the bytes on the disk.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest value, in bytes of JSON. sled writes pages of up to some 20 records, and those over a
/// quarter of its segment size into files of their own, which it never flushes to the
/// device. 20 records of this size stay below.
pub const MAX_PAYLOAD: usize = 16 << 10;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Something kept in a table of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Name of the table: stable, `snake_case`.
    const TABLE: &'static str;

    /// Version of the JSON form, from 1. Raise it when an older release could
    /// not read what this one writes, and teach [`Record::migrate`] the way up.
    const SCHEMA: u32;

    /// Brings the JSON form of an older `schema` up to [`Record::SCHEMA`]. It may come from a stranger ([`from_json`]): `value` may be
    /// any JSON, for which an error is the answer.
    ///
    /// # Errors
    /// A text for a person when it cannot.
    fn migrate(schema: u32, value: serde_json::Value) -> Result<serde_json::Value, String> {
        let _ = value;
        Err(format!(
            "there is no way from schema {schema} to {}",
            Self::SCHEMA
        ))
    }
}

/// A record that cannot be stored or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The JSON form is too large.
    #[error("a record of {size} bytes is too large: at most {MAX_PAYLOAD}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Empty, too long, or with a NUL byte.
    #[error("\"{0}\" cannot be a key: 1 to {MAX_KEY} bytes, none of them NUL")]
    Key(String),
    /// The type does not fit the JSON.
    #[error("{table}: {message}")]
    Json {
        /// Table of the record.
        table: &'static str,
        /// What serde says.
        message: String,
    },
    /// Written by a newer release.
    #[error("{table} record of schema {found}: this release reads up to {known}")]
    Newer {
        /// Table of the record.
        table: &'static str,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// Bytes that no store wrote.
    #[error("damaged record: {0}")]
    Damaged(&'static str),
}

pub(crate) fn check_key(table: &str, key: &str) -> Result<(), RecordError> {
    if key.is_empty() || key.len() > MAX_KEY || key.contains('\0') || table.contains('\0') {
        return Err(RecordError::Key(key.chars().take(MAX_KEY).collect()));
    }
    Ok(())
}

pub(crate) fn to_payload<R: Record>(value: &R) -> Result<Vec<u8>, RecordError> {
    let payload = serde_json::to_vec(value).map_err(|error| RecordError::Json {
        table: R::TABLE,
        message: error.to_string(),
    })?;
    if payload.len() > MAX_PAYLOAD {
        return Err(RecordError::TooLarge {
            size: payload.len(),
        });
    }
    Ok(payload)
}

pub(crate) fn from_payload<R: Record>(schema: u32, payload: &[u8]) -> Result<R, RecordError> {
    let fail = |error: serde_json::Error| RecordError::Json {
        table: R::TABLE,
        message: error.to_string(),
    };
    if schema == R::SCHEMA {
        return serde_json::from_slice(payload).map_err(fail);
    }
    from_json(schema, serde_json::from_slice(payload).map_err(fail)?)
}

/// The record that an older or the same release has written as JSON of that schema.
///
/// # Errors
/// [`RecordError`] for what is no `R`, and for a schema that only a newer release knows.
pub fn from_json<R: Record>(schema: u32, value: serde_json::Value) -> Result<R, RecordError> {
    let fail = |message: String| RecordError::Json {
        table: R::TABLE,
        message,
    };
    if schema > R::SCHEMA {
        return Err(RecordError::Newer {
            table: R::TABLE,
            found: schema,
            known: R::SCHEMA,
        });
    }
    let value = match schema {
        schema if schema == R::SCHEMA => value,
        schema => R::migrate(schema, value).map_err(fail)?,
    };
    serde_json::from_value(value).map_err(|error| fail(error.to_string()))
}

/// First byte of every value on the disk: version of the frame around payloads.
const FRAME: u8 = 1;

/// Frame version, schema, revision, checksum.
const HEADER: usize = 1 + 4 + 8 + 4;

/// A record as it lies in the store, still untyped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) schema: u32,
    pub(crate) revision: u64,
    pub(crate) payload: &'a [u8],
}

/// The checksum also covers the key, so that a value under a wrong key is noticed.
fn checksum(key: &[u8], head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), head), payload)
}

impl<'a> Frame<'a> {
    pub(crate) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.push(FRAME);
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        let sum = checksum(key, &bytes, self.payload);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(self.payload);
        bytes
    }

    pub(crate) fn decode(key: &[u8], bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (header, payload) = bytes
            .split_at_checked(HEADER)
            .ok_or(RecordError::Damaged("too short"))?;
        let (head, sum) = header.split_at(HEADER - 4);
        if head[0] != FRAME {
            return Err(RecordError::Damaged("unknown frame version"));
        }
        if sum != checksum(key, head, payload).to_le_bytes() {
            return Err(RecordError::Damaged("checksum"));
        }
        let number = |range: std::ops::Range<usize>| {
            head[range]
                .iter()
                .rev()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        Ok(Self {
            // Four bytes: it fits.
            schema: u32::try_from(number(1..5)).unwrap_or(u32::MAX),
            revision: number(5..13),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(schema: u32, revision: u64, payload: Vec<u8>, key: Vec<u8>) {
            let frame = Frame { schema, revision, payload: &payload };
            let bytes = frame.encode(&key);
            prop_assert_eq!(Frame::decode(&key, &bytes), Ok(frame));
        }

        #[test]
        fn a_flipped_bit_or_another_key_is_noticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let frame = Frame { schema: 1, revision: 2, payload: &payload };
            let mut bytes = frame.encode(b"key");
            prop_assert!(Frame::decode(b"kez", &bytes).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Frame::decode(b"key", &bytes).is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Frame::decode(b"key", &bytes).is_err());
        }
    }
}
