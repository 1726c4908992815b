//! Operations: what takes longer than a request may.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lodge_api::event::EventBody;
use lodge_api::operation::{Operation, OperationStatus, Progress};
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Problem};
use lodge_block::copy::CopyProgress;
use lodge_store::{Batch, Precondition, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::core::{Core, internal};
use crate::filter::{self, Field};
use crate::{Caller, Manager, catalogue};

/// Operations kept.
const KEEP: usize = 1000;

/// How long ended operations are kept.
const KEEP_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Least time between two events about the progress of one operation.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Log lines kept with an operation.
const LOG_LINES: usize = 100;

/// Longest log line, in characters.
const LOG_LINE: usize = 200;

/// Largest log of an operation, in bytes: it must fit into a record of the store.
const LOG_BYTES: usize = 6 << 10;

/// Most operations under way.
const MOST_RUNNING: u64 = 500;

/// How long a cancelled operation may take to end before the answer is sent all the same.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("kind", "/kind"),
    ("target", "/target"),
    ("user", "/user"),
    ("status", "/status"),
];

/// What an operation does.
type Work = Box<dyn FnOnce(OperationHandle) -> BoxFuture<'static, Result<(), Problem>> + Send>;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct OperationRecord(Operation);

impl Record for OperationRecord {
    const TABLE: &'static str = "operations";
    const SCHEMA: u32 = 1;
}

/// All operations, oldest first: their ids grow with time.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    cells: RwLock<BTreeMap<Uuid, Arc<Cell>>>,
}

#[derive(Debug)]
struct Cell {
    state: watch::Sender<Operation>,
    cancel: CancellationToken,
    progress_sent: Mutex<Option<Instant>>,
}

impl Cell {
    fn new(operation: Operation) -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(operation),
            cancel: CancellationToken::new(),
            progress_sent: Mutex::new(None),
        })
    }
}

impl Operations {
    /// Takes over what an earlier manager left, those it was in the middle of as well.
    pub(crate) fn load(snapshot: &lodge_store::Snapshot) -> Self {
        let cells = snapshot
            .list::<OperationRecord>()
            .into_iter()
            .map(|(_, record)| (record.value.0.id, Cell::new(record.value.0)))
            .collect();
        Self {
            cells: RwLock::new(cells),
        }
    }

    fn cell(&self, id: Uuid) -> Result<Arc<Cell>, Problem> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells
            .get(&id)
            .cloned()
            .ok_or_else(|| Problem::not_found("operation", id))
    }

    fn all(&self) -> Vec<Operation> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells
            .values()
            .rev()
            .map(|cell| cell.state.borrow().clone())
            .collect()
    }

    /// Number of operations under way.
    pub(crate) fn running(&self) -> u64 {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let running = |cell: &&Arc<Cell>| !cell.state.borrow().status.is_final();
        u64::try_from(cells.values().filter(running).count()).unwrap_or(u64::MAX)
    }

    fn insert(&self, id: Uuid, cell: Arc<Cell>, outdated: &[Uuid]) {
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        cells.insert(id, cell);
        for id in outdated {
            cells.remove(id);
        }
    }

    /// Ended operations that are too old or too many.
    fn outdated(&self, now: Timestamp) -> Vec<Uuid> {
        let all = self.all();
        let old = |operation: &Operation| {
            operation
                .finished_at
                .is_some_and(|end| now.duration_since(end) > KEEP_FOR)
        };
        all.iter()
            .enumerate()
            .filter(|(number, operation)| {
                operation.status.is_final() && (*number + 1 >= KEEP || old(operation))
            })
            .map(|(_, operation)| operation.id)
            .collect()
    }
}

/// An operation, seen by the one who carries it out.
#[derive(Clone)]
pub(crate) struct OperationHandle {
    core: Arc<Core>,
    cell: Arc<Cell>,
}

impl OperationHandle {
    /// Tells how far it is.
    pub(crate) fn progress(&self, phase: &str, done: u64, total: u64) {
        self.cell.state.send_modify(|operation| {
            operation.progress = Some(Progress {
                phase: phase.to_owned(),
                done,
                total,
            });
        });
        let mut sent = self
            .cell
            .progress_sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if sent.is_none_or(|sent| sent.elapsed() >= PROGRESS_EVERY) {
            *sent = Some(Instant::now());
            drop(sent);
            self.core.announce(&self.cell);
        }
    }

