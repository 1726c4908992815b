//! Lists: filtering, and one page after another.

use std::cmp::Ordering;

use lodge_api::Problem;
use lodge_api::page::{ListParams, Page};
use serde::Serialize;
use serde_json::Value;

/// Objects on a page unless asked otherwise.
const DEFAULT_LIMIT: u32 = 100;

/// Most objects on a page.
const MAX_LIMIT: u32 = 1000;

/// Longest filter, in bytes.
const MAX_FILTER: usize = 1024;

/// A field that can be filtered by: its name, and where it lies in the object's JSON form.
pub(crate) type Field = (&'static str, &'static str);

/// Cuts one page out of `items`, which are ordered by `key`.
pub(crate) fn page<T: Serialize>(
    items: Vec<T>,
    params: &ListParams,
    fields: &[Field],
    key: impl Fn(&T) -> String,
) -> Result<Page<T>, Problem> {
    cut(items, params, fields, key, Ordering::Greater)
}

/// [`page`] for `items` in the opposite order.
pub(crate) fn page_newest_first<T: Serialize>(
    items: Vec<T>,
    params: &ListParams,
    fields: &[Field],
    key: impl Fn(&T) -> String,
) -> Result<Page<T>, Problem> {
    cut(items, params, fields, key, Ordering::Less)
}

/// `later` is how the key of a later item compares to that of an earlier one.
fn cut<T: Serialize>(
    items: Vec<T>,
    params: &ListParams,
    fields: &[Field],
    key: impl Fn(&T) -> String,
    later: Ordering,
) -> Result<Page<T>, Problem> {
    let limit = match params.limit {
        None => DEFAULT_LIMIT,
        Some(limit @ 1..=MAX_LIMIT) => limit,
        Some(limit) => {
            return Err(
                Problem::invalid("?limit", format!("{limit} is out of range"))
                    .with_hint(format!("give 1 to {MAX_LIMIT}")),
            );
        }
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let filter = Filter::parse(params.filter.as_deref().unwrap_or(""), fields)?;
    let last = params.page.as_deref().map(decode).transpose()?;
    let mut rest = items
        .into_iter()
        // The last item of the page before may be gone.
        .skip_while(|item| {
            last.as_ref()
                .is_some_and(|last| key(item).cmp(last) != later)
        })
        .filter(|item| filter.matches(item));
    let mut items = Vec::new();
    items.extend(rest.by_ref().take(limit));
    let next_page = match (rest.next(), items.last()) {
        (Some(_), Some(last)) => Some(encode(&key(last))),
        _ => None,
    };
    Ok(Page { items, next_page })
}

/// A token is the key of the last item, in hexadecimal so that nobody builds one by hand.
fn encode(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(token: &str) -> Result<String, Problem> {
    let bad = || {
        Problem::invalid("?page", "not a page token of this list")
            .with_hint("give the `next_page` of the page before as it is")
    };
    if token.len() > 512 || !token.len().is_multiple_of(2) || !token.is_ascii() {
        return Err(bad());
    }
    let bytes = (0..token.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&token[at..at + 2], 16))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad())?;
    String::from_utf8(bytes).map_err(|_| bad())
}

/// A parsed filter: comparisons that must all hold.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    comparisons: Vec<Comparison>,
}

#[derive(Debug, PartialEq, Eq)]
struct Comparison {
    /// JSON pointer into the object.
    pointer: &'static str,
    equal: bool,
    value: String,
}

impl Filter {
    fn parse(text: &str, fields: &[Field]) -> Result<Self, Problem> {
        let known = fields
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ");
        let bad = |detail: String| {
            Problem::invalid("?filter", detail).with_hint(format!(
                "write `FIELD eq VALUE` or `FIELD ne VALUE`, joined by `and`; fields: {known}"
            ))
        };
        if text.len() > MAX_FILTER {
            return Err(bad(format!("longer than {MAX_FILTER} bytes")));
        }
        let words = words(text).map_err(bad)?;
        let mut comparisons = Vec::new();
        let mut rest = words.as_slice();
        while let [field, operator, value, tail @ ..] = rest {
            let pointer = fields
                .iter()
                .find(|(name, _)| name == field)
                .map(|(_, pointer)| *pointer)
                .ok_or_else(|| {
                    bad(format!(
                        "there is no field \"{}\"",
                        crate::catalogue::shown(field)
                    ))
                })?;
            let equal = match operator.as_str() {
                "eq" => true,
                "ne" => false,
                other => {
                    let other = crate::catalogue::shown(other);
                    return Err(bad(format!("there is no comparison \"{other}\"")));
                }
            };
            comparisons.push(Comparison {
                pointer,
                equal,
                value: value.clone(),
            });
            rest = match tail {
                [] => return Ok(Self { comparisons }),
                [and, more @ ..] if and == "and" && !more.is_empty() => more,
                _ => return Err(bad("expected `and` and another comparison".to_owned())),
            };
        }
        if rest.is_empty() {
            Ok(Self { comparisons })
        } else {
            Err(bad("a comparison has three words".to_owned()))
        }
    }

