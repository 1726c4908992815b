//! The two images of a disk.

use std::fs;

use super::Part;

/// Names the image on the kernel's command line.
const OPTION: &str = "lodge.image=";

/// On the kernel's command line when the image is tried for the first time.
const TRIAL: &str = "lodge.trial";

/// One of the two places for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Its partition.
    pub fn part(self) -> Part {
        match self {
            Self::A => Part::ImageA,
            Self::B => Part::ImageB,
        }
    }

    /// The one beside it.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its letter in the boot menu's environment.
    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// As the boot menu has it.
    pub(super) fn from_letter(letter: &str) -> Option<Self> {
        match letter {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }

    /// The image that this host was started from; `None` when it was started from something else than a disk it is installed on.
    pub fn started() -> Option<Self> {
        in_command_line(&fs::read_to_string("/proc/cmdline").ok()?)
    }
}

/// Whether the image that this host was started from has to show first that it works.
pub fn on_trial() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|text| says_trial(&text))
}

fn says_trial(text: &str) -> bool {
    text.split_whitespace().any(|word| word == TRIAL)
}

fn in_command_line(text: &str) -> Option<Slot> {
    let slot = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix(OPTION))?;
    Slot::from_letter(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_image() {
        assert_eq!(
            in_command_line("console=tty0 lodge.image=a "),
            Some(Slot::A)
        );
        assert_eq!(in_command_line("lodge.image=b lodge.trial"), Some(Slot::B));
        for other in [
            "",
            "quiet",
            "lodge.image=",
            "lodge.image=c",
            "xlodge.image=a",
        ] {
            assert_eq!(in_command_line(other), None, "{other}");
            assert!(!says_trial(other));
        }
        assert!(says_trial("lodge.image=b lodge.trial"));
        assert_eq!(Slot::A.other().letter(), "b");
    }
}
