//! The network of the host: Ethernet links, bridges that guests attach to, their addresses, and taps.
//!
//! [`HostNetwork`] is a handle on a task that owns all of it. It looks at what the kernel has, compares that
//! with what was asked for ([`HostNetworkConfig`]) and changes only the differences, so that a restarted
//! manager takes over a running machine without a flap. What it finds is published as [`NetworkState`].
//!
//! Every link is known by its permanent MAC address; kernel names are shown to people and used for nothing.

mod addressing;
mod attributes;
mod bridge;
pub mod config;
#[cfg(test)]
mod config_tests;
pub mod dhcp4;
mod dns;
mod error;
mod ethtool;
mod guard;
mod handle;
mod kernel;
mod lease_file;
mod netlink;
mod nftables;
mod problems;
mod publish;
mod qdisc;
mod reconcile;
pub mod state;
mod sysctl;
mod tap;
mod traffic;
mod uplink;
mod worker;

pub use config::{
    Addressing, HostAddress, HostNetworkConfig, Ipv4Config, Ipv6Config, LinkConfig, NetworkSpec,
    Uplink,
};
pub use error::NetError;
pub use handle::{HostNetwork, Shutdown};
pub use state::{DnsConfig, NetWarning, NetworkInfo, NetworkState};
pub use tap::{Tap, open_vhost_net, tap_name};
pub use traffic::TapLimits;
