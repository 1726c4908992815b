//! Objects with names: finding them, and keeping names unique while they change.

use std::collections::HashSet;

use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Record, RecordError, Snapshot, StoreError, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::IfMatch;
use crate::filter::{self, Field};

/// Names that are shown of those in the way.
const SHOWN: usize = 10;

/// A record of a table keyed by id, found by name as well.
pub(crate) trait Object: Record {
    /// What it is called in messages: `disk`.
    const KIND: &'static str;

    /// First part of its path: `disks`.
    const PATH: &'static str;

    /// Its identity.
    fn id(&self) -> Uuid;

    /// Its name.
    fn name(&self) -> &Name;

    /// Its path, for events and operations.
    fn target(&self) -> String {
        target::<Self>(self.name())
    }
}

/// The path of the host itself, of which there is one.
pub(crate) const HOST: &str = "/v1/system";

/// The path of an object of that name.
pub(crate) fn target<O: Object>(name: &Name) -> String {
    format!("{}/{}/{name}", lodge_api::ROOT, O::PATH)
}

/// A taken name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) id: Uuid,
}

impl Record for NameRecord {
    const TABLE: &'static str = "names";
    const SCHEMA: u32 = 1;
}

fn name_key<O: Object>(name: &Name) -> String {
    format!("{}/{name}", O::KIND)
}

/// The name that was given to an id, whether or not its object is there.
pub(crate) fn name_given<O: Object>(snapshot: &Snapshot, id: Uuid) -> Option<Name> {
    names::<O>(snapshot)
        .find(|(_, given)| *given == id)
        .and_then(|(name, _)| name.parse().ok())
}

/// Names of objects of a kind, and whose they are.
fn names<O: Object>(snapshot: &Snapshot) -> impl Iterator<Item = (String, Uuid)> {
    let kind = format!("{}/", O::KIND);
    let all = snapshot.list::<NameRecord>().into_iter();
    all.filter_map(move |(key, record)| {
        Some((key.strip_prefix(&kind)?.to_owned(), record.value.id))
    })
}

/// After records were lost: names that nothing has are free again, and objects have theirs.
pub(crate) fn mend_names<O: Object>(batch: &mut Batch, snapshot: &Snapshot) -> Result<(), Problem> {
    let objects = list::<O>(snapshot);
    let owner = |name: &str, id: Uuid| {
        objects
            .iter()
            .any(|object| object.value.id() == id && object.value.name().as_str() == name)
    };
    let mut taken: HashSet<String> = HashSet::new();
    let mut step = || -> Result<(), RecordError> {
        for (name, id) in names::<O>(snapshot) {
            if owner(&name, id) {
                taken.insert(name);
            } else {
                batch.delete::<NameRecord>(format!("{}/{name}", O::KIND), Precondition::Any)?;
            }
        }
        for object in &objects {
            // Of two that have the same name, as one is older than the other, one is found by its id alone.
            if taken.insert(object.value.name().to_string()) {
                let name = NameRecord {
                    id: object.value.id(),
                };
                batch.put(name_key::<O>(object.value.name()), &name, Precondition::Any)?;
            }
        }
        Ok(())
    };
    step().map_err(|error| record_problem(&error))
}

/// The object of that name or id.
pub(crate) fn find<O: Object>(snapshot: &Snapshot, key: &str) -> Result<Versioned<O>, Problem> {
    find_optional(snapshot, key)?.ok_or_else(|| Problem::not_found(O::KIND, shown(key)))
}

/// Whether an object is recorded no more. One that cannot be read is there.
pub(crate) fn is_gone<O: Object>(snapshot: &Snapshot, id: Uuid) -> bool {
    matches!(find_optional::<O>(snapshot, &id.to_string()), Ok(None))
}

/// The object of that name or id, if there is one.
pub(crate) fn find_optional<O: Object>(
    snapshot: &Snapshot,
    key: &str,
) -> Result<Option<Versioned<O>>, Problem> {
    let id = match key.parse::<Uuid>() {
        Ok(id) => id,
        Err(_) => {
            let Ok(name) = key.parse::<Name>() else {
                return Ok(None);
            };
            match get::<NameRecord>(snapshot, &name_key::<O>(&name))? {
                Some(record) => record.value.id,
                None => return Ok(None),
            }
        }
    };
    get::<O>(snapshot, &id.to_string())
}

/// A record by its key.
pub(crate) fn get<R: Record>(
    snapshot: &Snapshot,
    key: &str,
) -> Result<Option<Versioned<R>>, Problem> {
    snapshot
        .get::<R>(key)
        .map_err(|error| record_problem(&error))
}

/// All objects of a kind, by name.
pub(crate) fn list<O: Object>(snapshot: &Snapshot) -> Vec<Versioned<O>> {
    let mut all: Vec<_> = snapshot
        .list::<O>()
        .into_iter()
        .map(|(_, object)| object)
        .collect();
    all.sort_by(|a, b| a.value.name().cmp(b.value.name()));
    all
}

