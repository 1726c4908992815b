//! Following operations to their end.

use std::time::Duration;

use lodge_api::operation::{Operation, OperationStatus};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{Client, ClientError};

/// How long one question may stay unanswered; the host was asked to wait two seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many questions in a row may stay unanswered: a connection can die without a word
/// when the host's network changes, and the next one goes through.
const ATTEMPTS: u32 = 3;

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
            let operation = self.ask_operation(id).await?;
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

    async fn ask_operation(&self, id: Uuid) -> Result<Operation, ClientError> {
        let path = format!("/v1/operations/{id}?wait=2s");
        for _ in 1..ATTEMPTS {
            if let Ok(answer) = timeout(PATIENCE, self.get(&path)).await {
                return answer;
            }
        }
        self.get(&path).await
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
