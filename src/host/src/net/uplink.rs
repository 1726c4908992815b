//! Which Ethernet link becomes the uplink of which network.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{NetworkSpec, Uplink};
use crate::seed::MacAddress;

/// An Ethernet link, as far as the choice depends on it. Listed in order of kernel index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) mac: MacAddress,
    pub(super) carrier: bool,
    /// Whether the configuration says anything about it.
    pub(super) configured: bool,
    /// The bridge it is a port of now.
    pub(super) bridge: Option<&'a str>,
}

/// What came of the choice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Choice {
    /// Uplinks by name of network.
    pub(super) uplinks: BTreeMap<String, MacAddress>,
    /// Whether a network waits for a link to get a signal.
    pub(super) waiting: bool,
}

/// Chooses. `patient`: rather wait for a link to get its signal than take one without.
///
/// A named link is the uplink if it is there. For the others: the link that is a port of the network's bridge
/// already, else the first that is configured, else the first with a signal, else the first.
pub(super) fn choose<'a>(
    networks: impl IntoIterator<Item = (&'a NetworkSpec, &'a str)> + Clone,
    candidates: &[Candidate<'_>],
    patient: bool,
) -> Choice {
    let mut choice = Choice::default();
    let mut taken = BTreeSet::new();
    for (spec, _) in networks.clone() {
        if let Uplink::Mac(mac) = spec.uplink {
            taken.insert(mac);
            if candidates.iter().any(|candidate| candidate.mac == mac) {
                choice.uplinks.insert(spec.name.clone(), mac);
            }
        }
    }
    let automatic = networks
        .into_iter()
        .filter(|(spec, _)| spec.uplink == Uplink::Auto);
    let (settled, open): (Vec<_>, Vec<_>) =
        automatic.partition(|(_, bridge)| port_of(candidates, bridge, &taken).is_some());
    for (spec, bridge) in settled {
        if let Some(mac) = port_of(candidates, bridge, &taken) {
            taken.insert(mac);
            choice.uplinks.insert(spec.name.clone(), mac);
        }
    }
    for (spec, _) in open {
        let free: Vec<_> = candidates
            .iter()
            .filter(|candidate| !taken.contains(&candidate.mac))
            .collect();
        let sure = free
            .iter()
            .find(|candidate| candidate.configured)
            .or_else(|| free.iter().find(|candidate| candidate.carrier));
        let chosen = if patient {
            sure
        } else {
            sure.or_else(|| free.first())
        };
        match chosen {
            Some(candidate) => {
                taken.insert(candidate.mac);
                choice.uplinks.insert(spec.name.clone(), candidate.mac);
            }
            None => choice.waiting |= !free.is_empty(),
        }
    }
    choice
}

fn port_of(
    candidates: &[Candidate<'_>],
    bridge: &str,
    taken: &BTreeSet<MacAddress>,
) -> Option<MacAddress> {
    let port = candidates
        .iter()
        .find(|candidate| candidate.bridge == Some(bridge) && !taken.contains(&candidate.mac));
    port.map(|candidate| candidate.mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn link(last: u8, carrier: bool) -> Candidate<'static> {
        Candidate {
            mac: mac(last),
            carrier,
            configured: false,
            bridge: None,
        }
    }

    fn network(name: &str, uplink: Uplink) -> NetworkSpec {
        NetworkSpec {
            uplink,
            ..NetworkSpec::isolated(name)
        }
    }

    fn chosen(
        networks: &[(&NetworkSpec, &str)],
        candidates: &[Candidate<'_>],
        patient: bool,
    ) -> (Vec<u8>, bool) {
        let choice = choose(networks.iter().copied(), candidates, patient);
        (
            choice.uplinks.values().map(|mac| mac.0[5]).collect(),
            choice.waiting,
        )
    }

    #[test]
    fn the_first_with_a_signal() {
        let auto = network("a", Uplink::Auto);
        let networks = [(&auto, "lodge0")];
        assert_eq!(
            chosen(
                &networks,
                &[link(1, false), link(2, true), link(3, true)],
                true
            ),
            (vec![2], false)
        );
        assert_eq!(
            chosen(&networks, &[link(1, false), link(2, false)], true),
            (vec![], true)
        );
        assert_eq!(
            chosen(&networks, &[link(1, false), link(2, false)], false),
            (vec![1], false)
        );
        assert_eq!(chosen(&networks, &[], false), (vec![], false));
    }

    #[test]
    fn a_port_stays_and_a_configured_link_comes_first() {
        let auto = network("a", Uplink::Auto);
        let networks = [(&auto, "lodge0")];
        let port = Candidate {
            bridge: Some("lodge0"),
            ..link(3, false)
        };
        assert_eq!(
            chosen(&networks, &[link(1, true), port], true),
            (vec![3], false)
        );
        let configured = Candidate {
            configured: true,
            ..link(3, false)
        };
        assert_eq!(
            chosen(&networks, &[link(1, true), configured], true),
            (vec![3], false)
        );
        let foreign = Candidate {
            bridge: Some("br0"),
            ..link(3, false)
        };
        assert_eq!(
            chosen(&networks, &[link(1, true), foreign], true),
            (vec![1], false)
        );
    }

    #[test]
    fn named_links_are_not_taken_by_others() {
        let (auto, named) = (
            network("a", Uplink::Auto),
            network("b", Uplink::Mac(mac(1))),
        );
        let (missing, isolated) = (
            network("c", Uplink::Mac(mac(9))),
            network("d", Uplink::Isolated),
        );
        let networks = [
            (&auto, "lodge0"),
            (&named, "lodge1"),
            (&missing, "lodge2"),
            (&isolated, "lodge3"),
        ];
        assert_eq!(
            chosen(&networks, &[link(1, true), link(2, true)], false),
            (vec![2, 1], false)
        );
        let port = Candidate {
            bridge: Some("lodge0"),
            ..link(1, true)
        };
        assert_eq!(
            chosen(&networks, &[port, link(2, true)], false),
            (vec![2, 1], false),
            "named later"
        );
    }
}
