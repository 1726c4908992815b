//! The host's configuration as a whole: given out to be kept elsewhere, and brought here from this or another host.
//!
//! Objects are matched by their names. One that is there already keeps its id, and what is only here stays. Whatever comes in is
//! checked as if somebody had just made it; then all of it becomes durable at once, or nothing of it.

mod absent;
mod carry_out;
mod differences;
mod file;
mod networks;
mod plan;
mod tokens;
mod users;
mod vms;

use jiff::Timestamp;
use lodge_api::Problem;
use lodge_api::configuration::{
    Configuration, ConfigurationLink, ConfigurationRecord, ConfigurationRestore,
    ConfigurationRestored, FORMAT,
};
use lodge_store::{Record, Snapshot};

use self::file::Contents;
use self::plan::Planner;
use crate::authorities::AuthorityRecord;
use crate::catalogue::HOST;
use crate::core::{blocking, internal};
use crate::networks::NetworkRecord;
use crate::tokens::TokenRecord;
use crate::update::keys::UpdateKeysRecord;
use crate::users::UserRecord;
use crate::vms::VmRecord;
use crate::{Caller, Manager};

/// Looks at an authority's certificate, as PEM: answers its fingerprint, or for a person what is wrong with it.
pub type CertificateCheck = fn(&str) -> Result<String, String>;

impl Manager {
    /// All that is configured here, with hashes of passwords and secrets.
    ///
    /// # Errors
    /// `Internal` when a record cannot be read: without it, this would be no backup.
    pub fn configuration_view(&self, caller: &Caller) -> Result<Configuration, Problem> {
        let core = &self.core;
        let snapshot = core.snapshot();
        let mut records = Vec::new();
        add::<UserRecord>(&mut records, &snapshot)?;
        add::<TokenRecord>(&mut records, &snapshot)?;
        add::<AuthorityRecord>(&mut records, &snapshot)?;
        add::<UpdateKeysRecord>(&mut records, &snapshot)?;
        add::<NetworkRecord>(&mut records, &snapshot)?;
        add::<VmRecord>(&mut records, &snapshot)?;
        let links = core.links().into_iter();
        caller.audit("configuration_view", HOST);
        Ok(Configuration {
            format: FORMAT,
            lodge: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: Timestamp::now(),
            hostname: core.hostname.get(),
            links: links
                .filter(|link| !link.mac.is_empty())
                .map(|link| ConfigurationLink {
                    name: link.name,
                    mac: link.mac,
                })
                .collect(),
            records,
        })
    }

    /// Brings a configuration here, or with `preview` only says what would become different. `check` looks at certificates.
    ///
    /// # Errors
    /// `InvalidRequest` with a pointer to what cannot be taken, `InUse` when a network is to have another uplink while guests run on
    /// it, `WrongState` when nobody could administrate afterwards; nothing has changed then.
    pub async fn configuration_restore(
        &self,
        caller: &Caller,
        restore: ConfigurationRestore,
        check: CertificateCheck,
    ) -> Result<ConfigurationRestored, Problem> {
        let ConfigurationRestore {
            configuration,
            macs,
            preview,
        } = restore;
        let contents = Contents::read(configuration, check)?;
        let (core, caller) = (self.core.clone(), caller.clone());
        if preview {
            return blocking(move || {
                let plan = Planner::new(&core, caller.user).plan(contents, &macs)?;
                Ok(plan.report(true))
            })
            .await;
        }
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let _changing = core.catalogue.lock().await;
            let (planning, user) = (core.clone(), caller.user.clone());
            let plan =
                blocking(move || Planner::new(&planning, user).plan(contents, &macs)).await?;
            core.carry_out(&caller, plan).await
        })
        .await
    }
}

/// Adds all records of a table.
fn add<R: Record>(
    records: &mut Vec<ConfigurationRecord>,
    snapshot: &Snapshot,
) -> Result<(), Problem> {
    let all = snapshot.list::<R>();
    if all.len() != snapshot.count::<R>() {
        let detail = format!(
            "a record of the table {} cannot be read; the host's log says more",
            R::TABLE
        );
        return Err(internal(detail));
    }
    for (key, record) in all {
        records.push(ConfigurationRecord {
            table: R::TABLE.to_owned(),
            key,
            schema: R::SCHEMA,
            value: serde_json::to_value(&record.value)
                .map_err(|error| internal(error.to_string()))?,
        });
    }
    Ok(())
}
