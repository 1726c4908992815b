//! Configurations that nobody's host has written.

use std::collections::BTreeMap;

use crate::configuration::{any_certificate, furnished, restore, taken};
use crate::support::{Host, admin, within};
use lodge_api::configuration::{Configuration, ConfigurationRecord, ConfigurationRestore};
use lodge_api::page::ListParams;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::Manager;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Configurations that are made up.
const CASES: usize = 2000;

fn record<'a>(configuration: &'a mut Configuration, table: &str) -> &'a mut ConfigurationRecord {
    let mut records = configuration.records.iter_mut();
    records.find(|record| record.table == table).unwrap()
}

fn value<'a>(configuration: &'a mut Configuration, table: &str) -> &'a mut Value {
    &mut record(configuration, table).value
}

fn user<'a>(configuration: &'a mut Configuration, name: &str) -> &'a mut Value {
    let mut records = configuration.records.iter_mut();
    let found = records.find(|record| record.table == "users" && record.value["name"] == name);
    &mut found.unwrap().value
}

/// Where the record of a table is.
fn at(configuration: &Configuration, table: &str) -> String {
    let mut records = configuration.records.iter();
    let number = records.position(|record| record.table == table).unwrap();
    format!("/configuration/records/{number}")
}

fn network(uplink: &Value) -> ConfigurationRecord {
    let id = "a1b2c3d4-0000-4000-8000-000000000000";
    ConfigurationRecord {
        table: "networks".to_owned(),
        key: id.to_owned(),
        schema: 1,
        value: json!({"id": id, "name": "lan", "bridge": "lodge0", "uplink": uplink}),
    }
}

/// Refused as a preview and in earnest, with nothing changed.
async fn refused(manager: &Manager, configuration: &Configuration) -> Problem {
    let before = taken(manager).records;
    let preview = restore(manager, configuration, true).await.unwrap_err();
    let problem = restore(manager, configuration, false).await.unwrap_err();
    assert_eq!(problem, preview);
    assert_ne!(problem.code, ErrorCode::Internal, "{problem}");
    assert_eq!(taken(manager).records, before);
    problem
}

type Change = fn(&mut Configuration);

/// What is wrong, the table it is in, the pointer below its record and a part of what is said.
const WRONG: &[(Change, &str, &str, &str)] = &[
    (
        |all| record(all, "vms").table = "sessions".to_owned(),
        "sessions",
        "/table",
        "no table",
    ),
    (
        |all| record(all, "vms").schema = 99,
        "vms",
        "/schema",
        "schema 99",
    ),
    (
        |all| record(all, "vms").schema = 0,
        "vms",
        "/value",
        "no way from schema 0",
    ),
    (
        |all| record(all, "vms").key = "x".to_owned(),
        "vms",
        "/key",
        "not the key",
    ),
    (
        |all| *value(all, "vms") = json!([1, {"a": null}]),
        "vms",
        "/value",
        "",
    ),
    (
        |all| value(all, "vms")["spec"]["cpus"] = json!(1),
        "vms",
        "/value",
        "unknown field",
    ),
    (
        |all| value(all, "vms")["spec"]["name"] = json!("../web"),
        "vms",
        "/value",
        "not a valid name",
    ),
    (
        |all| value(all, "vms")["spec"]["vcpus"] = json!(0),
        "vms",
        "/value/spec/vcpus",
        "not possible",
    ),
    (
        |all| value(all, "vms")["spec"]["cpu"]["shares"] = json!(60_000),
        "vms",
        "/value/spec/cpu/shares",
        "not possible",
    ),
    (
        |all| value(all, "vms")["spec"]["nics"][0]["mac"] = json!("ff:ff:ff:ff:ff:ff"),
        "vms",
        "/value/spec/nics/0/mac",
        "",
    ),
    (
        |all| value(all, "vms")["spec"]["boot"]["cmdline"] = json!("x".repeat(3000)),
        "vms",
        "/value/spec/boot/cmdline",
        "too long",
    ),
    (
        |all| value(all, "tokens")["user_id"] = json!("a1b2c3d4-0000-4000-8000-000000000000"),
        "tokens",
        "/value/user_id",
        "no user",
    ),
    (
        |all| value(all, "tokens")["hash"] = json!("abc"),
        "tokens",
        "/value/hash",
        "no hash",
    ),
    (
        |all| value(all, "authorities")["certificate"] = json!("broken"),
        "authorities",
        "/value/certificate",
        "no certificate",
    ),
    (
        |all| value(all, "update_keys")[0] = json!("RWQ"),
        "update_keys",
        "/value/0",
        "",
    ),
    (
        |all| record(all, "update_keys").key = "other".to_owned(),
        "update_keys",
        "/key",
        "not the key",
    ),
    (
        |all| value(all, "users")["password_hash"] = json!("hunter2"),
        "users",
        "/value/password_hash",
        "no hash",
    ),
    (
        |all| {
            value(all, "users")["password_hash"] = json!(
                "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
            );
        },
        "users",
        "/value/password_hash",
        "at most",
    ),
];

