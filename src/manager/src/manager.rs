//! The handle, and the life of the manager as a whole.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use lodge_api::system::StorageHealth;
use lodge_block::datastore::Datastore;
use lodge_host::boot::BootReport;
use lodge_host::cgroup::{self, CgroupTree};
use lodge_host::net::Shutdown;
use lodge_host::nvmf::HostIdentity;
use lodge_store::{Opened, SledStore, Store};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::backups::Backups;
use crate::catalogue::{self, Object};
use crate::config::{ManagerConfig, OpenError};
use crate::core::{Core, internal};
use crate::datastores::{self, Datastores, Folders};
use crate::disks::DiskRecord;
use crate::events::EventStream;
use crate::first_admin::InitialPassword;
use crate::hostname::HostName;
use crate::identity;
use crate::images::ImageRecord;
use crate::install;
use crate::log_ring::LogRing;
use crate::networks;
use crate::nvme::Nvme;
use crate::operations::Operations;
use crate::recovered;
use crate::sessions::Sessions;
use crate::snapshots;
use crate::system::HostView;
use crate::update::{AtStart, HostImages};
use crate::vms::{Registry, VmRecord};

/// Name of the cgroup that holds the guests' leaves.
const CGROUP: &str = "lodge";

/// Time between two samples of the host's load.
const SAMPLE: Duration = Duration::from_secs(1);

/// Samples between two rounds of writing down the use of sessions.
const NOTE_SESSIONS: u64 = 60;

/// Samples between two exports of the store, where it has changed.
const EXPORT: u64 = 600;

/// How long background work may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// The manager. Clones share one; it ends with [`Manager::shutdown`] or [`Manager::close`].
#[derive(Clone)]
pub struct Manager {
    pub(crate) core: Arc<Core>,
}

impl Manager {
    /// Opens the store, takes over the host's network and the guests that run already, and
    /// starts those that shall start by themselves.
    ///
    /// # Errors
    /// [`OpenError`] when the store or its directories cannot be used.
    pub async fn open(config: ManagerConfig, log: LogRing) -> Result<Self, OpenError> {
        let core = prepare(config, log).await?;
        core.prepare_administrator().await?;
        let system = core.datastores.system().disks.clone();
        if let Err(problem) = core.record_growth(None, &system).await {
            tracing::warn!(%problem, "sizes of disks are not recorded");
        }
        core.attach_nvme().await;
        core.attach_datastores().await;
        core.take_over_guests().await;
        core.end_interrupted_operations(|operation| core.shows_done(operation))
            .await;
        let manager = Self { core };
        manager.start_background_work();
        manager.install_by_seed().await;
        // They wait for the end of a trial.
        if !manager.core.trying.load(Ordering::SeqCst) {
            manager.core.guests_go_on().await;
            manager.autostart().await;
        }
        Ok(manager)
    }

    fn start_background_work(&self) {
        let core = self.core.clone();
        self.background(async move { core.keep_house().await });
        let core = self.core.clone();
        self.background(async move { core.follow_storage().await });
        let core = self.core.clone();
        self.background(async move { core.follow_datastores().await });
        let core = self.core.clone();
        self.background(async move { core.follow_nvme().await });
        if self.core.config.appliance {
            let core = self.core.clone();
            self.background(async move { core.follow_disk_health().await });
        }
        let manager = self.clone();
        self.background(async move { manager.follow_schedules().await });
        let manager = self.clone();
        self.background(async move { manager.follow_backup_schedules().await });
        let core = self.core.clone();
        self.background(async move { core.follow_network().await });
        let core = self.core.clone();
        self.background(async move { core.follow_kernel_log().await });
    }

    pub(crate) fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.core.ended.clone();
        self.core.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Powers every guest off (button, then force when `deadline` is near), finishes what is
    /// under way and flushes the store. New changes are refused from the start of it.
    pub async fn shutdown(&self, deadline: Duration) {
        self.core.stopping.store(true, Ordering::Relaxed);
        self.core.power_guests_off(deadline.mul_f64(0.9)).await;
        self.end().await;
    }

