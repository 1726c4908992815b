//! The values a seed is made of, each checked when it is read.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A unicast Ethernet hardware address; written `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// An IPv4 address with its network's prefix length; written `192.0.2.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    /// The host's address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 1 to 32.
    pub prefix: u8,
}

/// An IPv6 address with its network's prefix length; written `2001:db8::10/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Cidr {
    /// The host's address.
    pub address: Ipv6Addr,
    /// Bits of the network's prefix, 1 to 128.
    pub prefix: u8,
}

/// The administrator's password. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminSecret {
    /// In clear text.
    Password(String),
    /// An argon2id hash in PHC string format.
    PasswordHash(String),
}

impl fmt::Debug for AdminSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::PasswordHash(_) => "PasswordHash(…)",
        })
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a MAC address; write six hexadecimal pairs, like 52:54:00:12:34:56"
            )
        };
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(format!(
                "'{text}' is not the address of a network card; copy it from the card's label or `ip link`"
            ));
        }
        Ok(Self(bytes))
    }
}

/// Splits `ADDRESS/PREFIX`, with a hint when the prefix is missing.
fn split_cidr<A: FromStr>(text: &str, bits: u8, example: &str) -> Result<(A, u8), String> {
    let wrong =
        || format!("'{text}' is not an address with a prefix length; write it like {example}");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_| wrong())?;
    match prefix.parse() {
        Ok(prefix) if (1..=bits).contains(&prefix) => Ok((address, prefix)),
        _ => Err(format!(
            "the prefix length in '{text}' is not a number from 1 to {bits}; write it like {example}"
        )),
    }
}

impl FromStr for Ipv4Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix): (Ipv4Addr, u8) = split_cidr(text, 32, "192.0.2.10/24")?;
        let cidr = Self { address, prefix };
        if address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback()
        {
            return Err(format!("'{address}' cannot be the address of a host"));
        }
        let host = u32::from(address) & !cidr.mask();
        if prefix < 31 && (host == 0 || host == !cidr.mask()) {
            return Err(format!(
                "'{text}' is the network's own or its broadcast address; choose one between them"
            ));
        }
        Ok(cidr)
    }
}

impl Ipv4Cidr {
    /// The network mask as a number, e.g. `0xffff_ff00` for /24.
    pub fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0)
    }

    /// Whether `other` is inside this network.
    pub fn contains(self, other: Ipv4Addr) -> bool {
        u32::from(self.address) & self.mask() == u32::from(other) & self.mask()
    }
}

impl FromStr for Ipv6Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix): (Ipv6Addr, u8) = split_cidr(text, 128, "2001:db8::10/64")?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("'{address}' cannot be the address of a host"));
        }
        Ok(Self { address, prefix })
    }
}

impl Ipv6Cidr {
    /// Whether `other` is inside this network.
    pub fn contains(self, other: Ipv6Addr) -> bool {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.prefix))
            .unwrap_or(0);
        u128::from(self.address) & mask == u128::from(other) & mask
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Ipv6Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Strings in, strings out, for serde.
macro_rules! as_string {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_string!(MacAddress, Ipv4Cidr, Ipv6Cidr);