    fn matches<T: Serialize>(&self, item: &T) -> bool {
        if self.comparisons.is_empty() {
            return true;
        }
        let Ok(json) = serde_json::to_value(item) else {
            return false;
        };
        self.comparisons
            .iter()
            .all(|comparison| comparison.holds(&json))
    }
}

impl Comparison {
    fn holds(&self, json: &Value) -> bool {
        let found = json.pointer(self.pointer).unwrap_or(&Value::Null);
        let equal = match found {
            Value::String(text) => *text == self.value,
            // Absent and empty are the same to a person.
            Value::Null => self.value.is_empty(),
            // Numbers and truth values, as JSON writes them.
            other => self.value == format!("{other}"),
        };
        equal == self.equal
    }
}

/// Splits at blanks, except inside double quotes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = characters.next() else {
            return Ok(words);
        };
        let mut word = String::new();
        if first == '"' {
            loop {
                match characters.next() {
                    None => return Err("a double quote is not closed".to_owned()),
                    Some('"') => break,
                    Some('\\') => word.extend(characters.next()),
                    Some(other) => word.push(other),
                }
            }
        } else {
            word.push(first);
            while let Some(next) = characters.next_if(|c| !c.is_whitespace()) {
                word.push(next);
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const FIELDS: &[Field] = &[
        ("name", "/name"),
        ("state", "/status/state"),
        ("size", "/size"),
    ];

    fn holds(filter: &str, item: &Value) -> bool {
        Filter::parse(filter, FIELDS).unwrap().matches(item)
    }

    #[test]
    fn comparisons_hold_or_not() {
        let item = json!({"name": "web 1", "status": {"state": "running"}, "size": 7});
        assert!(holds("", &item));
        assert!(holds("state eq running and name ne \"web-1\"", &item));
        assert!(holds(" name  eq \"web 1\" ", &item));
        assert!(holds("size eq 7", &item));
        assert!(!holds("size ne 7", &item));
        assert!(!holds("state eq running and size eq 8", &item));
        assert!(holds("name eq \"\"", &json!({})));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (filter, part) in [
            ("name", "three words"),
            ("name eq", "three words"),
            ("name is x", "no comparison \"is\""),
            ("colour eq red", "no field \"colour\""),
            ("name eq x or size eq 7", "expected `and`"),
            ("name eq x and", "expected `and`"),
            ("name eq \"x", "not closed"),
        ] {
            let problem = Filter::parse(filter, FIELDS).unwrap_err();
            assert!(problem.detail.contains(part), "{filter}: {problem}");
            assert_eq!(problem.pointer.as_deref(), Some("?filter"));
            assert!(problem.hint.unwrap().contains("state"));
        }
    }

    fn pages(all: &[u32], limit: u32, descending: bool) -> Vec<u32> {
        let key = |item: &u32| format!("{item:05}");
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        if descending {
            sorted.reverse();
        }
        let mut seen = Vec::new();
        let mut params = ListParams {
            limit: Some(limit),
            ..ListParams::default()
        };
        loop {
            let list = sorted.clone();
            let page = if descending {
                page_newest_first(list, &params, &[], key)
            } else {
                page(list, &params, &[], key)
            }
            .unwrap();
            assert!(page.items.len() <= limit as usize);
            seen.extend(page.items);
            // What was shown last may be deleted before the next page is asked for.
            if let Some(last) = seen.last().filter(|last| *last % 3 == 0) {
                sorted.retain(|item| item != last);
            }
            match page.next_page {
                None => return seen,
                token => params.page = token,
            }
        }
    }

    proptest! {
        #[test]
        fn every_item_is_on_one_page(
            all in prop::collection::btree_set(0..1000_u32, 0..60),
            limit in 1..10_u32,
            descending: bool,
        ) {
            let mut all: Vec<u32> = all.into_iter().collect();
            let seen = pages(&all, limit, descending);
            if descending {
                all.reverse();
            }
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn nothing_a_caller_sends_panics(filter in ".{0,60}", token in ".{0,40}") {
            let params = ListParams { limit: None, page: Some(token), filter: Some(filter) };
            let _ = page(vec![1, 2], &params, FIELDS, |item: &i32| item.to_string());
        }
    }

    #[test]
    fn limits_are_bounded() {
        for limit in [0, 1001] {
            let params = ListParams {
                limit: Some(limit),
                ..ListParams::default()
            };
            let problem = page(vec![1], &params, &[], |item: &i32| item.to_string()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("?limit"));
        }
    }
}
