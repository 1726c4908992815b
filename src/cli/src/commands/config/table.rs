//! What becomes different, for people.

use lodge_api::configuration::{
    ConfigurationKind, ConfigurationRestored, RestoreOutcome, RestoredObject,
};
use lodge_client::ClientError;
use serde_json::Value;

use crate::output::{self, Format};

/// Longest value in the table, in characters.
const WIDEST: usize = 48;

/// A line of the table.
#[derive(serde::Serialize)]
struct Row {
    cells: [String; 6],
}

/// Shows what becomes of every object that does not stay as it is, and what to know about it.
pub(super) fn show(restored: &ConfigurationRestored) -> Result<(), ClientError> {
    let objects = restored.objects.iter();
    let objects = objects.filter(|object| object.outcome != RestoreOutcome::Unchanged);
    let rows: Vec<Row> = objects.flat_map(rows).collect();
    if !rows.is_empty() {
        let head = ["KIND", "NAME", "BECOMES", "FIELD", "IS", "WILL BE"];
        output::list(Format::Table, &rows, &head, |row| row.cells.to_vec())?;
    }
    for warning in &restored.warnings {
        println!("WARNING: {}", plain(warning));
    }
    println!("{}", counts(restored));
    Ok(())
}

fn rows(object: &RestoredObject) -> Vec<Row> {
    let begin = |field: String, old: String, new: String| Row {
        cells: [
            kind(object.kind).to_owned(),
            plain(&object.name),
            outcome(object.outcome).to_owned(),
            field,
            old,
            new,
        ],
    };
    if object.changes.is_empty() {
        return vec![begin(String::new(), String::new(), String::new())];
    }
    let changes = object.changes.iter().map(|change| {
        let shown = |value: Option<&Value>| match (change.secret, value) {
            (true, _) => "(not shown)".to_owned(),
            (false, None) => "-".to_owned(),
            (false, Some(Value::String(text))) => short(text),
            (false, Some(value)) => short(&value.to_string()),
        };
        begin(
            plain(&change.pointer),
            shown(change.old.as_ref()),
            shown(change.new.as_ref()),
        )
    });
    changes.collect()
}

fn kind(kind: ConfigurationKind) -> &'static str {
    match kind {
        ConfigurationKind::Host => "host",
        ConfigurationKind::User => "user",
        ConfigurationKind::Token => "token",
        ConfigurationKind::Authority => "authority",
        ConfigurationKind::UpdateKeys => "update keys",
        ConfigurationKind::Network => "network",
        ConfigurationKind::Vm => "VM",
    }
}

fn outcome(outcome: RestoreOutcome) -> &'static str {
    match outcome {
        RestoreOutcome::Added => "added",
        RestoreOutcome::Replaced => "replaced",
        RestoreOutcome::Unchanged => "unchanged",
        RestoreOutcome::Kept => "kept",
    }
}

/// How many objects that becomes of.
pub(super) fn count(restored: &ConfigurationRestored, outcome: RestoreOutcome) -> usize {
    let objects = restored.objects.iter();
    objects.filter(|object| object.outcome == outcome).count()
}

/// How many of each, in one line.
pub(super) fn counts(restored: &ConfigurationRestored) -> String {
    let all = [
        RestoreOutcome::Added,
        RestoreOutcome::Replaced,
        RestoreOutcome::Unchanged,
        RestoreOutcome::Kept,
    ];
    let counts = all.map(|each| format!("{} {}", count(restored, each), outcome(each)));
    counts.join(", ")
}

/// Without what a terminal would take for a command.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}

fn short(text: &str) -> String {
    let mut short: String = plain(text).chars().take(WIDEST).collect();
    if text.chars().nth(WIDEST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_change_has_a_line() {
        let object: RestoredObject = serde_json::from_value(json!({
            "kind": "user", "name": "anna", "outcome": "replaced", "changes": [
                {"pointer": "/role", "old": "viewer", "new": "operator"},
                {"pointer": "/password", "secret": true},
                {"pointer": "/text", "old": "x".repeat(60), "new": "a\u{1b}[2Jb"},
            ]
        }))
        .unwrap();
        let lines: Vec<String> = rows(&object)
            .iter()
            .map(|row| row.cells.join("|"))
            .collect();
        assert_eq!(lines[0], "user|anna|replaced|/role|viewer|operator");
        assert_eq!(
            lines[1],
            "user|anna|replaced|/password|(not shown)|(not shown)"
        );
        let long = "x".repeat(WIDEST);
        assert_eq!(lines[2], format!("user|anna|replaced|/text|{long}…|a [2Jb"));
    }

    #[test]
    fn what_becomes_of_objects_is_counted() {
        let object = |outcome| RestoredObject {
            kind: ConfigurationKind::Vm,
            name: "web".to_owned(),
            outcome,
            changes: Vec::new(),
        };
        let restored = ConfigurationRestored {
            preview: true,
            objects: [
                RestoreOutcome::Kept,
                RestoreOutcome::Added,
                RestoreOutcome::Added,
            ]
            .map(object)
            .to_vec(),
            warnings: Vec::new(),
        };
        assert_eq!(
            counts(&restored),
            "2 added, 0 replaced, 0 unchanged, 1 kept"
        );
    }
}
