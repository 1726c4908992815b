//! Following operations to their end.

use std::time::{Duration, Instant};

use lodge_api::operation::{Operation, OperationStatus};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{Client, ClientError};

/// How long one question may stay unanswered; the host was asked to wait two seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many questions in a row may stay unanswered: a connection can die without a word
/// when the host's network changes, and the next one goes through.
const ATTEMPTS: u32 = 3;

/// How long the host may not be reached: its manager may be started anew in the middle of an operation.
const ABSENCE: Duration = Duration::from_secs(30);

/// Time between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(500);

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
        let (begin, mut unanswered) = (Instant::now(), 0);
        loop {
            match timeout(PATIENCE, self.get(&path)).await {
                Ok(Err(error)) if error.may_pass() && begin.elapsed() < ABSENCE => {
                    sleep(PAUSE).await;
                }
                Ok(answer) => return answer,
                Err(_) if unanswered + 1 < ATTEMPTS => unanswered += 1,
                Err(_) => return self.get(&path).await,
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