    /// Tells how far a copy is, and whether to go on with it.
    pub(crate) fn copying(&self, phase: &str, progress: CopyProgress) -> ControlFlow<()> {
        self.progress(phase, progress.position, progress.size);
        if self.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// What others see of it.
    pub(crate) fn view(&self) -> Operation {
        self.cell.state.borrow().clone()
    }

    /// Adds a line to its log.
    pub(crate) fn log(&self, line: impl AsRef<str>) {
        let line = line.as_ref().chars().take(LOG_LINE);
        let line: String = line.map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.cell.state.send_modify(|operation| {
            operation.log.push(line);
            let bytes = |log: &[String]| log.iter().map(String::len).sum::<usize>();
            while operation.log.len() > LOG_LINES || bytes(&operation.log) > LOG_BYTES {
                operation.log.remove(0);
            }
        });
    }

    /// From now on it cannot be cancelled. Fails when it has been already.
    pub(crate) fn commit_to_finish(&self) -> Result<(), Problem> {
        self.cell
            .state
            .send_modify(|operation| operation.may_cancel = false);
        if self.is_cancelled() {
            return Err(cancelled());
        }
        Ok(())
    }

    /// Whether a user wants it to stop, or the manager ends.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cell.cancel.is_cancelled() || self.core.ended.is_cancelled()
    }

    /// Returns when a user wants it to stop.
    pub(crate) async fn cancelled(&self) {
        self.cell.cancel.cancelled().await;
    }
}

/// What has come of an operation that somebody has waited for.
pub(crate) fn outcome(ended: Operation) -> Result<(), Problem> {
    match (ended.status, ended.error) {
        (OperationStatus::Succeeded, _) => Ok(()),
        (_, Some(problem)) => Err(problem),
        (status, None) => Err(internal(format!("its operation has {}", status.as_str()))),
    }
}

/// How a cancelled operation ends.
pub(crate) fn cancelled() -> Problem {
    Problem::new(ErrorCode::Cancelled, "cancelled")
}

impl Core {
    fn announce(&self, cell: &Cell) {
        let operation = cell.state.borrow().clone();
        let user = operation.user.clone();
        let operation = Box::new(operation);
        self.events
            .publish(Some(&user), EventBody::Operation { operation });
    }

    /// Records an operation and carries it out in the background.
    pub(crate) async fn start_operation<F>(
        self: &Arc<Self>,
        caller: &Caller,
        kind: &str,
        target: String,
        may_cancel: bool,
        work: impl FnOnce(OperationHandle) -> F + Send + 'static,
    ) -> Result<Operation, Problem>
    where
        F: Future<Output = Result<(), Problem>> + Send + 'static,
    {
        // All below is compiled once instead of for each kind of work.
        let work: Work = Box::new(|handle| Box::pin(work(handle)));
        self.start_work(caller, kind, target, may_cancel, work)
            .await
    }

