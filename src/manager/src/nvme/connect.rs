//! New connections, and those that are not wanted any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::nvme::{NvmeConnect, NvmeDiscover, NvmeOffer, NvmeOffers, PORT};
use lodge_api::operation::Operation;
use lodge_api::{ErrorCode, Problem};
use lodge_host::disk::{block_devices, mounts};
use lodge_host::nvmf::{self, Association, Controller, ControllerState, Nqn, Wanted};
use lodge_store::{Batch, Snapshot};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::connection::ConnectionRecord;
use super::name_or_next;
use super::refusal::refusal;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::datastores::DatastoreRecord;
use crate::install::unknown_disks;
use crate::operations::OperationHandle;
use crate::{Caller, IfMatch, Manager};

/// Most connections.
const MOST: usize = 64;

/// How long a target has: it may take a request and say nothing more, and the kernel waits for minutes.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long disks may take to appear. A subsystem may have none.
const UNTIL_DISKS: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How long the kernel may take to end a connection before nobody waits for it any more.
const TO_END: Duration = Duration::from_secs(20);

impl Manager {
    /// What a target offers to this host.
    ///
    /// # Errors
    /// `InvalidRequest` for an address that nobody can have, `TargetFailed` where it does not answer as it should.
    pub async fn connection_discover(&self, query: &NvmeDiscover) -> Result<NvmeOffers, Problem> {
        let port = query.port.unwrap_or(PORT);
        let target = SocketAddr::new(query.address, port);
        check(target, "?address", "?port")?;
        let host = self.core.nvme.host;
        let found = blocking(move || {
            nvmf::discover(target, host).map_err(|error| Problem {
                pointer: Some("?address".to_owned()),
                ..refusal(&error, host)
            })
        });
        let items = found.await?.into_iter().map(|offer| NvmeOffer {
            nqn: offer.nqn,
            transport: offer.transport,
            address: offer.address,
            port: offer.port,
            discovery: offer.is_discovery,
        });
        Ok(NvmeOffers {
            items: items.collect(),
            host_nqn: host.nqn().to_string(),
        })
    }

    /// Connects to a subsystem of another machine, now and whenever the host starts. The operation's target is
    /// `/v1/nvme-connections/NAME`.
    ///
    /// # Errors
    /// `InvalidRequest`, `AlreadyExists`, `InsufficientResources`; of the operation `TargetFailed`, with what is in the way.
    pub async fn connection_create(
        &self,
        caller: &Caller,
        connect: NvmeConnect,
    ) -> Result<Operation, Problem> {
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let record = plan(&core.snapshot(), connect)?;
            let target = record.target();
            caller.audit("nvmeconnection_create", &target);
            let (working, asking) = (core.clone(), caller.clone());
            let work = move |handle| async move {
                working.make_connection(&asking, record, &handle).await
            };
            core.start_operation(&caller, "nvmeconnection_create", target, false, work)
                .await
        })
        .await
    }

    /// Disconnects.
    ///
    /// # Errors
    /// `InUse` while a datastore is on one of its disks.
    pub async fn connection_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<ConnectionRecord>(&key, if_match).await?;
            let record = held.old.value.clone();
            let wanted = core.wanted(&record)?;
            let controllers = blocking(move || controllers_of(&wanted)).await?;
            core.require_no_datastore(&held.snapshot, &record)?;
            require_not_mounted(&controllers)?;
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &held.old)?;
            core.commit(batch).await?;
            drop(held);
            core.end_connection(&record).await;
            let target = record.target();
            core.make_known(&caller, "nvmeconnection_delete", target, Change::Deleted);
            Ok(())
        })
        .await
    }
}

/// Refuses addresses that nobody can have.
fn check(target: SocketAddr, address: &str, port: &str) -> Result<(), Problem> {
    let ip = target.ip();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Problem::invalid(address, "no machine has that address"));
    }
    if target.port() == 0 {
        return Err(Problem::invalid(port, "a port is a number from 1 to 65535"));
    }
    Ok(())
}

fn plan(snapshot: &Snapshot, connect: NvmeConnect) -> Result<ConnectionRecord, Problem> {
    let target = SocketAddr::new(connect.address, connect.port);
    check(target, "/address", "/port")?;
    let nqn: Nqn = connect
        .nqn
        .parse()
        .map_err(|error| Problem::invalid("/nqn", format!("{error}")))?;
    if nqn == Nqn::discovery() {
        return Err(
            Problem::invalid("/nqn", "that is the discovery service, which has no disks")
                .with_hint("`lodge nvme discover` asks it what there is"),
        );
    }
    let name = name_or_next::<ConnectionRecord>(snapshot, connect.name, "nvme")?;
    let record = ConnectionRecord {
        id: Uuid::now_v7(),
        name,
        address: connect.address,
        port: connect.port,
        nqn: connect.nqn,
        created_at: Timestamp::now(),
    };
    require_new(snapshot, &record)?;
    Ok(record)
}

