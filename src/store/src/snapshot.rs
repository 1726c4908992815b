//! A consistent view of all tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{Batch, Change};
use crate::record::{self, Record, RecordError};

/// Everything that was durable at one moment. Cheap to take and to keep.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) tables: BTreeMap<String, Arc<BTreeMap<String, Stored>>>,
}

/// A record in memory, untyped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) schema: u32,
    pub(crate) revision: u64,
    pub(crate) payload: Arc<[u8]>,
}

/// A record and the revision of the batch that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<R> {
    /// The record.
    pub value: R,
    /// Revision of the batch that wrote it; changes with every change of the record.
    pub revision: u64,
}

impl Snapshot {
    /// Revision of the last batch in it; grows by one with each.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One record.
    ///
    /// # Errors
    /// [`RecordError`] when it is there and cannot be read as an `R`.
    pub fn get<R: Record>(&self, key: &str) -> Result<Option<Versioned<R>>, RecordError> {
        self.raw(R::TABLE, key).map(typed).transpose()
    }

    /// All records of a table in the order of their keys. Those that this release
    /// cannot read are left out, and reported to the log.
    pub fn list<R: Record>(&self) -> Vec<(String, Versioned<R>)> {
        let Some(table) = self.tables.get(R::TABLE) else {
            return Vec::new();
        };
        let read = |(key, stored): (&String, &Stored)| match typed(stored) {
            Ok(record) => Some((key.clone(), record)),
            Err(error) => {
                tracing::error!(table = R::TABLE, key, %error, "a record cannot be read");
                None
            }
        };
        table.iter().filter_map(read).collect()
    }

    /// Number of records of a table.
    pub fn count<R: Record>(&self) -> usize {
        self.tables.get(R::TABLE).map_or(0, |table| table.len())
    }

    /// What there would be after `batch`, whose preconditions are taken to hold. Nothing is written.
    pub fn after(&self, batch: &Batch) -> Self {
        let mut after = self.clone();
        after.revision += 1;
        for step in &batch.steps {
            match &step.change {
                None => {}
                Some(Change::Delete) => after.remove(&step.table, &step.key),
                Some(Change::Put { schema, payload }) => {
                    let stored = Stored {
                        schema: *schema,
                        revision: after.revision,
                        payload: payload.as_slice().into(),
                    };
                    after.insert(&step.table, step.key.clone(), stored);
                }
            }
        }
        after
    }

    pub(crate) fn raw(&self, table: &str, key: &str) -> Option<&Stored> {
        self.tables.get(table)?.get(key)
    }

    pub(crate) fn insert(&mut self, table: &str, key: String, stored: Stored) {
        let table = self.tables.entry(table.to_owned()).or_default();
        // Copies the table only while somebody keeps a snapshot of it.
        Arc::make_mut(table).insert(key, stored);
    }

    pub(crate) fn remove(&mut self, table: &str, key: &str) {
        if let Some(table) = self.tables.get_mut(table) {
            Arc::make_mut(table).remove(key);
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&String, &String, &Stored)> {
        self.tables
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(key, stored)| (table, key, stored)))
    }
}

fn typed<R: Record>(stored: &Stored) -> Result<Versioned<R>, RecordError> {
    Ok(Versioned {
        value: record::from_payload(stored.schema, &stored.payload)?,
        revision: stored.revision,
    })
}
