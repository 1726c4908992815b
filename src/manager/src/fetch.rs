//! Content that the host fetches by itself instead of having it sent.

use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use lodge_api::Problem;
use lodge_block::datastore::Datastore;

use crate::Manager;
use crate::operations::{OperationHandle, cancelled};

/// Content that has begun to come.
pub struct Fetched {
    /// Bytes of it, if that is known.
    pub length: Option<u64>,
    /// They. An error that is a [`Problem`] is told as such.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// Asks for content, once somebody waits for it.
pub type Fetch = BoxFuture<'static, Result<Fetched, Problem>>;

impl Manager {
    /// Waits until it comes, or somebody does not want it any more, and refuses what has no room on the datastore.
    pub(crate) async fn begin_fetch(
        &self,
        datastore: &Datastore,
        fetch: Fetch,
        handle: &OperationHandle,
    ) -> Result<Fetched, Problem> {
        let fetched = tokio::select! {
            fetched = fetch => fetched?,
            () = handle.cancelled() => return Err(cancelled()),
        };
        self.require_room_for(datastore, fetched.length)?;
        Ok(fetched)
    }
}

/// What is wrong with a parameter that is part of a body here, and of the query where content is sent.
pub(crate) fn in_body(mut problem: Problem) -> Problem {
    let pointer = problem.pointer.as_deref();
    if let Some(name) = pointer.and_then(|pointer| pointer.strip_prefix('?')) {
        problem.pointer = Some(format!("/{name}"));
    }
    problem
}