fn require_new(snapshot: &Snapshot, record: &ConnectionRecord) -> Result<(), Problem> {
    let all = catalogue::list::<ConnectionRecord>(snapshot);
    let same = all
        .iter()
        .map(|known| &known.value)
        .find(|known| known.target_address() == record.target_address() && known.nqn == record.nqn);
    if let Some(same) = same {
        let detail = format!("that is the NVMe connection \"{}\"", same.name);
        return Err(Problem::new(ErrorCode::AlreadyExists, detail).with_pointer("/nqn"));
    }
    if all.len() >= MOST {
        let detail = format!("a host has at most {MOST} NVMe connections");
        return Err(Problem::new(ErrorCode::InsufficientResources, detail)
            .with_hint("delete those that are not used"));
    }
    Ok(())
}

/// The kernel's controllers of a connection; it has one.
pub(super) fn controllers_of(wanted: &Wanted) -> Result<Vec<Controller>, Problem> {
    let mut all = nvmf::controllers()
        .map_err(|error| internal(format!("the NVMe controllers of this host: {error}")))?;
    all.retain(|controller| wanted.is(controller));
    Ok(all)
}

/// What the disks of those controllers are asked for by.
pub(super) fn disks_of(controllers: &[Controller]) -> Result<Vec<String>, Problem> {
    let names: Vec<&String> = controllers.iter().flat_map(|c| &c.disks).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let devices = block_devices().map_err(|error| unknown_disks(&error))?;
    let own = devices.into_iter().filter(|d| names.contains(&&d.name));
    Ok(own.map(|d| d.serial.unwrap_or(d.name)).collect())
}

fn require_not_mounted(controllers: &[Controller]) -> Result<(), Problem> {
    let disks: Vec<String> = controllers
        .iter()
        .flat_map(|controller| &controller.disks)
        .map(|disk| format!("/dev/{disk}"))
        .collect();
    let mounts = mounts().map_err(|error| internal(format!("the mounts of this host: {error}")))?;
    let used = mounts.iter().find(|mount| {
        let source = mount.source.to_string_lossy();
        disks.iter().any(|disk| {
            // The disk itself, or one of its partitions.
            let rest = source.strip_prefix(disk.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
        })
    });
    match used {
        None => Ok(()),
        Some(mount) => {
            let detail = format!(
                "its disk is mounted on {}, and used",
                mount.target.display()
            );
            Err(Problem::new(ErrorCode::InUse, detail)
                .with_hint("stop the guests that have disks there"))
        }
    }
}

impl Core {
    async fn make_connection(
        self: &Arc<Self>,
        caller: &Caller,
        record: ConnectionRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let wanted = self.wanted(&record)?;
        let link = self.nvme.link(record.id);
        let made = async {
            handle.progress("connecting", 0, 2);
            let changing = link.changing.clone().lock_owned().await;
            let controller = self.establish(wanted.clone(), changing).await?;
            handle.progress("looking for disks", 1, 2);
            let disks = wait_for_disks(&wanted).await?;
            let recorded = self.record_connection(&record).await;
            if recorded.is_err() {
                end(controller).await;
            }
            recorded.map(|()| disks)
        };
        match made.await {
            Ok(disks) => {
                if disks.is_empty() {
                    handle.log("the subsystem has no disk at present");
                }
                for disk in &disks {
                    handle.log(format!("there is the disk {disk}"));
                }
                link.update(|seen| seen.live(disks));
                let target = record.target();
                self.make_known(caller, "nvmeconnection_create", target, Change::Created);
                Ok(())
            }
            Err(problem) => {
                self.nvme.forget_link(record.id);
                Err(problem)
            }
        }
    }

    async fn record_connection(&self, record: &ConnectionRecord) -> Result<(), Problem> {
        let _changing = self.catalogue.lock().await;
        require_new(&self.snapshot(), record)?;
        self.add(record).await.map(drop)
    }

    /// Has the kernel connect, after the target was asked whether it lets us. Whoever looks after the connection is kept waiting until the
    /// kernel has an answer, longer than the caller.
    pub(super) async fn establish(
        &self,
        wanted: Wanted,
        changing: OwnedMutexGuard<()>,
    ) -> Result<String, Problem> {
        let decided = Arc::new(AtomicBool::new(false));
        let (deciding, target) = (decided.clone(), wanted.target);
        let work = blocking(move || {
            let _changing = changing;
            Association::open(wanted.target, &wanted.nqn, wanted.host)
                .map_err(|error| refusal(&error, wanted.host))?;
            let controller = nvmf::connect(&wanted).map_err(|error| kernel_refuses(&error))?;
            if deciding.swap(true, Ordering::SeqCst) {
                // Nobody waits any more, and it was said to have failed.
                tracing::info!(controller, "a connection that came too late is ended");
                let _ = nvmf::disconnect(&controller);
            }
            Ok(controller)
        });
        let mut work = std::pin::pin!(work);
        match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(result) => result,
            Err(_) if decided.swap(true, Ordering::SeqCst) => work.await,
            Err(_) => Err(Problem::new(
                ErrorCode::TargetFailed,
                format!("the target {target} does not finish what it has begun"),
            )
            .with_pointer("/address")
            .with_hint("its own log says more")),
        }
    }

    fn require_no_datastore(
        &self,
        snapshot: &Snapshot,
        record: &ConnectionRecord,
    ) -> Result<(), Problem> {
        let disks = self.nvme.link(record.id).seen().disks;
        let datastores = catalogue::list::<DatastoreRecord>(snapshot);
        let on = datastores
            .iter()
            .find(|datastore| disks.iter().any(|disk| datastore.value.is_on_disk(disk)));
        match on {
            None => Ok(()),
            Some(datastore) => {
                let name = &datastore.value.name;
                let detail = format!("the datastore \"{name}\" is on its disk");
                Err(Problem::new(ErrorCode::InUse, detail)
                    .with_hint(format!("`lodge datastore delete {name}` first")))
            }
        }
    }

    /// Ends one that is not recorded any more. What the kernel takes its time for goes on by itself.
    async fn end_connection(&self, record: &ConnectionRecord) {
        let link = self.nvme.link(record.id);
        self.nvme.forget_link(record.id);
        let Ok(wanted) = self.wanted(record) else {
            return;
        };
        let changing = tokio::time::timeout(TO_END, link.changing.clone().lock_owned()).await;
        let work = blocking(move || {
            let _changing = changing;
            for controller in controllers_of(&wanted)? {
                nvmf::disconnect(&controller.name)
                    .map_err(|error| internal(format!("{}: {error}", controller.name)))?;
            }
            Ok(())
        });
        match tokio::time::timeout(TO_END, work).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => tracing::warn!(%problem, "a connection was not ended"),
            Err(_) => {
                tracing::warn!(name = %record.name, "the kernel is still ending a connection");
            }
        }
    }
}

