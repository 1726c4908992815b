//! The two images of a disk.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use super::Part;

/// Names the image on the kernel's command line.
const OPTION: &str = "lodge.image=";
/// On the kernel's command line of an image that is tried for the first time.
const TRIAL: &str = "lodge.trial";

/// One of the two places for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its partition.
    pub fn part(self) -> Part {
        match self {
            Self::A => Part::ImageA,
            Self::B => Part::ImageB,
        }
    }

    /// As the boot menu has it.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(super) fn from_letter(letter: &str) -> Option<Self> {
        match letter {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }

    /// The image that this host was started from, and whether it is on trial; `None` when it was started from something
    /// else than a disk it is installed on.
    pub fn started() -> Option<(Self, bool)> {
        in_command_line(&fs::read_to_string("/proc/cmdline").ok()?)
    }
}

fn in_command_line(text: &str) -> Option<(Slot, bool)> {
    let slot = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix(OPTION))?;
    let trial = text.split_whitespace().any(|word| word == TRIAL);
    Some((Slot::from_letter(slot)?, trial))
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_image() {
        assert_eq!(
            in_command_line("console=tty0 lodge.image=a "),
            Some((Slot::A, false))
        );
        assert_eq!(
            in_command_line("lodge.image=b lodge.trial"),
            Some((Slot::B, true))
        );
        for other in [
            "",
            "quiet",
            "lodge.image=",
            "lodge.image=c",
            "xlodge.image=a",
        ] {
            assert_eq!(in_command_line(other), None, "{other}");
        }
    }
}
