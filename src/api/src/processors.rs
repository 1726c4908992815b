//! Sets of a host's processors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The highest number a processor can have: Linux on x86-64 knows 8192 of them.
const HIGHEST: u16 = 8191;

/// Some of a host's processors, at least one, by the numbers that its kernel gives them: `0-3,8`.
///
/// Read in any order, written in order and as short as it gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Processors {
    /// The first and the last of each run, in order, with a gap between runs.
    runs: Vec<(u16, u16)>,
}

/// A text that names no [`Processors`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" are no processors: write their numbers, 0 to {HIGHEST}, like 0-3,8")]
pub struct ProcessorsError(String);

impl Processors {
    /// How many there are.
    pub fn count(&self) -> u32 {
        let lengths = self.runs.iter().map(|(first, last)| last - first + 1);
        lengths.map(u32::from).sum()
    }

    /// Their numbers, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.runs.iter().flat_map(|&(first, last)| first..=last)
    }

    /// Those that `others` has not; `None` when it has all.
    #[must_use]
    pub fn without(&self, others: &Self) -> Option<Self> {
        let has = |number: u16| {
            let within = |&(first, last): &(u16, u16)| (first..=last).contains(&number);
            others.runs.iter().any(within)
        };
        let left = self.numbers().filter(|&number| !has(number));
        Self::joined(left.map(|number| (number, number)).collect())
    }

    /// Runs in any order, as one set; `None` when there are none.
    fn joined(mut runs: Vec<(u16, u16)>) -> Option<Self> {
        runs.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in runs {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        (!joined.is_empty()).then_some(Self { runs: joined })
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok()?;
    (digits && number <= HIGHEST).then_some(number)
}

fn run(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some((first, last))
}

impl FromStr for Processors {
    type Err = ProcessorsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let runs: Option<Vec<_>> = text.split(',').map(run).collect();
        runs.and_then(Self::joined).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            ProcessorsError(shown.escape_debug().to_string())
        })
    }
}

impl TryFrom<String> for Processors {
    type Error = ProcessorsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Processors> for String {
    fn from(processors: Processors) -> Self {
        processors.to_string()
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs.iter().map(|&(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        f.pad(&runs.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Processors {
        text.parse().unwrap()
    }

    #[test]
    fn are_written_in_order_and_short() {
        for (text, written) in [
            ("0", "0"),
            ("8,0-3", "0-3,8"),
            ("3,2,1,0", "0-3"),
            ("0-2,1-5,6", "0-6"),
            (" 1 , 3 - 4 ", "1,3-4"),
            ("0-8191", "0-8191"),
            ("5,5,5", "5"),
            ("2-9,3-4", "2-9"),
        ] {
            assert_eq!(read(text).to_string(), written);
            assert_eq!(read(written), read(text));
        }
        assert_eq!(read("0-3,8").count(), 5);
        assert_eq!(read("1-2,7").numbers().collect::<Vec<_>>(), [1, 2, 7]);
    }

    #[test]
    fn what_others_have_not_is_left() {
        let left = |text: &str, others: &str| {
            let left = read(text).without(&read(others));
            left.map(|left| left.to_string())
        };
        assert_eq!(left("0-3,8", "0-7").as_deref(), Some("8"));
        assert_eq!(left("0-9", "3,5-6").as_deref(), Some("0-2,4,7-9"));
        assert_eq!(left("0-3", "0-3"), None);
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "", ",", "0,", "-1", "1-", "3-1", "0-8192", "65536", "a", "+1", "1--2", "0x1", "1;2",
            "all", "٣",
        ] {
            let error = bad.parse::<Processors>().unwrap_err().to_string();
            assert!(error.contains("like 0-3,8"), "{bad:?}: {error}");
        }
    }
}
