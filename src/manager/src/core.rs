//! What all parts of the manager share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use lodge_api::event::EventBody;
use lodge_api::system::StorageHealth;
use lodge_api::{ErrorCode, Problem};
use lodge_block::datastore::Datastore;
use lodge_host::boot::BootReport;
use lodge_host::cgroup::CgroupTree;
use lodge_host::net::HostNetwork;
use lodge_store::{Batch, SledStore, Snapshot, Store};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Manager;
use crate::backups::Backups;
use crate::catalogue;
use crate::config::ManagerConfig;
use crate::datastores::Datastores;
use crate::events::EventStream;
use crate::first_admin::InitialPassword;
use crate::hostname::HostName;
use crate::install;
use crate::log_ring::LogRing;
use crate::nvme::Nvme;
use crate::operations::Operations;
use crate::sessions::Sessions;
use crate::system::HostView;
use crate::update::{self, HostImages};
use crate::vms::Registry;

/// Work in a box. An executor's task has the type of its work, and every type is compiled by itself: of boxes there is one for
/// each result.
type Boxed<T> = BoxFuture<'static, Result<T, Problem>>;

/// What all parts of the manager share.
pub(crate) struct Core {
    pub(crate) config: ManagerConfig,
    pub(crate) boot: Option<BootReport>,
    pub(crate) store: Arc<SledStore>,
    /// Held from checking a change of the configuration until it is durable, so that what was checked
    /// (nobody uses this disk) still holds.
    pub(crate) catalogue: Mutex<()>,
    pub(crate) images: Arc<Datastore>,
    /// Where disks are.
    pub(crate) datastores: Datastores,
    /// Disks of other machines, and disks for them.
    pub(crate) nvme: Nvme,
    /// UEFI variables of each guest that has run by that firmware, under its id.
    pub(crate) variables: Arc<Datastore>,
    /// Memory, state and variables of snapshots, and disks of those whose disks are on the host's own data storage.
    pub(crate) saved: Arc<Datastore>,
    pub(crate) events: EventStream,
    pub(crate) operations: Operations,
    pub(crate) sessions: Sessions,
    pub(crate) initial_password: InitialPassword,
    pub(crate) vms: Registry,
    pub(crate) network: Option<HostNetwork>,
    pub(crate) cgroups: Option<CgroupTree>,
    pub(crate) host: HostView,
    pub(crate) storage_health: watch::Sender<StorageHealth>,
    /// Who reads and writes backups, and what is wrong with them.
    pub(crate) backups: Backups,
    /// What is wrong with disks of the host that are in use.
    pub(crate) disk_warnings: watch::Sender<Vec<String>>,
    pub(crate) hostname: HostName,
    pub(crate) log: LogRing,
    /// What was repaired or given up at the start, for people.
    pub(crate) start_warnings: Vec<String>,
    /// Held by whoever starts guests that start with the host.
    pub(crate) autostart: Mutex<()>,
    /// Changes whenever the local console should be written anew.
    pub(crate) console: watch::Sender<u64>,
    pub(crate) stopping: AtomicBool,
    /// The host is being installed on a disk.
    pub(crate) installing: AtomicBool,
    /// Guests are saved, and the host restarts.
    pub(crate) restarting: AtomicBool,
    /// The version that runs is on trial, and has not shown yet that the host is well with it.
    pub(crate) trying: AtomicBool,
    pub(crate) host_images: HostImages,
    /// What is to be done when this manager has ended.
    pub(crate) handover: install::Waiting,
    /// The manager wants to be started anew.
    pub(crate) leaving: CancellationToken,
    /// Ends background work.
    pub(crate) ended: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) started_at: Timestamp,
    pub(crate) logins_refused: AtomicU64,
}

impl Core {
    /// Everything durable now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Makes a batch durable.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<u64, Problem> {
        self.store
            .commit(batch)
            .await
            .map_err(|error| catalogue::store_problem(&error))
    }

    /// Refuses what is asked for during a shutdown.
    pub(crate) fn require_up(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::Relaxed) {
            Err(catalogue::shutting_down())
        } else {
            Ok(())
        }
    }

    /// Refuses changes as [`Core::require_settled`] does, and while another version of Lodge is tried.
    pub(crate) fn require_changeable(&self) -> Result<(), Problem> {
        self.require_settled()?;
        if self.trying.load(Ordering::SeqCst) {
            Err(update::trying())
        } else {
            Ok(())
        }
    }

    /// Refuses changes during a shutdown, during an installation and before the restart of an update.
    pub(crate) fn require_settled(&self) -> Result<(), Problem> {
        self.require_up()?;
        if self.restarting.load(Ordering::SeqCst) {
            return Err(catalogue::shutting_down());
        }
        if self.installing.load(Ordering::SeqCst) {
            Err(install::being_installed())
        } else {
            Ok(())
        }
    }

    /// Tells everybody what has happened to the host.
    pub(crate) fn tell(&self, message: String) {
        tracing::info!("{message}");
        self.events.publish(None, EventBody::System { message });
    }

    /// Tells everybody what has gone wrong with the host.
    pub(crate) fn tell_problem(&self, message: String) {
        tracing::warn!("{message}");
        self.events.publish(None, EventBody::System { message });
    }

    /// Has the local console written anew.
    pub(crate) fn console_changed(&self) {
        self.console.send_modify(|count| *count += 1);
    }
}

impl Manager {
    /// Carries out a change to its end, even when the caller goes away in the middle: a change is
    /// made durable first and then made known, and must not stop between.
    pub(crate) fn to_the_end<T, F>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> impl Future<Output = Result<T, Problem>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        self.change(Box::pin(work(self.clone())))
    }

    /// As [`Manager::to_the_end`], for what goes on while the host is installed, such as logging in.
    pub(crate) fn finish_anyway<T, F>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> impl Future<Output = Result<T, Problem>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        self.finish(Box::pin(work(self.clone())))
    }

    async fn change<T: Send + 'static>(&self, work: Boxed<T>) -> Result<T, Problem> {
        self.core.require_changeable()?;
        self.finish(work).await
    }

    async fn finish<T: Send + 'static>(&self, work: Boxed<T>) -> Result<T, Problem> {
        self.core.require_up()?;
        let task = self.core.tasks.spawn(work);
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a change failed by a panic");
            Err(internal("the manager failed; its log says more"))
        })
    }
}

/// A failure of Lodge itself.
pub(crate) fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Internal, detail)
}

/// Runs blocking work off the executor.
pub(crate) fn blocking<T, F>(work: F) -> impl Future<Output = Result<T, Problem>> + Send
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Problem> + Send + 'static,
{
    off_the_executor(Box::new(work))
}

async fn off_the_executor<T: Send + 'static>(
    work: Box<dyn FnOnce() -> Result<T, Problem> + Send>,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "blocking work failed by a panic");
            Err(internal("the manager failed; its log says more"))
        })
}
