//! Seeds that are accepted, and what is said about those that are not.

use super::*;

const FULL: &str = r#"
hostname = "Alpha.example.org"
[admin]
password = "correct horse"
[[network]]
mac = "52:54:00:12:34:56"
method = "static"
address = "192.0.2.10/24"
gateway = "192.0.2.1"
dns = ["192.0.2.53", "2001:db8::53"]
mtu = 9000
ipv6 = "static"
ipv6_address = "2001:db8::10/64"
ipv6_gateway = "fe80::1"
[[network]]
mac = "52-54-00-AB-CD-EF"
ipv6 = "off"
[data]
storage = "ram"
[install]
disk = "S4EWNX0N123456"
erase = true
"#;

#[test]
fn everything_at_once() {
    let seed = Seed::parse(FULL).unwrap();
    assert_eq!(seed.hostname.as_deref(), Some("alpha.example.org"));
    assert_eq!(
        seed.admin.unwrap().secret,
        AdminSecret::Password("correct horse".into())
    );
    assert_eq!(seed.network.len(), 2);
    let link = &seed.network[0];
    assert_eq!(link.mac.to_string(), "52:54:00:12:34:56");
    assert_eq!(
        link.ipv4,
        SeedIpv4::Static {
            address: "192.0.2.10/24".parse().unwrap(),
            gateway: Some("192.0.2.1".parse().unwrap())
        }
    );
    assert_eq!(link.dns.len(), 2);
    assert_eq!(seed.network[1].ipv4, SeedIpv4::Dhcp);
    assert_eq!(seed.network[1].ipv6, SeedIpv6::Off);
    assert_eq!(seed.data.storage, SeedStorage::Ram);
    let install = seed.install.unwrap();
    assert_eq!(
        (install.disk.as_str(), install.erase),
        ("S4EWNX0N123456", true)
    );
}

#[test]
fn empty_and_byte_order_mark() {
    assert_eq!(Seed::parse("").unwrap(), Seed::default());
    let seed = Seed::parse("\u{feff}hostname = 'a'\r\n").unwrap();
    assert_eq!(seed.hostname.as_deref(), Some("a"));
}

#[test]
fn survives_json() {
    let seed = Seed::parse(FULL).unwrap();
    let json = serde_json::to_string(&seed).unwrap();
    assert_eq!(serde_json::from_str::<Seed>(&json).unwrap(), seed);
}

#[test]
fn the_password_does_not_show_in_debug() {
    let seed = Seed::parse(FULL).unwrap();
    assert!(!format!("{seed:?}").contains("horse"));
}

/// Text, and what the error must say.
const WRONG: &[(&str, &str)] = &[
    ("hostname = 5", "line 1, column 12: hostname: invalid type"),
    (
        "hostnme = 'a'",
        "line 1, column 1: hostnme: unknown field `hostnme`, expected one of",
    ),
    (
        "\nhostname = 'a b'",
        "line 2, column 12: hostname: 'a b' is not a host name; use letters",
    ),
    ("hostname = '-a'", "is not a host name"),
    ("hostname = 'a..b'", "is not a host name"),
    ("hostname = '10.0.0.1'", "is not a host name"),
    ("hostname = ''", "is not a host name"),
    (
        "[admin]",
        "line 1, column 1: admin: set password or password_hash",
    ),
    (
        "[admin]\npassword = 'short'",
        "line 2, column 12: admin.password: a password has 8 to 1024",
    ),
    (
        "[admin]\npassword = 'long enough'\npassword_hash = 'x'",
        "line 3, column 17: admin.password_hash: there is a password and",
    ),
    (
        "[admin]\npassword_hash = '$6$salt$hash'",
        "admin.password_hash: not an argon2id hash",
    ),
    (
        "[[network]]\nmethod = 'dhcp'",
        "network: missing field `mac`",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34'",
        "line 2, column 7: network.mac: '52:54:00:12:34' is not a MAC address; write six",
    ),
    (
        "[[network]]\nmac = 'ff:ff:ff:ff:ff:ff'",
        "is not the address of a network card",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'auto'",
        "line 3, column 10: network.method: unknown variant `auto`, expected one of `dhcp`, `static`, `off`",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'",
        "network.address: method = \"static\" needs an address",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\naddress = '192.0.2.1/24'",
        "line 3, column 11: network.address: only a link with method = \"static\"",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'\naddress = '192.0.2.1'",
        "not an address with a prefix length",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'\naddress = '192.0.2.1/33'",
        "not a number from 1 to 32",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'\naddress = '192.0.2.255/24'",
        "broadcast",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'\naddress = '192.0.2.10/24'\ngateway = '192.0.3.1'",
        "line 5, column 11: network.gateway: 192.0.3.1 is outside the network of 192.0.2.10/24",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmethod = 'static'\naddress = '192.0.2.10/24'\ngateway = '192.0.2.10'",
        "own address",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\nmtu = 1000",
        "an MTU is 1280 to 65535 bytes (less only with",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\n[[network]]\nmac = '52:54:00:12:34:56'",
        "line 4, column 7: network.mac: 52:54:00:12:34:56 is listed twice",
    ),
    (
        "[[network]]\nmac = '52:54:00:12:34:56'\ndns = ['dns.example.org']",
        "line 3",
    ),
    (
        "[data]\nstorage = 'disk'",
        "data.storage: unknown variant `disk`, expected `auto` or `ram`",
    ),
    ("hostname = 'ä", "line 1"),
    ("= ", "line 1"),
    ("[", "line 1"),
    ("hostname = 'a'\nhostname = 'b'", "line 2"),
];

#[test]
fn errors_name_place_field_and_fix() {
    for (text, expected) in WRONG {
        let error = Seed::parse(text).expect_err(text).to_string();
        assert!(
            error.contains(expected),
            "{text:?}\n  says {error:?}\n  not  {expected:?}"
        );
    }
}

#[test]
fn the_readme_shows_a_seed_that_is_accepted() {
    let readme = include_str!("../../../../README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(Seed::parse(example).unwrap().network.len(), 1);
}
