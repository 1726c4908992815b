//! Reading a configuration, of which nothing is believed.

use std::collections::HashSet;

use lodge_api::configuration::{Configuration, ConfigurationRecord, FORMAT};
use lodge_api::{Name, Problem};
use lodge_host::seed::MacAddress;
use lodge_store::{Record, RecordError};

use super::CertificateCheck;
use crate::authorities::AuthorityRecord;
use crate::catalogue::{self, Object};
use crate::networks::NetworkRecord;
use crate::tokens::TokenRecord;
use crate::update::keys::{self, UpdateKeysRecord};
use crate::users::UserRecord;
use crate::vms::VmRecord;

/// A record, and where it is in the request.
#[derive(Debug, Clone)]
pub(super) struct Item<R> {
    /// JSON pointer.
    pub(super) at: String,
    pub(super) value: R,
}

impl<R> Item<R> {
    /// That something in the record cannot be taken; `field` is a pointer into its value.
    pub(super) fn invalid(&self, field: &str, detail: impl Into<String>) -> Problem {
        Problem::invalid(format!("{}/value{field}", self.at), detail)
    }

    /// A problem that somebody else has with it, whose pointer is one into the field.
    pub(super) fn blame(&self, field: &str, problem: Problem) -> Problem {
        let below = problem.pointer.clone().unwrap_or_default();
        problem.with_pointer(format!("{}/value{field}{below}", self.at))
    }
}

/// A configuration that was read.
pub(super) struct Contents {
    pub(super) hostname: String,
    /// Links of the host that it is from.
    pub(super) links: HashSet<MacAddress>,
    pub(super) users: Vec<Item<UserRecord>>,
    pub(super) tokens: Vec<Item<TokenRecord>>,
    pub(super) authorities: Vec<Item<AuthorityRecord>>,
    pub(super) update_keys: Option<Item<UpdateKeysRecord>>,
    pub(super) networks: Vec<Item<NetworkRecord>>,
    pub(super) vms: Vec<Item<VmRecord>>,
}

impl Contents {
    /// Reads all records, and checks what can be without looking at this host.
    pub(super) fn read(
        configuration: Configuration,
        check: CertificateCheck,
    ) -> Result<Self, Problem> {
        if configuration.format != FORMAT {
            let detail = format!("format {} is not known", configuration.format);
            return Err(Problem::invalid("/configuration/format", detail).with_hint(format!(
                "this release reads format {FORMAT}; restore it on the version of Lodge that wrote it"
            )));
        }
        let mut contents = Self {
            hostname: configuration.hostname,
            links: HashSet::new(),
            users: Vec::new(),
            tokens: Vec::new(),
            authorities: Vec::new(),
            update_keys: None,
            networks: Vec::new(),
            vms: Vec::new(),
        };
        for (number, link) in configuration.links.iter().enumerate() {
            let pointer = format!("/configuration/links/{number}/mac");
            let mac = link.mac.parse::<MacAddress>();
            let mac = mac.map_err(|error| Problem::invalid(pointer, error))?;
            contents.links.insert(mac);
        }
        let mut seen = HashSet::new();
        for (number, record) in configuration.records.into_iter().enumerate() {
            let at = format!("/configuration/records/{number}");
            if !seen.insert((record.table.clone(), record.key.clone())) {
                let detail = "there is a record with this table and key before it";
                return Err(Problem::invalid(format!("{at}/key"), detail)
                    .with_hint("leave one of the two out"));
            }
            contents.add(at, record)?;
        }
        contents.check(check)?;
        Ok(contents)
    }

    fn add(&mut self, at: String, record: ConfigurationRecord) -> Result<(), Problem> {
        match record.table.as_str() {
            UserRecord::TABLE => self.users.push(read_object(at, record)?),
            AuthorityRecord::TABLE => self.authorities.push(read_object(at, record)?),
            NetworkRecord::TABLE => self.networks.push(read_object(at, record)?),
            VmRecord::TABLE => self.vms.push(read_object(at, record)?),
            TokenRecord::TABLE => {
                let key = record.key.clone();
                let token = read::<TokenRecord>(at, record)?;
                check_key(&token, &key, &token.value.id.to_string())?;
                self.tokens.push(token);
            }
            UpdateKeysRecord::TABLE => {
                let key = record.key.clone();
                let item = read::<UpdateKeysRecord>(at, record)?;
                check_key(&item, &key, keys::KEY)?;
                self.update_keys = Some(item);
            }
            table => {
                let detail = format!("there is no table \"{}\"", catalogue::shown(table));
                return Err(Problem::invalid(format!("{at}/table"), detail).with_hint(
                    "known are users, tokens, authorities, update_keys, networks and vms",
                ));
            }
        }
        Ok(())
    }

    fn check(&mut self, check: CertificateCheck) -> Result<(), Problem> {
        unique_names(&self.users, "/name")?;
        unique_names(&self.authorities, "/name")?;
        unique_names(&self.networks, "/name")?;
        unique_names(&self.vms, "/spec/name")?;
        for item in &mut self.authorities {
            let fingerprint = check(&item.value.certificate)
                .map_err(|problem| item.invalid("/certificate", problem))?;
            item.value.fingerprint = fingerprint;
        }
        if let Some(item) = &self.update_keys {
            keys::check(&item.value.0).map_err(|mut problem| {
                // Its pointers are those of `PATCH /v1/system`.
                let pointer = problem.pointer.take().unwrap_or_default();
                let below = pointer.strip_prefix("/update_keys").unwrap_or_default();
                item.blame("", problem.with_pointer(below))
            })?;
        }
        Ok(())
    }
}

fn read<R: Record>(at: String, record: ConfigurationRecord) -> Result<Item<R>, Problem> {
    match lodge_store::from_json::<R>(record.schema, record.value) {
        Ok(value) => Ok(Item { at, value }),
        Err(error @ RecordError::Newer { .. }) => {
            Err(Problem::invalid(format!("{at}/schema"), error.to_string())
                .with_hint("restore it on the version of Lodge that wrote it, or a later one"))
        }
        Err(error) => Err(Problem::invalid(format!("{at}/value"), error.to_string())),
    }
}

fn read_object<O: Object>(at: String, record: ConfigurationRecord) -> Result<Item<O>, Problem> {
    let key = record.key.clone();
    let item = read::<O>(at, record)?;
    check_key(&item, &key, &item.value.id().to_string())?;
    Ok(item)
}

fn check_key<R>(item: &Item<R>, key: &str, expected: &str) -> Result<(), Problem> {
    if key == expected {
        return Ok(());
    }
    let detail = format!(
        "\"{}\" is not the key of this record",
        catalogue::shown(key)
    );
    Err(Problem::invalid(format!("{}/key", item.at), detail)
        .with_hint(format!("it is \"{expected}\"")))
}

fn unique_names<O: Object>(items: &[Item<O>], field: &str) -> Result<(), Problem> {
    let mut seen: HashSet<&Name> = HashSet::new();
    for item in items {
        let name = item.value.name();
        if !seen.insert(name) {
            let detail = format!("there is a {} \"{name}\" before it", O::KIND);
            return Err(item
                .invalid(field, detail)
                .with_hint("leave one of the two out"));
        }
    }
    Ok(())
}