    async fn start_work(
        self: &Arc<Self>,
        caller: &Caller,
        kind: &str,
        target: String,
        may_cancel: bool,
        work: Work,
    ) -> Result<Operation, Problem> {
        if self.operations.running() >= MOST_RUNNING {
            return Err(Problem::new(
                ErrorCode::TooManyRequests,
                format!("{MOST_RUNNING} operations are under way"),
            )
            .with_hint("wait for some of them to end"));
        }
        let now = Timestamp::now();
        let operation = Operation {
            id: Uuid::now_v7(),
            kind: kind.to_owned(),
            target,
            user: caller.user.clone(),
            status: OperationStatus::Running,
            progress: None,
            log: Vec::new(),
            may_cancel,
            error: None,
            created_at: now,
            finished_at: None,
        };
        let outdated = self.operations.outdated(now);
        let mut batch = Batch::new();
        // Of a full host, guests are still to be stopped and resumed.
        batch.may_use_reserve();
        let record = OperationRecord(operation.clone());
        batch
            .put(operation.id.to_string(), &record, Precondition::Absent)
            .map_err(|error| catalogue::record_problem(&error))?;
        for id in &outdated {
            batch
                .delete::<OperationRecord>(id.to_string(), Precondition::Any)
                .map_err(|error| catalogue::record_problem(&error))?;
        }
        self.commit(batch).await?;
        let cell = Cell::new(operation.clone());
        self.operations
            .insert(operation.id, cell.clone(), &outdated);
        self.announce(&cell);
        let handle = OperationHandle {
            core: self.clone(),
            cell: cell.clone(),
        };
        let work = tokio::spawn(work(handle));
        let core = self.clone();
        self.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                // The next manager sees what has become of it.
                () = core.leaving.cancelled() => return,
                result = work => result,
            };
            let result = result.unwrap_or_else(|error| {
                tracing::error!(%error, "an operation failed by a panic");
                Err(internal("the manager failed; its log says more"))
            });
            core.finish_operation(&cell, result).await;
        });
        Ok(operation)
    }

    async fn finish_operation(&self, cell: &Cell, result: Result<(), Problem>) {
        let mut ended = cell.state.borrow().clone();
        ended.finished_at = Some(Timestamp::now());
        ended.may_cancel = false;
        ended.status = match &result {
            Ok(()) => OperationStatus::Succeeded,
            Err(problem) if problem.code == ErrorCode::Cancelled => OperationStatus::Cancelled,
            Err(_) => OperationStatus::Failed,
        };
        ended.error = result.err();
        self.keep_operation(&ended).await;
        if let Some(error) = &ended.error {
            tracing::warn!(kind = ended.kind, target = ended.target, %error, "operation ended badly");
        }
        cell.state.send_replace(ended);
        self.announce(cell);
    }

    async fn keep_operation(&self, operation: &Operation) {
        let mut batch = Batch::new();
        batch.may_use_reserve();
        let record = OperationRecord(operation.clone());
        let put = batch.put(operation.id.to_string(), &record, Precondition::Any);
        let result = match put {
            Ok(_) => self.commit(batch).await.map(drop),
            Err(error) => Err(catalogue::record_problem(&error)),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the end of an operation could not be recorded");
        }
    }

    /// Ends operations an earlier manager was in the middle of. `done` says of one whether the
    /// state shows that it has done its work.
    pub(crate) async fn end_interrupted_operations(&self, done: impl Fn(&Operation) -> bool) {
        let interrupted: Vec<_> = {
            let cells = self
                .operations
                .cells
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let running = |cell: &&Arc<Cell>| !cell.state.borrow().status.is_final();
            cells.values().filter(running).cloned().collect()
        };
        for cell in interrupted {
            let operation = cell.state.borrow().clone();
            let result = if done(&operation) {
                Ok(())
            } else {
                Err(internal("interrupted by a restart of the manager")
                    .with_hint("look at the object's state, and repeat what is missing"))
            };
            self.finish_operation(&cell, result).await;
        }
    }
}

impl Manager {
    /// Newest first. Filter fields: `id kind target user status`.
    pub fn operation_list(&self, params: &ListParams) -> Result<Page<Operation>, Problem> {
        let all = self.core.operations.all();
        filter::page_newest_first(all, params, FIELDS, |operation: &Operation| {
            operation.id.to_string()
        })
    }

    /// One operation.
    pub fn operation_view(&self, id: Uuid) -> Result<Operation, Problem> {
        Ok(self.core.operations.cell(id)?.state.borrow().clone())
    }

    /// The operation when it has ended, or as it is after `timeout`.
    pub async fn operation_wait(&self, id: Uuid, timeout: Duration) -> Result<Operation, Problem> {
        let cell = self.core.operations.cell(id)?;
        let mut state = cell.state.subscribe();
        let ended = state.wait_for(|operation| operation.status.is_final());
        // Either way its present state is the answer.
        let _ = tokio::time::timeout(timeout, ended).await;
        let operation = cell.state.borrow().clone();
        Ok(operation)
    }

    /// Asks an operation to stop and waits shortly for it.
    ///
    /// # Errors
    /// `WrongState` when it has ended or cannot be cancelled.
    pub async fn operation_cancel(&self, caller: &Caller, id: Uuid) -> Result<Operation, Problem> {
        let cell = self.core.operations.cell(id)?;
        let operation = cell.state.borrow().clone();
        if operation.status.is_final() {
            return Err(Problem::new(
                ErrorCode::WrongState,
                format!("the operation has already {}", operation.status.as_str()),
            ));
        }
        if !operation.may_cancel {
            return Err(Problem::new(
                ErrorCode::WrongState,
                format!("a {} operation cannot be cancelled", operation.kind),
            )
            .with_hint("wait for its end"));
        }
        caller.audit("operation_cancel", &operation.target);
        cell.cancel.cancel();
        self.operation_wait(id, CANCEL_PATIENCE).await
    }
}
