//! What every store does.

use std::collections::BTreeMap;

use lodge_store::{Batch, Precondition, Record, RecordError, SledStore, Store, StoreError};
use proptest::prelude::*;

use crate::table::{Item, Other, item, items, open};

#[test]
fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = Batch::new();
    batch.put("a", &item(1), Precondition::Absent).unwrap();
    batch
        .put("b", &Other { number: 2 }, Precondition::Absent)
        .unwrap();
    let revision = store.commit_blocking(batch).unwrap();
    assert_eq!(revision, 1);
    store.close();
    let store = open(directory.path());
    let snapshot = store.snapshot();
    assert_eq!(snapshot.revision(), 1);
    let found = snapshot.get::<Item>("a").unwrap().unwrap();
    assert_eq!((found.value, found.revision), (item(1), 1));
    assert_eq!(snapshot.get::<Other>("b").unwrap().unwrap().value.number, 2);
    assert!(snapshot.get::<Item>("b").unwrap().is_none());
}

#[test]
fn a_failed_precondition_undoes_the_whole_batch() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let put = |key: &str, number, precondition| {
        let mut batch = Batch::new();
        batch.put(key, &item(number), precondition).unwrap();
        batch
    };
    let first = store
        .commit_blocking(put("a", 1, Precondition::Absent))
        .unwrap();
    let mut batch = put("b", 2, Precondition::Any);
    batch.put("a", &item(3), Precondition::Absent).unwrap();
    let error = store.commit_blocking(batch).unwrap_err();
    assert!(
        matches!(&error, StoreError::Conflict { key, found: Some(1), .. } if key == "a"),
        "{error}"
    );
    assert_eq!(items(&store), [("a".to_owned(), 1)]);
    store
        .commit_blocking(put("a", 4, Precondition::Revision(first)))
        .unwrap();
    let error = store.commit_blocking(put("a", 5, Precondition::Revision(first)));
    assert!(matches!(error, Err(StoreError::Conflict { .. })));
    let error = store.commit_blocking(put("c", 5, Precondition::Present));
    assert!(matches!(error, Err(StoreError::Conflict { .. })));
    assert_eq!(items(&store), [("a".to_owned(), 4)]);
}

#[test]
fn a_snapshot_does_not_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = store.snapshot();
    let mut batch = Batch::new();
    batch.put("a", &item(1), Precondition::Any).unwrap();
    store.commit_blocking(batch).unwrap();
    assert_eq!(before.count::<Item>(), 0);
    assert_eq!(store.snapshot().count::<Item>(), 1);
}

#[test]
fn impossible_records_are_refused() {
    let big = Item {
        number: 1,
        text: "x".repeat(lodge_store::MAX_PAYLOAD),
    };
    let mut batch = Batch::new();
    let error = batch.put("a", &big, Precondition::Any).unwrap_err();
    assert!(matches!(error, RecordError::TooLarge { .. }));
    for key in ["", "a\0b", &"k".repeat(257)] {
        assert!(matches!(
            batch.put(key, &item(1), Precondition::Any),
            Err(RecordError::Key(_))
        ));
    }
    assert!(batch.is_empty());
}

#[test]
fn the_largest_records_stay_in_the_file_that_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..3 {
        for number in 0..60 {
            let big = Item {
                number: round,
                text: "x".repeat(lodge_store::MAX_PAYLOAD - 64),
            };
            let mut batch = Batch::new();
            // Out of order, so that pages split in the middle.
            let key = format!("{:03}", number * 37 % 60);
            batch.put(key, &big, Precondition::Any).unwrap();
            store.commit_blocking(batch).unwrap();
        }
    }
    store.close();
    let blobs = std::fs::read_dir(directory.path().join("sled/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

/// [`Item`] as an older release wrote it.
#[derive(serde::Serialize, serde::Deserialize)]
struct OldItem {
    count: u64,
}

impl Record for OldItem {
    const TABLE: &'static str = "migrating";
    const SCHEMA: u32 = 1;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct NewItem {
    number: u64,
}

impl Record for NewItem {
    const TABLE: &'static str = "migrating";
    const SCHEMA: u32 = 2;

    fn migrate(_schema: u32, mut value: serde_json::Value) -> Result<serde_json::Value, String> {
        value["number"] = value["count"].take();
        Ok(value)
    }
}

#[test]
fn older_records_are_migrated_and_newer_ones_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = Batch::new();
    batch
        .put("old", &OldItem { count: 7 }, Precondition::Any)
        .unwrap();
    batch
        .put("new", &NewItem { number: 8 }, Precondition::Any)
        .unwrap();
    store.commit_blocking(batch).unwrap();
    let snapshot = store.snapshot();
    assert_eq!(
        snapshot
            .get::<NewItem>("old")
            .unwrap()
            .unwrap()
            .value
            .number,
        7
    );
    assert!(matches!(
        snapshot.get::<OldItem>("new"),
        Err(RecordError::Newer {
            found: 2,
            known: 1,
            ..
        })
    ));
    assert_eq!(snapshot.list::<OldItem>().len(), 1, "the one it can read");
}

#[test]
fn only_one_process_has_it_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error}");
    drop(store);
    open(directory.path());
}

