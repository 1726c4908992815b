//! What is not as it should be, for people to see.

use std::time::Duration;

use tracing::{info, warn};

use super::config::Uplink;
use super::error::NetError;
use super::kernel::{KernelLink, Snapshot};
use super::reconcile::Outcome;
use super::state::NetWarning;
use super::worker::Worker;
use crate::seed::MacAddress;

/// Time without a DHCP server after which people are told.
const SEARCH_LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    /// Something could not be done, and will be tried again.
    pub(super) fn fail(&mut self, subject: &str, error: &NetError, outcome: &mut Outcome) {
        outcome.failed = true;
        self.warn(subject, error.to_string(), &error.hint());
    }

    pub(super) fn warn(&mut self, subject: &str, message: String, hint: &str) {
        self.warnings.push(NetWarning {
            subject: subject.to_owned(),
            message,
            hint: hint.to_owned(),
        });
    }

    /// Things that were done as they should be and still are not good.
    pub(super) fn find_problems(&mut self, snapshot: &Snapshot, outcome: &mut Outcome) {
        let links = self.ethernet(snapshot);
        if self.config.manage_links && links.is_empty() {
            let hint = "check that the network card is seated and that its driver is in the image (see the kernel log)";
            self.warn("host", "no Ethernet link was found".to_owned(), hint);
        }
        self.find_uplink_problems(&links);
        let duplicates = snapshot
            .addresses
            .iter()
            .filter(|address| address.duplicate);
        for (address, link) in duplicates
            .filter_map(|address| Some((address.address, snapshot.indexed(address.index)?)))
        {
            self.warn(
                &link.name,
                format!("another machine has the address {address} too"),
                "give one of the two another address",
            );
        }
        let searching = self
            .clients
            .iter()
            .filter_map(|(mac, slot)| Some((*mac, slot.searching_since?)));
        for (mac, since) in searching.collect::<Vec<_>>() {
            let left = SEARCH_LIMIT.saturating_sub(since.elapsed());
            if left.is_zero() {
                let hint = "check that the network has a DHCP server, or set a static address";
                self.warn(
                    &mac.to_string(),
                    "no DHCP server gave this link an address".to_owned(),
                    hint,
                );
            } else {
                outcome.next = Some(outcome.next.map_or(left, |next| next.min(left)));
            }
        }
    }

    fn find_uplink_problems(&mut self, links: &[(MacAddress, KernelLink)]) {
        let networks: Vec<_> = self
            .networks
            .values()
            .map(|network| network.spec.clone())
            .collect();
        for spec in networks {
            let uplink = self
                .uplinks
                .get(&spec.name)
                .and_then(|mac| links.iter().find(|(key, _)| key == mac));
            match (spec.uplink, uplink) {
                (Uplink::Mac(mac), None) => {
                    let hint = "put the card back, or choose another uplink";
                    self.warn(
                        &spec.name,
                        format!("its uplink {mac} is not in this machine"),
                        hint,
                    );
                }
                (Uplink::Auto, None) if !self.config.manage_links => {
                    let hint = "name the link that shall be its uplink by its MAC address";
                    self.warn(
                        &spec.name,
                        "it has no uplink: links of this machine are not managed here".to_owned(),
                        hint,
                    );
                }
                (_, Some((mac, link))) if !link.carrier => {
                    self.warn(
                        &spec.name,
                        format!("its uplink {mac} ({}) has no signal", link.name),
                        "check cable and switch",
                    );
                }
                _ => {}
            }
        }
    }

    /// Logs what is new among the problems, and what is over; not what goes on.
    pub(super) fn log_problems(&mut self) {
        for problem in self
            .warnings
            .iter()
            .filter(|problem| !self.logged.contains(problem))
        {
            warn!(subject = %problem.subject, hint = %problem.hint, "{}", problem.message);
        }
        for problem in self
            .logged
            .iter()
            .filter(|problem| !self.warnings.contains(problem))
        {
            info!(subject = %problem.subject, "no longer: {}", problem.message);
        }
        self.logged.clone_from(&self.warnings);
    }
}
