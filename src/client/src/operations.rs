//! Following operations to their end.

use lodge_api::operation::{Operation, OperationStatus};
use uuid::Uuid;

use crate::{Client, ClientError};

impl Client {
    /// Waits for the end of an operation; `report` sees it at every change the
    /// host reports, at least every two seconds.
    ///
    /// # Errors
    /// The operation's own problem when it failed; [`ClientError`] otherwise.
    pub async fn wait_operation(
        &self,
        id: Uuid,
        mut report: impl FnMut(&Operation),
    ) -> Result<Operation, ClientError> {
        loop {
            let operation: Operation = self.get(&format!("/v1/operations/{id}?wait=2s")).await?;
            report(&operation);
            match operation.status {
                OperationStatus::Running => {}
                OperationStatus::Succeeded => return Ok(operation),
                OperationStatus::Failed | OperationStatus::Cancelled => {
                    return Err(failure(operation));
                }
            }
        }
    }
}

fn failure(operation: Operation) -> ClientError {
    match operation.error {
        Some(problem) => problem.into(),
        None => ClientError::Usage(format!(
            "operation {} ({}) was {}",
            operation.id,
            operation.kind,
            operation.status.as_str()
        )),
    }
}
