//! `seed.toml`: how a host is set up at its first boot.
//!
//! The file lies on a volume labelled [`SEED_LABEL`]. It is optional, and so is everything in it:
//!
//! ```toml
//! hostname = "alpha"
//!
//! [admin]
//! password = "correct horse battery staple"    # or: password_hash = "$argon2id$…"
//!
//! [[network]]
//! mac     = "52:54:00:12:34:56"
//! method  = "static"                           # dhcp | static | off
//! address = "192.0.2.10/24"
//! gateway = "192.0.2.1"
//! dns     = ["192.0.2.53", "2001:db8::53"]
//! mtu     = 9000
//! ipv6    = "auto"                             # auto | static | off
//!
//! [data]
//! storage = "auto"                             # auto | ram
//!
//! [install]
//! disk  = "S4EWNX0N123456"                     # serial number, or the name of a disk without one
//! erase = true                                 # also if it is not blank
//! ```
//!
//! A field that is not known is an error, so that a misspelt one is noticed. Errors name line, column and field.

mod error;
mod parse;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use error::SeedError;
pub use values::{AdminSecret, Ipv4Cidr, Ipv6Cidr, MacAddress};

/// Label of the volume a seed is looked for on.
pub const SEED_LABEL: &str = "LODGE-SEED";

/// Name of the file on that volume.
pub const SEED_FILE: &str = "seed.toml";

/// The longest seed that is read, in bytes.
pub const SEED_LIMIT: u64 = 256 * 1024;

/// A valid seed. Read it with [`Seed::parse`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seed {
    /// The host's name: an RFC 1123 host name of at most 63 bytes, domain included.
    pub hostname: Option<String>,
    /// The administrator.
    pub admin: Option<SeedAdmin>,
    /// Links, each with its own MAC address. A link which is not listed is set up by DHCPv4 and IPv6 autoconfiguration.
    pub network: Vec<SeedLink>,
    /// Where data goes.
    pub data: SeedData,
    /// The disk to install on, when there are no data on a disk yet.
    pub install: Option<SeedInstall>,
}

/// The disk to install on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedInstall {
    /// Its serial number, or the kernel's name for a disk without one.
    pub disk: String,
    /// Whether what is on it may be lost.
    pub erase: bool,
}

/// The administrator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedAdmin {
    /// The password, or its hash.
    pub secret: AdminSecret,
}

/// One physical link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedLink {
    /// The permanent hardware address that picks the link.
    pub mac: MacAddress,
    /// IPv4.
    pub ipv4: SeedIpv4,
    /// IPv6.
    pub ipv6: SeedIpv6,
    /// Name servers, in order of preference. With DHCP they come before those of the lease.
    pub dns: Vec<IpAddr>,
    /// The largest packet, in bytes: 576 to 65535 (1280 at least where IPv6 is on). `None` leaves the driver's value.
    pub mtu: Option<u32>,
}

/// How a link gets its IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum SeedIpv4 {
    /// From a DHCP server.
    Dhcp,
    /// Fixed.
    Static {
        /// The host's address and its network's prefix length.
        address: Ipv4Cidr,
        /// The default router, which is inside that network.
        gateway: Option<Ipv4Addr>,
    },
    /// None.
    Off,
}

/// How a link gets its IPv6 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum SeedIpv6 {
    /// From router advertisements.
    Auto,
    /// Fixed.
    Static {
        /// The host's address and its network's prefix length.
        address: Ipv6Cidr,
        /// The default router, inside that network or link-local.
        gateway: Option<Ipv6Addr>,
    },
    /// None, not even a link-local one.
    Off,
}

/// Where data goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeedData {
    /// Which storage to use.
    pub storage: SeedStorage,
}

/// Which storage to use for `/data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedStorage {
    /// The filesystem labelled `lodge-data` if there is one, else memory.
    #[default]
    Auto,
    /// Memory, whatever the disks hold. Nothing on a disk is touched.
    Ram,
}
