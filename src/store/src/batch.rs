//! Changes that happen together.

use std::fmt;

use crate::record::{self, Record, RecordError};

/// What must hold of a record for a batch to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// There is no such record.
    Absent,
    /// There is such a record.
    Present,
    /// The record has this revision.
    Revision(u64),
}

impl Precondition {
    /// Whether it holds of a record with this revision (`None`: there is none).
    pub fn holds(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Revision(expected) => found == Some(expected),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Absent => f.write_str("absent"),
            Self::Present => f.write_str("present"),
            Self::Revision(revision) => write!(f, "at revision {revision}"),
        }
    }
}

/// Changes that happen together or not at all. Later changes of one record win;
/// all preconditions are checked against the state before the batch.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) steps: Vec<Step>,
    pub(crate) may_use_reserve: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) table: String,
    pub(crate) key: String,
    pub(crate) precondition: Precondition,
    pub(crate) change: Option<Change>,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put { schema: u32, payload: Vec<u8> },
    Delete,
}

impl Batch {
    /// A batch of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds neither changes nor conditions.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Lets it be written where the filesystem is full, as deletions are: for the little without which nobody can make room.
    pub fn may_use_reserve(&mut self) -> &mut Self {
        self.may_use_reserve = true;
        self
    }

    /// Creates or replaces a record.
    ///
    /// # Errors
    /// [`RecordError`] for a key or value that cannot be stored; the batch is as it was.
    pub fn put<R: Record>(
        &mut self,
        key: impl Into<String>,
        value: &R,
        precondition: Precondition,
    ) -> Result<&mut Self, RecordError> {
        let change = Change::Put {
            schema: R::SCHEMA,
            payload: record::to_payload(value)?,
        };
        self.push(R::TABLE, key.into(), precondition, Some(change))
    }

    /// Deletes a record; one that is not there is no error unless the precondition says so.
    ///
    /// # Errors
    /// [`RecordError`] for an impossible key.
    pub fn delete<R: Record>(
        &mut self,
        key: impl Into<String>,
        precondition: Precondition,
    ) -> Result<&mut Self, RecordError> {
        self.push(R::TABLE, key.into(), precondition, Some(Change::Delete))
    }

    /// Requires something of a record that is not changed.
    ///
    /// # Errors
    /// [`RecordError`] for an impossible key.
    pub fn require<R: Record>(
        &mut self,
        key: impl Into<String>,
        precondition: Precondition,
    ) -> Result<&mut Self, RecordError> {
        self.push(R::TABLE, key.into(), precondition, None)
    }

    pub(crate) fn push(
        &mut self,
        table: &str,
        key: String,
        precondition: Precondition,
        change: Option<Change>,
    ) -> Result<&mut Self, RecordError> {
        record::check_key(table, &key)?;
        self.steps.push(Step {
            table: table.to_owned(),
            key,
            precondition,
            change,
        });
        Ok(self)
    }
}
