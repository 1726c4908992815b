//! Operations: what takes longer than a request may.

use std::time::Duration;

use lodge_api::Problem;
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use uuid::Uuid;

use crate::{Caller, Manager};

impl Manager {
    /// Newest first. Filter fields: `id kind target user status`.
    pub fn operation_list(&self, params: &ListParams) -> Result<Page<Operation>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One operation.
    pub fn operation_view(&self, id: Uuid) -> Result<Operation, Problem> {
        let _ = id;
        Err(crate::manager::unfinished())
    }

    /// The operation when it has ended, or as it is after `timeout`.
    pub async fn operation_wait(&self, id: Uuid, timeout: Duration) -> Result<Operation, Problem> {
        let _ = (id, timeout);
        Err(crate::manager::unfinished())
    }

    /// Asks an operation to stop and waits shortly for it.
    ///
    /// # Errors
    /// `WrongState` when it has ended or cannot be cancelled.
    pub async fn operation_cancel(&self, caller: &Caller, id: Uuid) -> Result<Operation, Problem> {
        let _ = (caller, id);
        Err(crate::manager::unfinished())
    }
}
