//! What is different between two objects, field by field.

use std::collections::BTreeSet;

use lodge_api::configuration::{FieldChange, RestoreOutcome};
use serde_json::Value;

/// Stands where a part of what is shown is secret.
const HIDDEN: &str = "(not shown)";

/// What becomes of an object in whose place another comes, and what is different about it. What `secrets` lead to is not told.
pub(super) fn weigh(
    old: Option<&Value>,
    new: &Value,
    secrets: &[&str],
) -> (RestoreOutcome, Vec<FieldChange>) {
    let Some(old) = old else {
        return (RestoreOutcome::Added, Vec::new());
    };
    let changes = differences(old, new, secrets);
    match changes.is_empty() {
        true => (RestoreOutcome::Unchanged, changes),
        false => (RestoreOutcome::Replaced, changes),
    }
}

/// What is different in `new`. What `secrets`, JSON pointers, lead to is not told.
pub(super) fn differences(old: &Value, new: &Value, secrets: &[&str]) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare("", Some(old), Some(new), secrets, &mut found);
    found
}

fn compare(
    pointer: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    secrets: &[&str],
    found: &mut Vec<FieldChange>,
) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let pointer = format!("{pointer}/{}", escape(name));
                compare(&pointer, old.get(name), new.get(name), secrets, found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for number in 0..old.len().max(new.len()) {
                let pointer = format!("{pointer}/{number}");
                compare(&pointer, old.get(number), new.get(number), secrets, found);
            }
        }
        _ => {
            let secret = secrets.contains(&pointer);
            let shown = |value: Option<&Value>| {
                value
                    .filter(|_| !secret)
                    .map(|value| redacted(pointer, value, secrets))
            };
            found.push(FieldChange {
                pointer: pointer.to_owned(),
                old: shown(old),
                new: shown(new),
                secret,
            });
        }
    }
}

/// Without what is secret below.
fn redacted(pointer: &str, value: &Value, secrets: &[&str]) -> Value {
    let mut value = value.clone();
    for secret in secrets {
        let below = secret.strip_prefix(pointer);
        if let Some(hidden) = below.and_then(|below| value.pointer_mut(below)) {
            *hidden = HIDDEN.into();
        }
    }
    value
}

/// A name as a step of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_told_one_by_one() {
        let old =
            json!({"vcpus": 1, "boot": {"kernel": "a"}, "disks": [{"disk": "x"}], "same": [1]});
        let new = json!({"vcpus": 2, "boot": {"kernel": "a", "initrd": "i"}, "same": [1],
            "disks": [{"disk": "y"}, {"disk": "z"}]});
        let told: Vec<_> = differences(&old, &new, &[])
            .into_iter()
            .map(|change| (change.pointer, change.old, change.new))
            .collect();
        assert_eq!(
            told,
            [
                ("/boot/initrd".to_owned(), None, Some(json!("i"))),
                (
                    "/disks/0/disk".to_owned(),
                    Some(json!("x")),
                    Some(json!("y"))
                ),
                ("/disks/1".to_owned(), None, Some(json!({"disk": "z"}))),
                ("/vcpus".to_owned(), Some(json!(1)), Some(json!(2))),
            ]
        );
        assert!(differences(&old, &old, &[]).is_empty());
    }

    #[test]
    fn secrets_are_not_told() {
        let secrets = ["/password", "/cloud_init/user_data"];
        let old = json!({"password": "a", "cloud_init": null});
        let new = json!({"password": "b", "cloud_init": {"user_data": "secret", "hostname": "h"}});
        let told = differences(&old, &new, &secrets);
        assert_eq!(told.len(), 2);
        let hidden = json!({"user_data": HIDDEN, "hostname": "h"});
        assert_eq!((&told[0].new, told[0].secret), (&Some(hidden), false));
        assert_eq!((&told[1].old, &told[1].new), (&None, &None));
        assert!(told[1].secret);
    }
}
