//! The dialog that puts Lodge on a disk of the host.

use crossterm::event::{KeyCode, KeyEvent};
use lodge_api::install::{HostDisk, Install};

/// Longest text that is typed: longer than any serial number.
const LONGEST: usize = 128;

/// What the dialog shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Installer {
    /// The disks; `None` until the host has told.
    pub(crate) disks: Option<Vec<HostDisk>>,
    /// The one under the bar.
    pub(crate) selected: usize,
    /// The identity of the disk, typed once more because it is not blank; `None` while one is chosen.
    pub(crate) typed: Option<String>,
    /// What was wrong last.
    pub(crate) error: Option<String>,
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The dialog stays.
    Stay,
    /// It is done with.
    Install(Install),
}

impl Installer {
    /// The disk under the bar.
    pub(crate) fn disk(&self) -> Option<&HostDisk> {
        self.disks.as_ref()?.get(self.selected)
    }

    /// The host has told what disks it has, or why not.
    pub(crate) fn take_disks(&mut self, disks: Result<Vec<HostDisk>, String>) {
        match disks {
            Ok(disks) => self.disks = Some(disks),
            Err(error) => self.error = Some(error),
        }
    }

    /// Takes in a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Outcome {
        let Some(disk) = self.disk().cloned() else {
            return Outcome::Stay;
        };
        let identity = disk.identity().to_owned();
        let request = |erase| {
            Outcome::Install(Install {
                disk: identity.clone(),
                erase,
            })
        };
        self.error = None;
        let Some(typed) = &mut self.typed else {
            match key.code {
                KeyCode::Enter => match &disk.in_use {
                    Some(reason) => self.error = Some(reason.clone()),
                    None if disk.contents.is_empty() => return request(false),
                    None => self.typed = Some(String::new()),
                },
                code => self.choose(code),
            }
            return Outcome::Stay;
        };
        match key.code {
            KeyCode::Char(c) if typed.len() < LONGEST => typed.push(c),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Enter if *typed == identity => return request(true),
            KeyCode::Enter => {
                typed.clear();
                self.error = Some(format!("That is not {identity}"));
            }
            KeyCode::Up | KeyCode::Down => self.typed = None,
            _ => {}
        }
        Outcome::Stay
    }

    fn choose(&mut self, code: KeyCode) {
        let last = self
            .disks
            .as_ref()
            .map_or(0, |disks| disks.len().saturating_sub(1));
        match code {
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyModifiers;

    use super::*;

    fn disk(name: &str, contents: &[&str], in_use: Option<&str>) -> HostDisk {
        serde_json::from_value(serde_json::json!({
            "name": name, "serial": format!("S-{name}"), "model": "ACME", "size": 1 << 30, "rotational": false,
            "removable": false, "contents": contents, "in_use": in_use,
        }))
        .unwrap()
    }

    fn press(installer: &mut Installer, code: KeyCode) -> Outcome {
        installer.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn a_disk_that_is_not_blank_is_named_once_more() {
        let mut installer = Installer::default();
        assert_eq!(press(&mut installer, KeyCode::Enter), Outcome::Stay);
        installer.take_disks(Ok(vec![
            disk("sda", &[], Some("it is mounted")),
            disk("sdb", &["vfat"], None),
            disk("sdc", &[], None),
        ]));
        assert_eq!(press(&mut installer, KeyCode::Enter), Outcome::Stay);
        assert_eq!(installer.error.as_deref(), Some("it is mounted"));
        press(&mut installer, KeyCode::Down);
        assert_eq!(press(&mut installer, KeyCode::Enter), Outcome::Stay);
        for wrong in ["", "S-sdc"] {
            wrong.chars().for_each(|c| {
                press(&mut installer, KeyCode::Char(c));
            });
            assert_eq!(press(&mut installer, KeyCode::Enter), Outcome::Stay);
            assert!(installer.error.is_some());
        }
        "S-sdb".chars().for_each(|c| {
            press(&mut installer, KeyCode::Char(c));
        });
        let erase = |disk: &str, erase| {
            Outcome::Install(Install {
                disk: disk.to_owned(),
                erase,
            })
        };
        assert_eq!(press(&mut installer, KeyCode::Enter), erase("S-sdb", true));
        press(&mut installer, KeyCode::Up);
        press(&mut installer, KeyCode::Down);
        press(&mut installer, KeyCode::Down);
        assert_eq!(press(&mut installer, KeyCode::Enter), erase("S-sdc", false));
    }
}
