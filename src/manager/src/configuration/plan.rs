//! What is to become of every object, before anything is changed.

use std::collections::{BTreeMap, HashMap, HashSet};

use lodge_api::configuration::{
    ConfigurationKind, ConfigurationRestored, FieldChange, RestoreOutcome, RestoredObject,
};
use lodge_api::event::Change;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::hostname;
use lodge_store::{Batch, Precondition, Snapshot, Versioned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::differences::{differences, weigh};
use super::file::{Contents, Item};
use super::networks::NetworkStep;
use crate::authorities::{self, AuthorityRecord};
use crate::catalogue::{self, HOST, Object};
use crate::core::Core;
use crate::update::keys::{self, UpdateKeysRecord};
use crate::vms::VmRecord;

/// All that is to be done.
#[derive(Default)]
pub(super) struct Plan {
    /// What becomes durable, but for networks, whose bridges are not known yet.
    pub(super) batch: Batch,
    pub(super) networks: Vec<NetworkStep>,
    /// Guests that are new.
    pub(super) made: Vec<VmRecord>,
    /// Guests as they were and as they become.
    pub(super) changed: Vec<(VmRecord, VmRecord)>,
    /// The host's name, if it becomes another.
    pub(super) hostname: Option<String>,
    /// Whether the random password of the first boot is in force no more.
    pub(super) initial_password_ends: bool,
    /// What is told to everybody.
    pub(super) known: Vec<(String, Change)>,
    pub(super) warnings: Vec<String>,
    objects: Vec<RestoredObject>,
}

impl Plan {
    /// What the caller hears.
    pub(super) fn report(mut self, preview: bool) -> ConfigurationRestored {
        self.objects
            .sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        ConfigurationRestored {
            preview,
            objects: self.objects,
            warnings: self.warnings,
        }
    }
}

/// An object as people see it.
pub(super) trait Shown: Object {
    /// What it is called in the answer.
    const SHOWN_AS: ConfigurationKind;

    /// What of it nobody is to see.
    const SECRETS: &'static [&'static str] = &[];

    /// What can be different about it.
    fn shown(&self) -> Value;
}

impl Shown for AuthorityRecord {
    const SHOWN_AS: ConfigurationKind = ConfigurationKind::Authority;

    fn shown(&self) -> Value {
        json!({"fingerprint": self.fingerprint})
    }
}

/// The objects of a kind that are on this host.
pub(super) struct Here<O> {
    by_name: HashMap<Name, Versioned<O>>,
    ids: HashSet<Uuid>,
}

impl<O: Object> Here<O> {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let all = catalogue::list::<O>(snapshot);
        Self {
            ids: all.iter().map(|object| object.value.id()).collect(),
            by_name: all
                .into_iter()
                .map(|object| (object.value.name().clone(), object))
                .collect(),
        }
    }

    /// What an object of the configuration takes the place of, and the id it gets: that of the one here, else its own, unless
    /// another object has it.
    pub(super) fn place(&self, object: &O) -> (Option<&Versioned<O>>, Uuid) {
        let old = self.by_name.get(object.name());
        let id = match old {
            Some(old) => old.value.id(),
            None if self.ids.contains(&object.id()) => Uuid::now_v7(),
            None => object.id(),
        };
        (old, id)
    }

    /// The one of that name, if there is one.
    pub(super) fn named(&self, name: &str) -> Option<&Versioned<O>> {
        self.by_name
            .values()
            .find(|object| object.value.name().as_str() == name)
    }

    /// Those that no object of the configuration takes the place of.
    pub(super) fn others<'a>(
        &'a self,
        items: &'a [Item<O>],
    ) -> impl Iterator<Item = &'a Versioned<O>> {
        let names: HashSet<&Name> = items.iter().map(|item| item.value.name()).collect();
        let all = self.by_name.values();
        all.filter(move |object| !names.contains(object.value.name()))
    }
}

