//! GRUB's environment block: 1024 bytes in a file that GRUB writes in place (GRUB manual 2.06, section 17).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Slot;

const SIZE: usize = 1024;
const HEAD: &str = "# GRUB Environment Block\n";

/// Which image starts next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// The one known to work.
    pub slot: Slot,
    /// One that an update has written and that has not shown yet that it works.
    pub trial: Option<Slot>,
    /// Whether that one will be started next.
    pub pending: bool,
}

impl Environment {
    /// One image starts, and none is tried.
    pub fn only(slot: Slot) -> Self {
        Self {
            slot,
            trial: None,
            pending: false,
        }
    }

    /// Reads the block.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut block = [0; SIZE];
        File::open(path)?.read_exact_at(&mut block, 0)?;
        Self::parse(&block).ok_or_else(|| io::Error::other("not an environment block"))
    }

    /// Writes the block in place, in one piece: GRUB knows where it lies.
    ///
    /// # Errors
    /// From the filesystem.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        file.write_all_at(&self.render(), 0)?;
        file.sync_all()
    }

    fn parse(block: &[u8; SIZE]) -> Option<Self> {
        let text = std::str::from_utf8(block).ok()?.strip_prefix(HEAD)?;
        let values: BTreeMap<&str, &str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .collect();
        let slot = |name| {
            values
                .get(name)
                .and_then(|letter| Slot::from_letter(letter))
        };
        let trial = slot("trial");
        Some(Self {
            slot: slot("slot").unwrap_or(Slot::A),
            trial,
            pending: trial.is_some() && values.get("tries") == Some(&"1"),
        })
    }

    fn render(&self) -> [u8; SIZE] {
        let mut text = format!("{HEAD}slot={}\n", self.slot.letter());
        if let Some(trial) = self.trial {
            let tries = u8::from(self.pending);
            text += &format!("trial={}\ntries={tries}\n", trial.letter());
        }
        // What is left is filled with this.
        let mut block = [b'#'; SIZE];
        block[..text.len()].copy_from_slice(text.as_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn grub_reads_what_is_written_and_the_other_way_round() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let grub = |arguments: &[&str]| {
            let ran = Command::new("grub-editenv")
                .arg(file.path())
                .args(arguments)
                .output();
            let ran = ran.expect("grub-editenv, of the package grub-common");
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap()
        };
        grub(&["create"]);
        let mut environment = Environment::read(file.path()).unwrap();
        let first = Environment {
            slot: Slot::A,
            trial: None,
            pending: false,
        };
        assert_eq!(environment, first);
        environment.trial = Some(Slot::B);
        environment.pending = true;
        environment.write(file.path()).unwrap();
        assert_eq!(grub(&["list"]), "slot=a\ntrial=b\ntries=1\n");
        grub(&["set", "tries=0"]);
        environment.pending = false;
        assert_eq!(Environment::read(file.path()).unwrap(), environment);
        grub(&["set", "slot=x", "trial="]);
        assert_eq!(Environment::read(file.path()).unwrap(), first);
    }

    #[test]
    fn other_files_are_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Environment::read(file.path()).is_err());
        file.as_file().set_len(1024).unwrap();
        assert!(Environment::read(file.path()).is_err());
    }
}
