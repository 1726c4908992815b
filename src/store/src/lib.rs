//! Typed tables that survive everything: what was acknowledged is on the disk.
//!
//! A [`Store`] holds records in tables. Readers take a [`Snapshot`], which is
//! consistent over all tables and costs no I/O. Writers hand in a [`Batch`],
//! which happens as a whole or not at all, only if its preconditions hold, and
//! is answered when it is durable: flushed to the device, not only written.
//!
//! [`SledStore`] is the store of a single host. Nothing above this crate knows
//! about sled, so that a cluster can put another store behind the same trait.
//!
//! ```
//! use lodge_store::{Batch, Precondition, Record, SledStore, Store};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Colour { name: String }
//! impl Record for Colour {
//!     const TABLE: &'static str = "colours";
//!     const SCHEMA: u32 = 1;
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! let opened = SledStore::open(directory.path())?;
//! let mut batch = Batch::new();
//! batch.put("1", &Colour { name: "red".into() }, Precondition::Absent)?;
//! let revision = opened.store.commit_blocking(batch)?;
//! let red = opened.store.snapshot().get::<Colour>("1")?.expect("just written");
//! assert_eq!((red.value.name.as_str(), red.revision), ("red", revision));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod error;
mod export;
mod record;
mod sled_store;
mod snapshot;

use std::future::Future;
use std::pin::Pin;

pub use batch::{Batch, Precondition};
pub use error::StoreError;
pub use export::ExportError;
pub use record::{MAX_KEY, MAX_PAYLOAD, Record, RecordError, from_json};
pub use sled_store::{Opened, SledStore, StoreOptions};
pub use snapshot::{Snapshot, Versioned};

/// The answer to a commit: the revision that every record of the batch now has.
pub type CommitFuture = Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send>>;

/// A set of tables with atomic, durable changes.
pub trait Store: Send + Sync {
    /// Everything that was durable at this moment.
    fn snapshot(&self) -> Snapshot;

    /// Carries out a batch. The answer comes when it is durable.
    ///
    /// Once the future was polled the batch happens even if the future is dropped.
    /// After an error nothing of it has happened; only [`StoreError::Io`] leaves
    /// open whether a later restart finds it.
    fn commit(&self, batch: Batch) -> CommitFuture;
}
