//! A table for the tests.

use lodge_store::{Opened, Record, SledStore, Store};
use serde::{Deserialize, Serialize};

/// What the tests store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub number: u64,
    pub text: String,
}

impl Record for Item {
    const TABLE: &'static str = "items";
    const SCHEMA: u32 = 1;
}

/// The same in another table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    pub number: u64,
}

impl Record for Other {
    const TABLE: &'static str = "others";
    const SCHEMA: u32 = 1;
}

pub fn item(number: u64) -> Item {
    Item {
        number,
        text: format!("item {number}"),
    }
}

pub fn open(directory: &std::path::Path) -> SledStore {
    let Opened { store, warnings } = SledStore::open(directory).expect("open");
    assert_eq!(warnings, Vec::<String>::new());
    store
}

pub fn items(store: &SledStore) -> Vec<(String, u64)> {
    store
        .snapshot()
        .list::<Item>()
        .into_iter()
        .map(|(key, item)| (key, item.value.number))
        .collect()
}