#[tokio::test]
async fn what_is_wrong_is_pointed_at_and_changes_nothing() {
    let (host, _) = furnished().await;
    let manager = &host.manager;
    let sound = taken(manager);
    for (change, table, below, says) in WRONG {
        let mut configuration = sound.clone();
        change(&mut configuration);
        let expected = format!("{}{below}", at(&configuration, table));
        let problem = refused(manager, &configuration).await;
        let pointer = problem.pointer.as_deref();
        assert_eq!(pointer, Some(expected.as_str()), "{problem}");
        assert!(problem.detail.contains(says), "{problem}");
    }
    manager.close().await;
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let (host, _) = furnished().await;
    let manager = &host.manager;
    let sound = taken(manager);

    let mut unknown = sound.clone();
    unknown.format = 2;
    let problem = refused(manager, &unknown).await;
    assert_eq!(problem.pointer.as_deref(), Some("/configuration/format"));

    let mut twice = sound.clone();
    let web = record(&mut twice, "vms").clone();
    twice.records.push(web.clone());
    let last = twice.records.len() - 1;
    let problem = refused(manager, &twice).await;
    let key = format!("/configuration/records/{last}/key");
    assert_eq!(problem.pointer, Some(key));

    // The same under another id; then with another name, and the same address.
    let id = "a1b2c3d4-0000-4000-8000-000000000000";
    twice.records[last].key = id.to_owned();
    twice.records[last].value["id"] = json!(id);
    let problem = refused(manager, &twice).await;
    let name = format!("/configuration/records/{last}/value/spec/name");
    assert_eq!(problem.pointer, Some(name));
    twice.records[last].value["spec"]["name"] = json!("other");
    let problem = refused(manager, &twice).await;
    let mac = format!("/configuration/records/{last}/value/spec/nics/0/mac");
    assert_eq!(problem.pointer, Some(mac));

    let mut nobody = sound.clone();
    user(&mut nobody, "admin")["disabled"] = json!(true);
    let problem = refused(manager, &nobody).await;
    assert_eq!(problem.code, ErrorCode::WrongState);
    manager.close().await;
}

#[tokio::test]
async fn uplinks_are_those_of_this_host() {
    let (host, _) = furnished().await;
    let manager = &host.manager;
    let sound = taken(manager);
    let absent = "52:54:00:ff:ff:01";
    let with = |uplink: Value| {
        let mut configuration = sound.clone();
        configuration.records.push(network(&uplink));
        configuration
    };
    let last = format!("/configuration/records/{}", sound.records.len());
    let lan = with(json!({"kind": "mac", "mac": absent}));
    let problem = refused(manager, &lan).await;
    assert_eq!(problem.pointer, Some(format!("{last}/value/uplink")));
    assert!(problem.detail.contains(absent), "{problem}");
    assert!(problem.hint.unwrap().contains("--mac"));

    let auto = with(json!({"kind": "auto"}));
    let problem = refused(manager, &auto).await;
    assert_eq!(problem.pointer, Some(format!("{last}/value/uplink")));
    // One that has none needs the right to make networks, which this server has not.
    let problem = refused(manager, &with(json!({"kind": "isolated"}))).await;
    assert_eq!(problem.code, ErrorCode::WrongState);

    for (old, new, says) in [
        ("here", absent, "here: "),
        (absent, "there", "there: "),
        (absent, "52:54:00:ff:ff:02", "is no link of this host"),
        ("52:54:00:ff:ff:03", absent, "that the configuration is of"),
    ] {
        let restore = ConfigurationRestore {
            configuration: lan.clone(),
            macs: BTreeMap::from([(old.to_owned(), new.to_owned())]),
            preview: true,
        };
        let caller = admin();
        let restored = manager.configuration_restore(&caller, restore, any_certificate);
        let problem = restored.await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/macs"));
        assert!(problem.detail.contains(says), "{problem}");
    }
    manager.close().await;
}