/// Ends a connection that nothing records.
pub(super) async fn end(controller: String) {
    let ended = blocking(move || {
        nvmf::disconnect(&controller).map_err(|error| internal(format!("{controller}: {error}")))
    });
    if let Err(problem) = ended.await {
        tracing::warn!(%problem, "a connection was not ended");
    }
}

/// Until there is one, for as long as that takes usually.
pub(super) async fn wait_for_disks(wanted: &Wanted) -> Result<Vec<String>, Problem> {
    let until = Instant::now() + UNTIL_DISKS;
    loop {
        let wanted = wanted.clone();
        let (is_live, disks) = blocking(move || {
            let controllers = controllers_of(&wanted)?;
            let live = |c: &Controller| c.state == ControllerState::Live;
            Ok((controllers.iter().any(live), disks_of(&controllers)?))
        })
        .await?;
        if !disks.is_empty() || !is_live || Instant::now() >= until {
            return Ok(disks);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

fn kernel_refuses(error: &std::io::Error) -> Problem {
    match error.raw_os_error() {
        Some(libc::EALREADY) => Problem::new(
            ErrorCode::InUse,
            "this host is connected to that subsystem already, and not by Lodge",
        )
        .with_hint("disconnect it with the tool that has made the connection"),
        _ => Problem::new(
            ErrorCode::TargetFailed,
            format!("the connection cannot be made: {error}"),
        )
        .with_hint("`lodge system log` has what the kernel says of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_has() {
        let pointer = |text: &str| {
            let problem = check(text.parse().unwrap(), "/address", "/port").err()?;
            problem.pointer
        };
        assert_eq!(pointer("10.0.0.5:4420"), None);
        assert_eq!(pointer("[fd00::5]:4420"), None);
        for wrong in ["0.0.0.0:4420", "[::]:4420", "224.0.0.1:4420"] {
            assert_eq!(pointer(wrong).as_deref(), Some("/address"), "{wrong}");
        }
        assert_eq!(pointer("10.0.0.5:0").as_deref(), Some("/port"));
    }
}
