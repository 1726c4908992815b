//! Certificate authorities that this host trusts beside the public ones, when it fetches content.

use jiff::Timestamp;
use lodge_api::authority::Authority;
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};

use crate::filter::{self, Field};
use crate::{Caller, Manager, catalogue};

/// Most authorities.
const MOST: usize = 32;

const FIELDS: &[Field] = &[("name", "/name"), ("fingerprint", "/fingerprint")];

/// An authority as stored, by its name.
#[derive(Clone, Serialize, Deserialize)]
struct AuthorityRecord {
    /// PEM.
    certificate: String,
    fingerprint: String,
    created_at: Timestamp,
}

impl Record for AuthorityRecord {
    const TABLE: &'static str = "authorities";
    const SCHEMA: u32 = 1;
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
        let records = self.core.snapshot().list::<AuthorityRecord>();
        let certificate = |(_, record): (String, _)| {
            let record: lodge_store::Versioned<AuthorityRecord> = record;
            record.value.certificate
        };
        records.into_iter().map(certificate).collect()
    }

    /// All of them. Filter fields: `name fingerprint`.
    ///
    /// # Errors
    /// `InvalidRequest` for wrong parameters.
    pub fn authority_list(&self, params: &ListParams) -> Result<Page<Authority>, Problem> {
        let all = views(&self.core.snapshot());
        filter::page(all, params, FIELDS, |authority| authority.name.to_string())
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
            let present = views(&core.snapshot());
            require_new(&present, &name, &certificate.fingerprint)?;
            let record = AuthorityRecord {
                certificate: certificate.pem,
                fingerprint: certificate.fingerprint,
                created_at: Timestamp::now(),
            };
            let mut batch = Batch::new();
            batch
                .put(name.as_str(), &record, Precondition::Absent)
                .map_err(|error| catalogue::record_problem(&error))?;
            core.commit(batch).await?;
            let view = view(name, record);
            core.make_known(
                &caller,
                "authority_create",
                path(&view.name),
                Change::Created,
            );
            Ok(view)
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
            let mut present = views(&core.snapshot()).into_iter();
            let found = present.find(|authority| authority.name.as_str() == key);
            let Some(Authority { name, .. }) = found else {
                return Err(Problem::not_found("authority", catalogue::shown(&key)));
            };
            let mut batch = Batch::new();
            batch
                .delete::<AuthorityRecord>(name.as_str(), Precondition::Present)
                .map_err(|error| catalogue::record_problem(&error))?;
            core.commit(batch).await?;
            core.make_known(&caller, "authority_delete", path(&name), Change::Deleted);
            Ok(())
        })
        .await
    }
}

fn require_new(present: &[Authority], name: &Name, fingerprint: &str) -> Result<(), Problem> {
    if present.iter().any(|other| other.name == *name) {
        let detail = format!("there is an authority \"{name}\" already");
        return Err(Problem::new(ErrorCode::AlreadyExists, detail)
            .with_pointer("/name")
            .with_hint("choose another name, or delete the other one first"));
    }
    if let Some(other) = present
        .iter()
        .find(|other| other.fingerprint == fingerprint)
    {
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

fn path(name: &Name) -> String {
    format!("/v1/authorities/{name}")
}

fn views(snapshot: &Snapshot) -> Vec<Authority> {
    let all = snapshot.list::<AuthorityRecord>().into_iter();
    // Nothing else was ever put there.
    all.filter_map(|(name, record)| Some(view(name.parse().ok()?, record.value)))
        .collect()
}

fn view(name: Name, record: AuthorityRecord) -> Authority {
    Authority {
        name,
        fingerprint: record.fingerprint,
        created_at: record.created_at,
    }
}
