//! What becomes of the host's links: cables pulled and plugged, cards that come and go.

use std::collections::BTreeMap;

use lodge_host::net::state::{LinkState, NetworkState};
use lodge_host::seed::MacAddress;

use crate::core::Core;

/// Name and signal of every link.
type Signals = BTreeMap<MacAddress, (String, bool)>;

impl Core {
    /// Has the local console follow the host's addresses, and tells of links that change.
    pub(crate) async fn follow_network(&self) {
        let Some(network) = &self.network else { return };
        let mut state = network.watch();
        let mut before = signals(&state.borrow_and_update());
        while state.changed().await.is_ok() {
            let now = signals(&state.borrow_and_update());
            for message in changes(&before, &now) {
                self.tell(message);
            }
            before = now;
            self.console_changed();
        }
    }
}

fn signals(state: &NetworkState) -> Signals {
    let signal = |link: &LinkState| (link.mac, (link.name.clone(), link.carrier));
    state.links.iter().map(signal).collect()
}

fn changes(before: &Signals, now: &Signals) -> Vec<String> {
    let mut messages = Vec::new();
    for (mac, (name, carrier)) in now {
        let had = before.get(mac).map(|(_, carrier)| *carrier);
        let change = match (had, carrier) {
            (None, true) => "has appeared, with a signal",
            (None, false) => "has appeared, without a signal",
            (Some(false), true) => "has a signal",
            (Some(true), false) => "has lost its signal: check cable and switch",
            _ => continue,
        };
        messages.push(format!("link {mac} ({name}) {change}"));
    }
    for (mac, (name, _)) in before {
        if !now.contains_key(mac) {
            messages.push(format!("link {mac} ({name}) is gone"));
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(list: &[(u8, bool)]) -> Signals {
        list.iter()
            .map(|(last, carrier)| {
                let mac = format!("52:54:00:00:00:{last:02x}").parse().unwrap();
                (mac, (format!("eth{last}"), *carrier))
            })
            .collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let before = links(&[(0, true), (1, false), (2, true), (3, true)]);
        let now = links(&[(0, true), (1, true), (2, false), (4, true)]);
        let told = changes(&before, &now);
        assert_eq!(
            told,
            [
                "link 52:54:00:00:00:01 (eth1) has a signal",
                "link 52:54:00:00:00:02 (eth2) has lost its signal: check cable and switch",
                "link 52:54:00:00:00:04 (eth4) has appeared, with a signal",
                "link 52:54:00:00:00:03 (eth3) is gone",
            ]
        );
        assert!(changes(&now, &now).is_empty());
    }
}
