//! The first start of another version: what the host must have with it, and what waits until it has.
//!
//! Guests that were saved for the update, and those that start with the host, wait. A version that does not come up has not touched them, and
//! with the one before, which comes back, they go on where they were.

use std::sync::atomic::Ordering;

use lodge_api::system::{Link, StorageHealth};
use lodge_api::{ErrorCode, Problem};
use lodge_host::install::{Environment, Home, Slot};
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};

use super::{named, own_version, problem};
use crate::config::ManagerConfig;
use crate::core::{Core, blocking};
use crate::{Manager, catalogue};

/// The only key of the table.
const KEY: &str = "before";

/// What the host had when another version was made the one that is tried next.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct BeforeRecord {
    /// MAC addresses of the network cards that had a signal.
    links: Vec<String>,
    /// Guests could run.
    kvm: bool,
}

impl Record for BeforeRecord {
    const TABLE: &'static str = "update_before";
    const SCHEMA: u32 = 1;
}

impl BeforeRecord {
    fn of(links: &[Link], kvm: bool) -> Self {
        let with_signal = links.iter().filter(|link| link.carrier);
        Self {
            links: with_signal.map(|link| link.mac.clone()).collect(),
            kvm,
        }
    }

    /// What is missing now, if anything is.
    fn missing(&self, links: &[Link], kvm: bool) -> Option<String> {
        if self.kvm && !kvm {
            return Some("guests cannot run any more".to_owned());
        }
        let there = |mac: &String| links.iter().any(|link| link.mac == *mac);
        if let Some(mac) = self.links.iter().find(|mac| !there(mac)) {
            return Some(format!("the network card {mac} is not there any more"));
        }
        let silent = !self.links.is_empty() && links.iter().all(|link| !link.carrier);
        silent.then(|| "no network card has a signal any more".to_owned())
    }
}

/// How this start of the host came about.
#[derive(Debug, Default)]
pub(crate) struct AtStart {
    /// What the host should know about an update that went wrong: to be said for as long as it is the newest.
    pub(crate) failed: Option<String>,
    /// The version that runs is on trial.
    pub(crate) trying: bool,
}

impl AtStart {
    /// Reads what GRUB has written down.
    pub(crate) fn read(config: &ManagerConfig) -> Self {
        if !config.appliance || Slot::started().is_none() {
            return Self::default();
        }
        let read = || {
            let home = Home::find(&config.run_dir.join("update")).ok()?;
            let environment = home.environment().ok()?;
            Some((home, environment))
        };
        read().map_or_else(Self::default, |(home, environment)| {
            Self::of(&home, environment)
        })
    }

    fn of(home: &Home, environment: Environment) -> Self {
        let tried = environment.trial.filter(|_| !environment.pending);
        Self {
            failed: tried
                .filter(|slot| *slot != home.started())
                .map(|slot| failed(home, slot)),
            trying: tried == Some(home.started()),
        }
    }
}

fn failed(home: &Home, trial: Slot) -> String {
    let version = home.contents(trial).map_or_else(
        |_| String::new(),
        |contents| format!("Lodge {}, ", contents.version),
    );
    let slot = named(trial).as_str();
    format!(
        "The last update did not work: {version}image {slot}, was started and did not come up, and image {} runs again.",
        named(home.started()).as_str()
    )
}

/// The refusal of changes while a version is on trial.
pub(crate) fn trying() -> Problem {
    Problem::new(
        ErrorCode::WrongState,
        "the host tries another version of Lodge, and nothing can be changed until it has shown that it works",
    )
    .with_hint("try again in some seconds; `lodge system images` says how far it is")
}

fn before(snapshot: &Snapshot) -> Option<BeforeRecord> {
    let found = snapshot.get::<BeforeRecord>(KEY);
    let found = found.inspect_err(|error| tracing::error!(%error, "what the host had before"));
    found.ok().flatten().map(|found| found.value)
}

impl Core {
    /// Writes down what the host has, before another version is tried.
    pub(super) async fn note_before(&self) -> Result<(), Problem> {
        let record = BeforeRecord::of(&self.links(), self.host.kvm.usable());
        let mut batch = Batch::new();
        batch
            .put(KEY, &record, Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        self.commit(batch).await.map(drop)
    }
}

impl Manager {
    /// What keeps the host from being healthy after an update: nothing, once all of it is there.
    ///
    /// # Errors
    /// What is missing.
    pub fn healthy(&self) -> Result<(), String> {
        let core = &self.core;
        if core.data_in_memory() {
            return Err("the data are in memory".to_owned());
        }
        if let Some(warning) = core.start_warnings.first() {
            return Err(warning.clone());
        }
        let storage = *core.storage_health.borrow();
        if matches!(storage, StorageHealth::ReadOnly | StorageHealth::Failed) {
            return Err("the data storage does not work".to_owned());
        }
        let links = core.links();
        let before = before(&core.snapshot()).unwrap_or_default();
        if let Some(missing) = before.missing(&links, core.host.kvm.usable()) {
            return Err(missing);
        }
        let plugged_in = links.iter().any(|link| link.carrier);
        if plugged_in && core.reachable().is_empty() {
            return Err("the network has no address".to_owned());
        }
        Ok(())
    }

    /// Makes the image that runs for a trial the one that is started from now on, and has guests go on. To be called when the host
    /// has come up; it does nothing where that was done before.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub async fn confirm_trial(&self) -> Result<(), Problem> {
        let core = &self.core;
        if !core.trying.load(Ordering::SeqCst) {
            return Ok(());
        }
        let home = core.home()?;
        let slot = home.started();
        let mounting = core.host_images.mounts.lock().await;
        blocking(move || {
            let works = Environment::only(slot);
            home.decide(works).map_err(|error| problem(&error))
        })
        .await?;
        drop(mounting);
        core.tell(format!(
            "Lodge {} works, and image {} is the one that starts from now on",
            own_version(),
            named(slot).as_str()
        ));
        let rest = core.resume_guests().await;
        core.trying.store(false, Ordering::SeqCst);
        core.boot_instead(rest).await;
        self.autostart().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mac: &str, carrier: bool) -> Link {
        Link {
            mac: mac.to_owned(),
            name: "eth0".to_owned(),
            driver: String::new(),
            carrier,
            speed_mbps: None,
            network: None,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn what_was_there_has_to_be_there() {
        let (one, other) = (
            link("52:54:00:00:00:01", true),
            link("52:54:00:00:00:02", false),
        );
        let before = BeforeRecord::of(&[one.clone(), other.clone()], true);
        let missing = |links: &[Link], kvm| before.missing(links, kvm).unwrap_or_default();
        assert_eq!(missing(&[one.clone(), other.clone()], true), "");
        // One that had no signal may be gone.
        assert_eq!(missing(std::slice::from_ref(&one), true), "");
        assert!(missing(std::slice::from_ref(&one), false).contains("guests cannot run"));
        assert!(missing(std::slice::from_ref(&other), true).contains("00:01 is not there"));
        assert!(missing(&[], true).contains("00:01 is not there"));
        let pulled = link(&one.mac, false);
        assert!(
            missing(std::slice::from_ref(&pulled), true).contains("no network card has a signal")
        );
        // Another cable is as good.
        let plugged = link(&other.mac, true);
        assert_eq!(missing(&[pulled, plugged], true), "");
    }

    #[test]
    fn nothing_was_there() {
        let before = BeforeRecord::of(&[link("52:54:00:00:00:01", false)], false);
        assert_eq!(before, BeforeRecord::default());
        assert_eq!(before.missing(&[], false), None);
    }
}
