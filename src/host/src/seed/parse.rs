//! From text to a [`Seed`]: the shape of the file, then what its fields must agree on.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use toml::Spanned;

use super::{
    AdminSecret, Ipv4Cidr, Ipv6Cidr, MacAddress, Seed, SeedAdmin, SeedData, SeedError, SeedInstall,
    SeedIpv4, SeedIpv6, SeedLink, SeedStorage,
};

/// The shortest administrator's password, in characters.
const PASSWORD_MIN: usize = 8;
/// The longest administrator's password, in bytes.
const PASSWORD_MAX: usize = 1024;
/// More links than any machine has.
const LINKS_MAX: usize = 256;
/// Longer than the serial number of any disk, in bytes.
const SERIAL_MAX: usize = 128;
/// More name servers than anybody asks.
const DNS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    hostname: Option<Spanned<String>>,
    admin: Option<Spanned<Admin>>,
    #[serde(default)]
    network: Vec<Spanned<Link>>,
    data: Option<Data>,
    install: Option<Install>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    password: Option<Spanned<String>>,
    password_hash: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    mac: Spanned<MacAddress>,
    #[serde(default)]
    method: Ipv4Method,
    address: Option<Spanned<Ipv4Cidr>>,
    gateway: Option<Spanned<Ipv4Addr>>,
    dns: Option<Spanned<Vec<IpAddr>>>,
    mtu: Option<Spanned<u32>>,
    #[serde(default)]
    ipv6: Ipv6Method,
    ipv6_address: Option<Spanned<Ipv6Cidr>>,
    ipv6_gateway: Option<Spanned<Ipv6Addr>>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Ipv4Method {
    #[default]
    Dhcp,
    Static,
    Off,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Ipv6Method {
    #[default]
    Auto,
    Static,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(default)]
    storage: SeedStorage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    disk: Spanned<String>,
    #[serde(default)]
    erase: bool,
}

impl Seed {
    /// Reads the text of a `seed.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and how to put it right.
    pub fn parse(text: &str) -> Result<Self, SeedError> {
        // Editors on Windows put a byte order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file: File = toml::from_str(text).map_err(|error| {
            SeedError::at(text, &error.span().unwrap_or(0..0), error.message().trim())
        })?;
        let hostname = file
            .hostname
            .map(|name| hostname(text, &name))
            .transpose()?;
        let admin = match file.admin {
            Some(admin) => Some(SeedAdmin {
                secret: secret(text, admin)?,
            }),
            None => None,
        };
        let install = file.install.map(|install| install_on(text, install));
        Ok(Self {
            hostname,
            admin,
            network: links(text, file.network)?,
            data: SeedData {
                storage: file.data.map(|data| data.storage).unwrap_or_default(),
            },
            install: install.transpose()?,
        })
    }
}

fn install_on(text: &str, install: Install) -> Result<SeedInstall, SeedError> {
    let (span, disk) = (install.disk.span(), install.disk.into_inner());
    if disk.trim().is_empty() || disk.len() > SERIAL_MAX {
        return Err(SeedError::at(
            text,
            &span,
            "not the serial number of a disk; `lodge system disks` shows it",
        ));
    }
    Ok(SeedInstall {
        disk,
        erase: install.erase,
    })
}

fn hostname(text: &str, name: &Spanned<String>) -> Result<String, SeedError> {
    let span = name.span();
    crate::hostname::normalize(name.get_ref()).map_err(|error| SeedError::at(text, &span, error))
}

fn secret(text: &str, admin: Spanned<Admin>) -> Result<AdminSecret, SeedError> {
    let span = admin.span();
    let admin = admin.into_inner();
    match (admin.password, admin.password_hash) {
        (Some(password), None) => {
            let (span, password) = (password.span(), password.into_inner());
            if password.chars().count() < PASSWORD_MIN || password.len() > PASSWORD_MAX {
                return Err(SeedError::at(
                    text,
                    &span,
                    format!("a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters"),
                ));
            }
            Ok(AdminSecret::Password(password))
        }
        (None, Some(hash)) => {
            let (span, hash) = (hash.span(), hash.into_inner());
            if !hash_ok(&hash) {
                return Err(SeedError::at(
                    text,
                    &span,
                    "not an argon2id hash in PHC format; it looks like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH",
                ));
            }
            Ok(AdminSecret::PasswordHash(hash))
        }
        (Some(_), Some(hash)) => Err(SeedError::at(
            text,
            &hash.span(),
            "there is a password and a password_hash; keep one",
        )),
        (None, None) => Err(SeedError::about(
            text,
            &span,
            "admin",
            "set password or password_hash, or remove the table [admin] to get a random password on the console",
        )),
    }
}

/// The shape of a PHC string, not its strength: `$argon2id$[v=N$]PARAMETERS$SALT$HASH`.
fn hash_ok(hash: &str) -> bool {
    let base64 = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'.' | b'_'))
    };
    let Some(rest) = hash.strip_prefix("$argon2id$") else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('$').collect();
    if parts.first().is_some_and(|part| part.starts_with("v=")) {
        parts.remove(0);
    }
    match parts.as_slice() {
        [parameters, salt, digest] => {
            hash.len() <= 512
                && parameters.split(',').all(|p| {
                    p.split_once('=')
                        .is_some_and(|(_, v)| v.parse::<u32>().is_ok())
                })
                && base64(salt)
                && base64(digest)
        }
        _ => false,
    }
}