#[test]
fn many_writers_at_once_count_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let add_one = || loop {
        let found = store.snapshot().get::<Item>("counter").unwrap();
        let (number, precondition) = match found {
            None => (0, Precondition::Absent),
            Some(found) => (found.value.number, Precondition::Revision(found.revision)),
        };
        let mut batch = Batch::new();
        batch
            .put("counter", &item(number + 1), precondition)
            .unwrap();
        match store.commit_blocking(batch) {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| add_one()));
        }
    });
    assert_eq!(items(&store), [("counter".to_owned(), 80)]);
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Action>),
    Reopen,
    Export,
}

#[derive(Debug, Clone)]
enum Action {
    Put(u8, u64, Precondition),
    Delete(u8, Precondition),
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        6 => Just(Precondition::Any),
        1 => Just(Precondition::Absent),
        1 => Just(Precondition::Present),
        1 => (0..20_u64).prop_map(Precondition::Revision),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let key = 0..6_u8;
    prop_oneof![
        (key.clone(), any::<u64>(), precondition()).prop_map(|(k, n, p)| Action::Put(k, n, p)),
        (key, precondition()).prop_map(|(k, p)| Action::Delete(k, p)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(action(), 1..5).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Export),
    ]
}

type Model = BTreeMap<String, (u64, u64)>;

/// Whether the model lets the batch pass; applies it then.
fn apply(model: &mut Model, revision: u64, actions: &[Action]) -> bool {
    let found = |key: &u8| model.get(&key.to_string()).map(|(_, revision)| *revision);
    let holds = actions.iter().all(|action| match action {
        Action::Put(key, _, precondition) | Action::Delete(key, precondition) => {
            precondition.holds(found(key))
        }
    });
    if holds {
        for action in actions {
            match action {
                Action::Put(key, number, _) => {
                    model.insert(key.to_string(), (*number, revision));
                }
                Action::Delete(key, _) => {
                    model.remove(&key.to_string());
                }
            }
        }
    }
    holds
}

fn batch_of(actions: &[Action]) -> Batch {
    let mut batch = Batch::new();
    for action in actions {
        match action {
            Action::Put(key, number, precondition) => batch
                .put(key.to_string(), &item(*number), *precondition)
                .unwrap(),
            Action::Delete(key, precondition) => batch
                .delete::<Item>(key.to_string(), *precondition)
                .unwrap(),
        };
    }
    batch
}

fn contents(store: &SledStore) -> Model {
    let rows = store.snapshot().list::<Item>();
    rows.into_iter()
        .map(|(key, item)| (key, (item.value.number, item.revision)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_map_does(steps in prop::collection::vec(step(), 1..20)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let (mut model, mut revision) = (Model::new(), 0);
        let mut exported = None;
        for step in steps {
            match step {
                Step::Commit(actions) => {
                    let passes = apply(&mut model, revision + 1, &actions);
                    revision += u64::from(passes);
                    let result = store.commit_blocking(batch_of(&actions));
                    prop_assert_eq!(result.is_ok(), passes);
                    if let Ok(given) = result {
                        prop_assert_eq!(given, revision);
                    }
                }
                Step::Reopen => {
                    store.close();
                    store = open(directory.path());
                }
                Step::Export => exported = Some((store.export().unwrap(), model.clone())),
            }
            prop_assert_eq!(&contents(&store), &model);
            prop_assert_eq!(store.snapshot().revision(), revision);
        }
        if let Some((path, then)) = exported.filter(|(path, _)| path.exists()) {
            store.import(&path).unwrap();
            let numbers = |model: &Model| model.iter().map(|(k, v)| (k.clone(), v.0)).collect::<Vec<_>>();
            prop_assert_eq!(numbers(&contents(&store)), numbers(&then));
        }
    }
}

#[test]
fn what_a_batch_would_do_can_be_seen_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = Batch::new();
    batch.put("a", &item(1), Precondition::Absent).unwrap();
    batch.put("b", &item(2), Precondition::Absent).unwrap();
    store.commit_blocking(batch).unwrap();
    let before = store.snapshot();
    let mut batch = Batch::new();
    batch.put("a", &item(3), Precondition::Any).unwrap();
    batch.delete::<Item>("b", Precondition::Present).unwrap();
    batch.put("c", &item(4), Precondition::Absent).unwrap();
    let seen = before.after(&batch).list::<Item>();
    assert_eq!(before.count::<Item>(), 2);
    assert_eq!(items(&store).len(), 2);
    store.commit_blocking(batch).unwrap();
    assert_eq!(seen, store.snapshot().list::<Item>());
}

#[test]
fn json_of_an_older_release_is_brought_up_to_date() {
    let old = serde_json::json!({"count": 7});
    let migrated = lodge_store::from_json::<NewItem>(1, old).unwrap();
    let same = serde_json::to_value(&migrated).unwrap();
    let read = lodge_store::from_json::<NewItem>(NewItem::SCHEMA, same);
    assert!(read.is_ok());
    let error = lodge_store::from_json::<NewItem>(NewItem::SCHEMA + 1, serde_json::json!({}));
    assert!(matches!(error, Err(RecordError::Newer { .. })));
    let error = lodge_store::from_json::<NewItem>(NewItem::SCHEMA, serde_json::json!([]));
    assert!(matches!(error, Err(RecordError::Json { .. })));
}
