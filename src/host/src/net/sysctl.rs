//! Settings of links that the kernel takes through `/proc/sys/net` only.

use std::fs;
use std::io;

use super::config::Ipv6Config;
use super::error::NetError;

/// How a link takes part in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ipv6Mode {
    /// As the kernel has it for a new link.
    Default,
    /// Not at all: ports of bridges, taps, links without IPv6.
    Off,
    /// Link-local and fixed addresses.
    Quiet,
    /// Router advertisements are obeyed; a default route gets that metric.
    Advertised {
        /// Metric of the default route, lower is preferred.
        metric: u32,
    },
}

impl Ipv6Mode {
    /// What a configuration means, with the metric of its default route.
    pub(super) const fn of(config: &Ipv6Config, metric: u32) -> Self {
        match config {
            Ipv6Config::Auto => Self::Advertised { metric },
            Ipv6Config::Static { .. } | Ipv6Config::LinkLocal => Self::Quiet,
            Ipv6Config::Disabled => Self::Off,
        }
    }

    fn settings(self) -> Vec<(&'static str, String)> {
        let on = [
            ("addr_gen_mode", "0".to_owned()),
            ("disable_ipv6", "0".to_owned()),
        ];
        let quiet = [("accept_ra", "0".to_owned()), ("autoconf", "0".to_owned())];
        // 2: also when the host forwards packets for its guests.
        let advertised = |metric: u32| {
            [
                ("accept_ra", "2".to_owned()),
                ("autoconf", "1".to_owned()),
                ("ra_defrtr_metric", metric.to_string()),
            ]
        };
        // IPv6 is switched on last: the router is asked in that moment, by the rules set until then.
        let default = [("accept_ra", "1".to_owned()), ("autoconf", "1".to_owned())];
        match self {
            Self::Default => default.into_iter().chain(on).collect(),
            Self::Off => quiet
                .into_iter()
                .chain([("disable_ipv6", "1".to_owned())])
                .collect(),
            Self::Quiet => quiet.into_iter().chain(on).collect(),
            Self::Advertised { metric } => advertised(metric).into_iter().chain(on).collect(),
        }
    }
}

/// Sets a link's part in IPv6. A kernel without IPv6 is fine with everything.
pub(super) fn set_ipv6(link: &str, mode: Ipv6Mode) -> Result<(), NetError> {
    mode.settings()
        .iter()
        .try_for_each(|(key, value)| set("ipv6", link, key, value))
}

/// Makes a link with IPv4 addresses behave as a server's link should.
pub(super) fn set_ipv4(link: &str) -> Result<(), NetError> {
    // An address keeps its companions when it goes; each link answers for its own addresses only; and the
    // network is told when an address moves here.
    let settings = [
        ("accept_redirects", "0"),
        ("promote_secondaries", "1"),
        ("arp_ignore", "1"),
        ("arp_announce", "2"),
        ("arp_notify", "1"),
    ];
    settings
        .iter()
        .try_for_each(|(key, value)| set("ipv4", link, key, value))
}

/// Writes a setting if it differs.
fn set(family: &str, link: &str, key: &str, value: &str) -> Result<(), NetError> {
    let path = format!("/proc/sys/net/{family}/conf/{link}/{key}");
    let result = match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        Ok(_) => fs::write(&path, value),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => Ok(()),
        // An older kernel, one without IPv6, or a link that just went.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Err(NetError::Permission {
                action: format!("write {path}"),
            })
        }
        Err(error) => Err(NetError::File {
            action: "write",
            path,
            problem: error.to_string(),
        }),
    }
}
