//! The condition of the host's disks: those that hold something are asked every so often.

use std::time::Duration;

use lodge_api::Problem;
use lodge_host::disk::{Health, health};
use lodge_host::install::{HostDisk, host_disks};

use crate::core::{Core, blocking};
use crate::install::unknown_disks;

/// Between two looks. Disks keep their condition in mind, and wake up to tell.
const PAUSE: Duration = Duration::from_secs(1800);

/// Before the first one: there is enough to do when a host starts.
const AT_FIRST: Duration = Duration::from_secs(60);

/// Which disks are asked: one that sleeps wakes up to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    All,
    ThoseInUse,
}

/// A disk, and what it says of itself, if it was asked and does.
pub(crate) struct Looked {
    pub(crate) disk: HostDisk,
    pub(crate) health: Option<Health>,
}

impl Core {
    /// Looks after them for as long as the manager lives, and tells what has become worse.
    pub(crate) async fn follow_disk_health(&self) {
        let first = tokio::time::Instant::now() + AT_FIRST;
        let mut clock = tokio::time::interval_at(first, PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            if let Err(problem) = self.look_at_disks(Ask::ThoseInUse).await {
                tracing::warn!(%problem, "the condition of the disks is not known");
            }
        }
    }

    /// The disks of the host as they are now. What is wrong with those in use is a warning from now on.
    pub(crate) async fn look_at_disks(&self, ask: Ask) -> Result<Vec<Looked>, Problem> {
        let disks = blocking(move || {
            let disks = host_disks().map_err(|error| unknown_disks(&error))?;
            let wanted = |disk: &HostDisk| ask == Ask::All || disk.in_use.is_some();
            let look = |disk: HostDisk| Looked {
                health: wanted(&disk).then(|| health(&disk.device)).flatten(),
                disk,
            };
            Ok(disks.into_iter().map(look).collect::<Vec<_>>())
        })
        .await?;
        let now: Vec<String> = disks.iter().filter_map(warning).collect();
        let before = self.disk_warnings.send_replace(now.clone());
        for warning in now.iter().filter(|warning| !before.contains(warning)) {
            self.tell_problem(warning.clone());
        }
        if now != before {
            self.console_changed();
        }
        Ok(disks)
    }
}

fn warning(looked: &Looked) -> Option<String> {
    let disk = &looked.disk;
    disk.in_use.as_ref()?;
    let problems = &looked.health.as_ref()?.problems;
    if problems.is_empty() {
        return None;
    }
    let (name, model) = (disk.identity(), disk.device.model.as_deref());
    Some(format!(
        "The disk {name} ({}) may fail soon: {}. Move what is on it to another one, and replace it.",
        model.unwrap_or(&disk.device.name),
        problems.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_host::disk::BlockDevice;

    #[test]
    fn only_disks_in_use_are_worth_a_warning() {
        let disk = HostDisk {
            device: BlockDevice {
                name: "nvme0n1".to_owned(),
                parent: None,
                partition: None,
                partition_name: None,
                size: 1 << 30,
                logical_block: 512,
                model: Some("ACME 980".to_owned()),
                serial: Some("S4".to_owned()),
                transport: Some("nvme".to_owned()),
                removable: false,
                read_only: false,
                rotational: false,
            },
            contents: Vec::new(),
            in_use: Some("it holds the data of this host".to_owned()),
        };
        let mut looked = Looked {
            disk,
            health: Some(Health::default()),
        };
        assert_eq!(warning(&looked), None);
        let problems = vec!["it is too hot".to_owned(), "it is old".to_owned()];
        looked.health = Some(Health {
            problems,
            ..Health::default()
        });
        let said = warning(&looked).unwrap();
        assert!(
            said.starts_with("The disk S4 (ACME 980) may fail soon: it is too hot; it is old.")
        );
        looked.disk.in_use = None;
        assert_eq!(warning(&looked), None);
    }
}
