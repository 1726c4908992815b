//! Certificate authorities that this host trusts beside the public ones, when it fetches content.

use jiff::Timestamp;
use lodge_api::authority::Authority;
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Record, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::filter::Field;
use crate::{Caller, Manager};

/// Most authorities.
pub(crate) const MOST: usize = 32;

const FIELDS: &[Field] = &[("name", "/name"), ("fingerprint", "/fingerprint")];

/// An authority as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AuthorityRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    /// PEM.
    pub(crate) certificate: String,
    pub(crate) fingerprint: String,
    pub(crate) created_at: Timestamp,
}

impl Record for AuthorityRecord {
    const TABLE: &'static str = "authorities";
    const SCHEMA: u32 = 1;
}

impl Object for AuthorityRecord {
    const KIND: &'static str = "certificate authority";
    const PATH: &'static str = "authorities";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

/// A certificate that was looked at.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// As PEM.
    pub pem: String,
    /// Its SHA-256.
    pub fingerprint: String,
}

impl Manager {
    /// The certificates of all authorities, as PEM.
    pub fn authority_certificates(&self) -> Vec<String> {
        let records = catalogue::list::<AuthorityRecord>(&self.core.snapshot()).into_iter();
        records.map(|record| record.value.certificate).collect()
    }

    /// All of them. Filter fields: `name fingerprint`.
    ///
    /// # Errors
    /// `InvalidRequest` for wrong parameters.
    pub fn authority_list(&self, params: &ListParams) -> Result<Page<Authority>, Problem> {
        let view = |record: &Versioned<AuthorityRecord>| view(&record.value);
        catalogue::page(&self.core.snapshot(), params, FIELDS, view, |authority| {
            &authority.name
        })
    }

    /// Trusts another one.
    ///
    /// # Errors
    /// `AlreadyExists`, `InsufficientResources`.
    pub async fn authority_create(
        &self,
        caller: &Caller,
        name: Name,
        certificate: Certificate,
    ) -> Result<Authority, Problem> {
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let _changing = core.catalogue.lock().await;
            let snapshot = core.snapshot();
            catalogue::require_free::<AuthorityRecord>(&snapshot, &name)?;
            require_room(&catalogue::list(&snapshot), &certificate.fingerprint)?;
            let record = AuthorityRecord {
                id: Uuid::now_v7(),
                name,
                certificate: certificate.pem,
                fingerprint: certificate.fingerprint,
                created_at: Timestamp::now(),
            };
            let mut batch = Batch::new();
            catalogue::insert(&mut batch, &record)?;
            core.commit(batch).await?;
            core.make_known(
                &caller,
                "authority_create",
                record.target(),
                Change::Created,
            );
            Ok(view(&record))
        })
        .await
    }

    /// Trusts one no longer.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn authority_delete(&self, caller: &Caller, key: &str) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let _changing = core.catalogue.lock().await;
            let record = catalogue::find::<AuthorityRecord>(&core.snapshot(), &key)?;
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &record)?;
            core.commit(batch).await?;
            let target = record.value.target();
            core.make_known(&caller, "authority_delete", target, Change::Deleted);
            Ok(())
        })
        .await
    }
}

/// Refuses a certificate that is there already, and one too many.
fn require_room(present: &[Versioned<AuthorityRecord>], fingerprint: &str) -> Result<(), Problem> {
    let mut records = present.iter().map(|record| &record.value);
    if let Some(other) = records.find(|other| other.fingerprint == fingerprint) {
        let detail = format!("it is there already, as \"{}\"", other.name);
        return Err(Problem::new(ErrorCode::AlreadyExists, detail).with_pointer("/certificate"));
    }
    if present.len() >= MOST {
        let detail = format!("a host trusts at most {MOST} authorities");
        return Err(Problem::new(ErrorCode::InsufficientResources, detail)
            .with_hint("delete those that are not used"));
    }
    Ok(())
}

fn view(record: &AuthorityRecord) -> Authority {
    Authority {
        name: record.name.clone(),
        fingerprint: record.fingerprint.clone(),
        created_at: record.created_at,
    }
}
