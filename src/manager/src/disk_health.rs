//! The condition of the host's disks: those that hold something are asked every so often.

use std::time::Duration;

use lodge_api::Problem;
use lodge_host::install::{HostDisk, host_disks};

use crate::core::{Core, blocking};
use crate::install::unknown_disks;

/// Between two looks. Disks keep their condition in mind, and wake up to tell.
const PAUSE: Duration = Duration::from_secs(1800);

/// Before the first one: there is enough to do when a host starts.
const AT_FIRST: Duration = Duration::from_secs(60);

impl Core {
    /// Looks after them for as long as the manager lives, and tells what has become worse.
    pub(crate) async fn follow_disk_health(&self) {
        let first = tokio::time::Instant::now() + AT_FIRST;
        let mut clock = tokio::time::interval_at(first, PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            if let Err(problem) = self.look_at_disks().await {
                tracing::warn!(%problem, "the condition of the disks is not known");
            }
        }
    }

    /// The disks of the host as they are now. What is wrong with those in use is a warning from now on.
    pub(crate) async fn look_at_disks(&self) -> Result<Vec<HostDisk>, Problem> {
        let disks = blocking(|| host_disks().map_err(|error| unknown_disks(&error))).await?;
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

fn warning(disk: &HostDisk) -> Option<String> {
    disk.in_use.as_ref()?;
    let problems = &disk.health.as_ref()?.problems;
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
    use lodge_host::disk::{BlockDevice, Health};

    #[test]
    fn only_disks_in_use_are_worth_a_warning() {
        let mut disk = HostDisk {
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
            health: Some(Health::default()),
        };
        assert_eq!(warning(&disk), None);
        let problems = vec!["it is too hot".to_owned(), "it is old".to_owned()];
        disk.health = Some(Health {
            problems,
            ..Health::default()
        });
        let said = warning(&disk).unwrap();
        assert!(
            said.starts_with("The disk S4 (ACME 980) may fail soon: it is too hot; it is old.")
        );
        disk.in_use = None;
        assert_eq!(warning(&disk), None);
    }
}