/// A page of a kind's objects as the API shows them, by `name`.
pub(crate) fn page<O: Object, T: Serialize>(
    snapshot: &Snapshot,
    params: &ListParams,
    fields: &[Field],
    view: impl Fn(&Versioned<O>) -> T,
    name: impl Fn(&T) -> &Name,
) -> Result<Page<T>, Problem> {
    let views = list(snapshot).iter().map(view).collect();
    filter::page(views, params, fields, |view| name(view).to_string())
}

/// Refuses a name that is taken.
pub(crate) fn require_free<O: Object>(snapshot: &Snapshot, name: &Name) -> Result<(), Problem> {
    match find_optional::<O>(snapshot, name.as_str())? {
        None => Ok(()),
        Some(_) => Err(name_taken(O::KIND, name.as_str())),
    }
}

fn name_taken(kind: &str, name: &str) -> Problem {
    Problem::new(
        ErrorCode::AlreadyExists,
        format!("there is already a {kind} \"{name}\""),
    )
    .with_pointer("/name")
    .with_hint("choose another name, or delete the other one first")
}

/// Refuses when the object is not at the revision the caller knows.
pub(crate) fn check_match(revision: u64, if_match: IfMatch) -> Result<(), Problem> {
    match if_match {
        IfMatch::Any => Ok(()),
        IfMatch::Revision(expected) if expected == revision => Ok(()),
        IfMatch::Revision(expected) => Err(Problem::new(
            ErrorCode::PreconditionFailed,
            format!("the object has revision {revision}, not {expected}"),
        )
        .with_hint("read it again and repeat your change")),
    }
}

/// Adds a new object.
pub(crate) fn insert<O: Object>(batch: &mut Batch, object: &O) -> Result<(), Problem> {
    let name = NameRecord { id: object.id() };
    batch
        .put(name_key::<O>(object.name()), &name, Precondition::Absent)
        .and_then(|batch| batch.put(object.id().to_string(), object, Precondition::Absent))
        .map_err(|error| record_problem(&error))?;
    Ok(())
}

/// Replaces an object, renaming it where the name differs.
pub(crate) fn replace<O: Object>(
    batch: &mut Batch,
    old: &Versioned<O>,
    new: &O,
) -> Result<(), Problem> {
    let step = || -> Result<(), RecordError> {
        if old.value.name() != new.name() {
            let name = NameRecord { id: new.id() };
            batch.put(name_key::<O>(new.name()), &name, Precondition::Absent)?;
            batch.delete::<NameRecord>(name_key::<O>(old.value.name()), Precondition::Present)?;
        }
        batch.put(
            new.id().to_string(),
            new,
            Precondition::Revision(old.revision),
        )?;
        Ok(())
    };
    let mut step = step;
    step().map_err(|error| record_problem(&error))
}

/// Removes an object.
pub(crate) fn remove<O: Object>(batch: &mut Batch, old: &Versioned<O>) -> Result<(), Problem> {
    batch
        .delete::<NameRecord>(name_key::<O>(old.value.name()), Precondition::Present)
        .and_then(|batch| {
            batch.delete::<O>(
                old.value.id().to_string(),
                Precondition::Revision(old.revision),
            )
        })
        .map_err(|error| record_problem(&error))?;
    Ok(())
}

/// What a refused commit means to the caller.
pub(crate) fn store_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::Conflict {
            table,
            key,
            expected: Precondition::Absent,
            ..
        } if table == NameRecord::TABLE => {
            let (kind, name) = key.split_once('/').unwrap_or(("object", key));
            name_taken(kind, name)
        }
        StoreError::Conflict { .. } => Problem::new(
            ErrorCode::PreconditionFailed,
            "the object was changed or deleted meanwhile",
        )
        .with_hint("read it again and repeat your change"),
        StoreError::NoSpace => Problem::new(
            ErrorCode::NoSpace,
            "the host's data storage has no space left; nothing was changed",
        )
        .with_hint("delete images or disks that are not needed"),
        StoreError::Record(error) => record_problem(error),
        StoreError::Closed => shutting_down(),
        other => {
            tracing::error!(error = %other, "the store failed");
            Problem::new(ErrorCode::Internal, format!("the store failed: {other}"))
        }
    }
}

/// The refusal of everything during a shutdown.
pub(crate) fn shutting_down() -> Problem {
    Problem::new(ErrorCode::ShuttingDown, "the host is shutting down")
}

pub(crate) fn record_problem(error: &RecordError) -> Problem {
    match error {
        RecordError::TooLarge { .. } => Problem::new(ErrorCode::PayloadTooLarge, error.to_string())
            .with_hint("shorten descriptions and command lines"),
        other => Problem::new(ErrorCode::Internal, other.to_string()),
    }
}

/// Names in a message, as many as can be read: `a, b and 3 more`.
pub(crate) fn listed(names: &[Name]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(Name::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A name or id as it may be repeated in a message.
pub(crate) fn shown(key: &str) -> String {
    key.chars()
        .take(80)
        .collect::<String>()
        .escape_debug()
        .to_string()
}