/// Makes the plan.
pub(super) struct Planner<'a> {
    pub(super) core: &'a Core,
    pub(super) snapshot: Snapshot,
    /// Who asks for it.
    pub(super) user: Name,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) fn new(core: &'a Core, user: Name) -> Self {
        Self {
            core,
            snapshot: core.snapshot(),
            user,
            plan: Plan::default(),
        }
    }

    /// The plan, or why none is possible.
    pub(super) fn plan(
        mut self,
        contents: Contents,
        macs: &BTreeMap<String, String>,
    ) -> Result<Plan, Problem> {
        self.name_host(&contents.hostname)?;
        let users = self.users(&contents.users)?;
        self.tokens(&contents.tokens, &users)?;
        self.authorities(&contents.authorities)?;
        self.update_keys(contents.update_keys)?;
        self.networks(&contents.networks, &contents.links, macs)?;
        self.vms(&contents.vms)?;
        Ok(self.plan)
    }

    /// Notes what becomes of an object.
    pub(super) fn note(
        &mut self,
        kind: ConfigurationKind,
        name: impl Into<String>,
        outcome: RestoreOutcome,
        changes: Vec<FieldChange>,
    ) {
        self.plan.objects.push(RestoredObject {
            kind,
            name: name.into(),
            outcome,
            changes,
        });
    }

    /// Notes what becomes of an object that takes the place of `old`, and answers whether anything does.
    pub(super) fn weigh<O: Shown>(&mut self, old: Option<&O>, new: &O) -> bool {
        let before = old.map(Shown::shown);
        let (outcome, changes) = weigh(before.as_ref(), &new.shown(), O::SECRETS);
        self.note(O::SHOWN_AS, new.name().as_str(), outcome, changes);
        match outcome {
            RestoreOutcome::Added => self.plan.known.push((new.target(), Change::Created)),
            RestoreOutcome::Replaced => self.plan.known.push((new.target(), Change::Changed)),
            RestoreOutcome::Unchanged | RestoreOutcome::Kept => return false,
        }
        true
    }

    /// Records an object in the place of `old`, and answers whether it is another.
    pub(super) fn put<O: Shown, R>(
        &mut self,
        item: &Item<R>,
        old: Option<&Versioned<O>>,
        new: &O,
    ) -> Result<bool, Problem> {
        if !self.weigh(old.map(|old| &old.value), new) {
            return Ok(false);
        }
        let batch = &mut self.plan.batch;
        let put = match old {
            None => catalogue::insert(batch, new),
            Some(old) => catalogue::replace(batch, old, new),
        };
        put.map_err(|problem| item.blame("", problem))?;
        Ok(true)
    }

    /// Notes what is on this host only.
    pub(super) fn keep<O: Shown>(&mut self, here: &Here<O>, items: &[Item<O>]) {
        for object in here.others(items) {
            let name = object.value.name().as_str();
            self.note(O::SHOWN_AS, name, RestoreOutcome::Kept, Vec::new());
        }
    }

    fn name_host(&mut self, name: &str) -> Result<(), Problem> {
        let before = self.core.hostname.get();
        if !self.core.config.appliance {
            if name != before {
                self.plan.warnings.push(format!(
                    "the host stays \"{before}\": this server runs on an ordinary Linux host, whose name it does not set"
                ));
            }
            return Ok(());
        }
        let name = hostname::normalize(name)
            .map_err(|problem| Problem::invalid("/configuration/hostname", problem))?;
        let (old, new) = (json!({"hostname": before}), json!({"hostname": name}));
        let (outcome, changes) = weigh(Some(&old), &new, &[]);
        if outcome == RestoreOutcome::Replaced {
            self.plan.hostname = Some(name.clone());
        }
        self.note(ConfigurationKind::Host, name, outcome, changes);
        Ok(())
    }

    fn authorities(&mut self, items: &[Item<AuthorityRecord>]) -> Result<(), Problem> {
        let here = Here::<AuthorityRecord>::of(&self.snapshot);
        let mut known: HashMap<String, Name> = here
            .others(items)
            .map(|other| (other.value.fingerprint.clone(), other.value.name.clone()))
            .collect();
        for item in items {
            let (old, id) = here.place(&item.value);
            let created_at = old.map_or(item.value.created_at, |old| old.value.created_at);
            let new = AuthorityRecord {
                id,
                created_at,
                ..item.value.clone()
            };
            if let Some(other) = known.insert(new.fingerprint.clone(), new.name.clone()) {
                let detail = format!("it is there already, as \"{other}\"");
                return Err(item.invalid("/certificate", detail));
            }
            self.put(item, old, &new)?;
        }
        if known.len() > authorities::MOST {
            let most = authorities::MOST;
            let detail = format!("a host trusts at most {most} authorities");
            return Err(Problem::new(ErrorCode::InsufficientResources, detail)
                .with_pointer("/configuration/records")
                .with_hint("delete those of this host that are not used"));
        }
        self.keep(&here, items);
        Ok(())
    }

    fn update_keys(&mut self, item: Option<Item<UpdateKeysRecord>>) -> Result<(), Problem> {
        let before = keys::trusted(&self.snapshot);
        let outcome = match &item {
            None if before.is_empty() => return Ok(()),
            None => RestoreOutcome::Kept,
            Some(item) if item.value.0 == before => RestoreOutcome::Unchanged,
            Some(_) if before.is_empty() => RestoreOutcome::Added,
            Some(_) => RestoreOutcome::Replaced,
        };
        let mut changes = Vec::new();
        if let Some(item) = item.filter(|item| item.value.0 != before) {
            let (old, new) = (
                json!({"update_keys": before}),
                json!({"update_keys": item.value.0}),
            );
            changes = differences(&old, &new, &[]);
            let put = self
                .plan
                .batch
                .put(keys::KEY, &item.value, Precondition::Any);
            put.map_err(|error| item.blame("", catalogue::record_problem(&error)))?;
            self.plan.known.push((HOST.to_owned(), Change::Changed));
        }
        let kind = ConfigurationKind::UpdateKeys;
        self.note(kind, "update-keys", outcome, changes);
        Ok(())
    }
}