fn links(text: &str, links: Vec<Spanned<Link>>) -> Result<Vec<SeedLink>, SeedError> {
    let mut seen = HashSet::new();
    let mut result = Vec::with_capacity(links.len().min(LINKS_MAX));
    for link in links {
        let span = link.span();
        if result.len() == LINKS_MAX {
            return Err(SeedError::about(
                text,
                &span,
                "network",
                format!("more than {LINKS_MAX} links"),
            ));
        }
        let link = link.into_inner();
        if !seen.insert(*link.mac.get_ref()) {
            return Err(SeedError::about(
                text,
                &link.mac.span(),
                "network.mac",
                format!("{} is listed twice; keep one", link.mac.get_ref()),
            ));
        }
        result.push(SeedLink {
            mac: *link.mac.get_ref(),
            ipv4: ipv4(text, &link)?,
            ipv6: ipv6(text, &link)?,
            dns: dns(text, link.dns)?,
            mtu: mtu(text, link.mtu, link.ipv6)?,
        });
    }
    Ok(result)
}

fn ipv4(text: &str, link: &Link) -> Result<SeedIpv4, SeedError> {
    let stray = link
        .address
        .as_ref()
        .map(Spanned::span)
        .or_else(|| link.gateway.as_ref().map(Spanned::span));
    match (link.method, &link.address, stray) {
        (Ipv4Method::Static, Some(address), _) => {
            let cidr = *address.get_ref();
            if let Some(gateway) = &link.gateway {
                inside(
                    text,
                    gateway,
                    cidr.contains(*gateway.get_ref()),
                    &cidr,
                    cidr.address == *gateway.get_ref(),
                )?;
            }
            Ok(SeedIpv4::Static {
                address: cidr,
                gateway: link.gateway.as_ref().map(|gateway| *gateway.get_ref()),
            })
        }
        (Ipv4Method::Static, None, _) => Err(SeedError::about(
            text,
            &link.mac.span(),
            "network.address",
            format!(
                "method = \"static\" needs an address, like address = \"192.0.2.10/24\" (link {})",
                link.mac.get_ref()
            ),
        )),
        (_, _, Some(span)) => Err(SeedError::at(
            text,
            &span,
            "only a link with method = \"static\" takes this; set the method or remove it",
        )),
        (Ipv4Method::Dhcp, ..) => Ok(SeedIpv4::Dhcp),
        (Ipv4Method::Off, ..) => Ok(SeedIpv4::Off),
    }
}

fn ipv6(text: &str, link: &Link) -> Result<SeedIpv6, SeedError> {
    let stray = link
        .ipv6_address
        .as_ref()
        .map(Spanned::span)
        .or_else(|| link.ipv6_gateway.as_ref().map(Spanned::span));
    match (link.ipv6, &link.ipv6_address, stray) {
        (Ipv6Method::Static, Some(address), _) => {
            let cidr = *address.get_ref();
            if let Some(gateway) = &link.ipv6_gateway {
                let reachable =
                    cidr.contains(*gateway.get_ref()) || gateway.get_ref().is_unicast_link_local();
                inside(
                    text,
                    gateway,
                    reachable,
                    &cidr,
                    cidr.address == *gateway.get_ref(),
                )?;
            }
            Ok(SeedIpv6::Static {
                address: cidr,
                gateway: link.ipv6_gateway.as_ref().map(|gateway| *gateway.get_ref()),
            })
        }
        (Ipv6Method::Static, None, _) => Err(SeedError::about(
            text,
            &link.mac.span(),
            "network.ipv6_address",
            format!(
                "ipv6 = \"static\" needs an address, like ipv6_address = \"2001:db8::10/64\" (link {})",
                link.mac.get_ref()
            ),
        )),
        (_, _, Some(span)) => Err(SeedError::at(
            text,
            &span,
            "only a link with ipv6 = \"static\" takes this; set ipv6 or remove it",
        )),
        (Ipv6Method::Auto, ..) => Ok(SeedIpv6::Auto),
        (Ipv6Method::Off, ..) => Ok(SeedIpv6::Off),
    }
}

/// A gateway must be reachable, and another machine.
fn inside<A: std::fmt::Display>(
    text: &str,
    gateway: &Spanned<A>,
    reachable: bool,
    cidr: &dyn std::fmt::Display,
    own: bool,
) -> Result<(), SeedError> {
    if own {
        let message = "the gateway is the host's own address; give the router's";
        return Err(SeedError::at(text, &gateway.span(), message));
    }
    if !reachable {
        let message = format!(
            "{} is outside the network of {cidr}; check both, or the prefix length",
            gateway.get_ref()
        );
        return Err(SeedError::at(text, &gateway.span(), message));
    }
    Ok(())
}

fn dns(text: &str, dns: Option<Spanned<Vec<IpAddr>>>) -> Result<Vec<IpAddr>, SeedError> {
    let Some(dns) = dns else {
        return Ok(Vec::new());
    };
    let span = dns.span();
    let dns = dns.into_inner();
    if dns.len() > DNS_MAX {
        return Err(SeedError::at(
            text,
            &span,
            format!("at most {DNS_MAX} name servers, these are {}", dns.len()),
        ));
    }
    if let Some(bad) = dns.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
        return Err(SeedError::at(
            text,
            &span,
            format!("{bad} cannot be a name server"),
        ));
    }
    Ok(dns)
}

fn mtu(text: &str, mtu: Option<Spanned<u32>>, ipv6: Ipv6Method) -> Result<Option<u32>, SeedError> {
    let Some(mtu) = mtu else {
        return Ok(None);
    };
    // RFC 8200 section 5 and RFC 791.
    let (least, why) = match ipv6 {
        Ipv6Method::Off => (576, ""),
        Ipv6Method::Auto | Ipv6Method::Static => (1280, " (less only with ipv6 = \"off\")"),
    };
    if !(least..=65535).contains(mtu.get_ref()) {
        return Err(SeedError::at(
            text,
            &mtu.span(),
            format!("an MTU is {least} to 65535 bytes{why}"),
        ));
    }
    Ok(Some(*mtu.get_ref()))
}