/// Any JSON, with words that mean something more often than not.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("admin".to_owned()),
        Just("web".to_owned()),
        Just("default".to_owned()),
        Just("keys".to_owned()),
        Just("a1b2c3d4-0000-4000-8000-000000000000".to_owned()),
        Just("52:54:00:12:34:56".to_owned()),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(word.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts `new` somewhere below `value`, as `steps` lead; or makes of what is there something like it, which more often passes.
fn disturb(value: &mut Value, steps: &[usize], new: Option<Value>) {
    let below = match (steps, &mut *value) {
        ([step, rest @ ..], Value::Array(items)) if !items.is_empty() => {
            let step = step % items.len();
            Some((&mut items[step], rest))
        }
        ([step, rest @ ..], Value::Object(fields)) if !fields.is_empty() => {
            let step = step % fields.len();
            fields.values_mut().nth(step).map(|field| (field, rest))
        }
        _ => None,
    };
    match (below, new) {
        (Some((below, rest)), new) => disturb(below, rest, new),
        (None, Some(new)) => *value = new,
        (None, None) => vary(value, steps.len()),
    }
}

fn vary(value: &mut Value, by: usize) {
    match value {
        Value::Null => *value = json!(by),
        Value::Bool(is) => *is = !*is,
        Value::Number(_) => *value = json!(by << 20),
        Value::String(text) => text.push(char::from(b"a-0"[by % 3])),
        Value::Array(items) => items.extend(items.first().cloned()),
        Value::Object(fields) => {
            let name = fields.keys().nth(by % fields.len().max(1)).cloned();
            name.and_then(|name| fields.remove(&name));
        }
    }
}

#[tokio::test]
async fn whatever_comes_the_manager_answers_and_stays_sound() {
    let (first, _) = furnished().await;
    let sound = serde_json::to_value(taken(&first.manager)).unwrap();
    first.manager.close().await;
    let host = Host::new().await;
    let mut runner = TestRunner::default();
    let records = sound["records"].as_array().unwrap().len();
    let steps = vec(any::<usize>(), 0..8);
    let new = proptest::option::of(any_json());
    let strategy = (new, steps, any::<usize>(), any::<bool>());
    let (mut read, mut taken_over) = (0, 0);
    for case in 0..CASES {
        let case_of = strategy.new_tree(&mut runner).unwrap().current();
        let (new, steps, number, anywhere) = case_of;
        let mut json = sound.clone();
        let place = match anywhere && case % 4 == 0 {
            true => &mut json,
            false => &mut json["records"][number % records]["value"],
        };
        disturb(place, &steps, new);
        let Ok(configuration) = serde_json::from_value::<Configuration>(json.clone()) else {
            continue;
        };
        read += 1;
        let preview = case % 8 != 0;
        match within(restore(&host.manager, &configuration, preview)).await {
            Ok(_) => taken_over += usize::from(!preview),
            Err(problem) => assert_ne!(problem.code, ErrorCode::Internal, "{problem}: {json}"),
        }
    }
    assert!(read > CASES / 2, "{read}");
    assert!(taken_over > 0);
    // What was taken is as sound as what people make.
    let all = taken(&host.manager);
    let again = restore(&host.manager, &all, true).await.unwrap();
    let unchanged = |object: &lodge_api::configuration::RestoredObject| object.changes.is_empty();
    assert!(again.objects.iter().all(unchanged), "{again:?}");
    host.manager.vm_list(&ListParams::default()).unwrap();
    host.manager.close().await;
}
