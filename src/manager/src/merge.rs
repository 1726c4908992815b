//! JSON merge patches (RFC 7396).

use lodge_api::Problem;
use lodge_api::vm::VmSpec;
use serde_json::Value;

/// Levels a patch may be nested: more than any configuration has.
const DEPTH: usize = 16;

/// `spec` with `patch` applied.
pub(crate) fn merged(spec: &VmSpec, patch: Value) -> Result<VmSpec, Problem> {
    if !patch.is_object() {
        return Err(Problem::invalid("", "a merge patch is a JSON object")
            .with_hint("send the fields to change, like {\"vcpus\": 2}"));
    }
    let mut json =
        serde_json::to_value(spec).map_err(|error| crate::core::internal(error.to_string()))?;
    apply(&mut json, patch, DEPTH);
    serde_json::from_value(json).map_err(|error| {
        Problem::invalid(
            "",
            format!("the patched configuration is not valid: {error}"),
        )
    })
}

fn apply(target: &mut Value, patch: Value, depth: usize) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if depth == 0 {
        // Reading the result refuses it, since nothing known is so deep.
        *target = Value::Object(patch);
        return;
    }
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            apply(fields.entry(name).or_insert(Value::Null), value, depth - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> VmSpec {
        serde_json::from_value(json!({
            "name": "web", "vcpus": 2, "description": "x",
            "boot": {"kernel": "k", "initrd": "i", "cmdline": "quiet"}
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_merged_and_nulls_go_back_to_the_default() {
        let patch = json!({"vcpus": 4, "description": null, "boot": {"initrd": null}});
        let merged = merged(&spec(), patch).unwrap();
        assert_eq!((merged.vcpus, merged.description.as_str()), (4, ""));
        assert_eq!(merged.boot.initrd, None);
        assert_eq!(merged.boot.cmdline.as_deref(), Some("quiet"));
    }

    #[test]
    fn nonsense_is_refused() {
        for patch in [
            json!([]),
            json!({"cpus": 2}),
            json!({"vcpus": "two"}),
            json!({"name": null}),
            json!({"boot": 7}),
        ] {
            assert!(merged(&spec(), patch.clone()).is_err(), "{patch}");
        }
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_standard() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut result = target;
            apply(&mut result, patch, DEPTH);
            assert_eq!(result, expected);
        }
    }
}