    /// Flushes the store and ends without touching guests: they run on, and the next manager
    /// finds them.
    pub async fn close(&self) {
        self.core.stopping.store(true, Ordering::Relaxed);
        self.end().await;
    }

    async fn end(&self) {
        let core = &self.core;
        core.note_sessions().await;
        core.ended.cancel();
        core.tasks.close();
        if tokio::time::timeout(END_PATIENCE, core.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some work did not end in time");
        }
        if let Some(network) = &core.network {
            network.shutdown(Shutdown::LeaveInPlace).await;
        }
        core.events.close();
        let store = core.store.clone();
        let handover = core.handover.take();
        let closed = tokio::task::spawn_blocking(move || {
            if let Err(error) = store.export() {
                tracing::warn!(%error, "the store could not be exported");
            }
            store.close();
            if let Some(handover) = handover {
                handover.complete();
            }
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the store failed");
        }
    }
}

impl Core {
    /// What has to be done every so often.
    async fn keep_house(self: &Arc<Self>) {
        let mut clock = tokio::time::interval(SAMPLE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0_u64;
        loop {
            clock.tick().await;
            self.host.sample_cpu();
            count += 1;
            if count.is_multiple_of(NOTE_SESSIONS) {
                self.note_sessions().await;
            }
            if count.is_multiple_of(EXPORT) {
                let store = self.store.clone();
                let exported = tokio::task::spawn_blocking(move || store.export()).await;
                if let Ok(Err(error)) = exported {
                    tracing::warn!(%error, "the store could not be exported");
                }
            }
        }
    }
}

async fn prepare(config: ManagerConfig, log: LogRing) -> Result<Arc<Core>, OpenError> {
    for path in [
        &config.data_dir,
        &config.data_dir.join("images"),
        &config.data_dir.join("disks"),
        &config.data_dir.join("variables"),
        &config.data_dir.join("snapshots"),
        &config.run_dir,
        &config.run_dir.join("vms"),
    ] {
        make_directory(path)?;
    }
    let path = config.data_dir.join("store");
    let opened = tokio::task::spawn_blocking(move || SledStore::open(&path)).await;
    let Opened { store, warnings } =
        opened.map_err(|error| internal(format!("opening the store failed: {error}")))??;
    let mut start_warnings = warnings;
    start_warnings.extend(install::left_behind(&config.run_dir));
    let AtStart { failed, trying } = AtStart::read(&config);
    start_warnings.extend(failed);
    let boot = read_boot_report(&config, &mut start_warnings);
    let root = open_datastore(&config.data_dir)?;
    let images = open_datastore(&config.data_dir.join("images"))?;
    let disks = open_datastore(&config.data_dir.join("disks"))?;
    let variables = open_datastore(&config.data_dir.join("variables"))?;
    let saved = Arc::new(open_datastore(&config.data_dir.join("snapshots"))?);
    let missing = [
        networks::missing_default(&store.snapshot(), &config)?,
        datastores::missing_default(&store.snapshot())?,
        identity::missing(&store.snapshot())?,
    ];
    for batch in missing.into_iter().flatten() {
        store.commit(batch).await?;
    }
    if store.has_losses() {
        let on = recovered::Folders {
            images: &images,
            disks: &disks,
            saved: &saved,
        };
        if let Err(problem) = recovered::bring_back(&store, &on, &mut start_warnings).await {
            start_warnings.push(format!(
                "What the damaged store had lost could not be brought back: {problem}."
            ));
        }
    }
    let snapshot = store.snapshot();
    if !store.has_losses() {
        remove_unrecorded::<ImageRecord>(&images, &snapshot);
        remove_unrecorded::<DiskRecord>(&disks, &snapshot);
        remove_unrecorded::<VmRecord>(&variables, &snapshot);
        snapshots::remove_unrecorded(&saved, &snapshot);
    }
    let all = catalogue::list::<ImageRecord>(&snapshot);
    let all = all.into_iter().map(|image| image.value);
    start_warnings.extend(recovered::without_files(all, &images));
    let here = recovered::disks_on(&snapshot, None);
    start_warnings.extend(recovered::without_files(here, &disks));
    let hostname = HostName::read(&config, boot.as_ref());
    let network = networks::start(&config, boot.as_ref(), hostname.get(), &snapshot)
        .await
        .unwrap_or_else(|warning| {
            tracing::error!("{warning}");
            start_warnings.push(warning);
            None
        });
    Ok(Arc::new(Core {
        host: HostView::read(boot.as_ref()),
        hostname,
        boot,
        catalogue: Mutex::new(()),
        images: Arc::new(images),
        datastores: Datastores::new(Folders {
            root: Arc::new(root),
            disks: Arc::new(disks),
            saved: saved.clone(),
        }),
        nvme: Nvme::new(HostIdentity(identity::of_host(&snapshot)?)),
        variables: Arc::new(variables),
        saved,
        events: EventStream::open(config.run_dir.join("events"), epoch()),
        operations: Operations::load(&snapshot),
        sessions: Sessions::new(&snapshot)?,
        initial_password: InitialPassword::new(&config.run_dir),
        vms: Registry::default(),
        network,
        cgroups: open_cgroups(&config),
        log,
        start_warnings,
        autostart: Default::default(),
        console: watch::Sender::new(0),
        storage_health: watch::Sender::new(StorageHealth::Sound),
        backups: Backups::default(),
        disk_warnings: watch::Sender::new(Vec::new()),
        stopping: AtomicBool::new(false),
        installing: AtomicBool::new(false),
        restarting: AtomicBool::new(false),
        trying: AtomicBool::new(trying),
        host_images: HostImages::default(),
        handover: install::Waiting::default(),
        leaving: CancellationToken::new(),
        ended: CancellationToken::new(),
        tasks: TaskTracker::new(),
        started_at: Timestamp::now(),
        logins_refused: AtomicU64::new(0),
        store: Arc::new(store),
        config,
    }))
}

fn make_directory(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| OpenError::Directory {
        path: path.to_owned(),
        source,
    })
}

fn open_datastore(path: &Path) -> Result<Datastore, OpenError> {
    let failed = |error: lodge_block::datastore::DatastoreError| OpenError::Directory {
        path: path.to_owned(),
        source: io::Error::other(error),
    };
    let datastore = Datastore::open(path).map_err(failed)?;
    let removed = datastore.remove_leftovers().map_err(failed)?;
    if removed > 0 {
        tracing::info!(removed, path = %path.display(), "removed half-made files");
    }
    Ok(datastore)
}

/// Removes files that are complete and were never recorded, or whose record is deleted.
fn remove_unrecorded<O: Object>(datastore: &Datastore, snapshot: &lodge_store::Snapshot) {
    let known = |name: &str| {
        name.parse::<Uuid>().is_err()
            || catalogue::find_optional::<O>(snapshot, name).is_ok_and(|found| found.is_some())
    };
    let files = datastore.files().unwrap_or_else(|error| {
        tracing::warn!(%error, "a datastore cannot be looked through");
        Vec::new()
    });
    for file in files.iter().filter(|file| !known(file.as_str())) {
        match datastore.remove_file(file) {
            Ok(()) => tracing::info!(%file, "removed a file that no {} has", O::KIND),
            Err(error) => tracing::warn!(%file, %error, "a file that is not needed stays"),
        }
    }
}

fn read_boot_report(config: &ManagerConfig, warnings: &mut Vec<String>) -> Option<BootReport> {
    if !config.appliance {
        return None;
    }
    BootReport::read(&config.run_dir.join("boot.json"))
        .inspect_err(|error| {
            warnings.push(format!("What init found at boot is not known: {error}."));
        })
        .ok()
}

fn open_cgroups(config: &ManagerConfig) -> Option<CgroupTree> {
    if !config.jail {
        return None;
    }
    let mount = cgroup::mount_point()?;
    CgroupTree::create(&mount, CGROUP)
        .inspect_err(|error| tracing::warn!(%error, "guests run without cgroups"))
        .ok()
}

/// Identity of the event stream: it changes with each boot of the host.
fn epoch() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}
