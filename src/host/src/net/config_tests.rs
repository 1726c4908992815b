//! What the configuration accepts and refuses.

use std::net::IpAddr;
use std::path::PathBuf;

use super::config::*;
use super::error::NetError;
use crate::seed::MacAddress;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

fn problem(addressing: Addressing) -> String {
    let config = HostNetworkConfig::appliance(
        None,
        vec![LinkConfig {
            mac: MAC,
            addressing,
        }],
    );
    config.validate().expect_err("refused").to_string()
}

fn ipv4(address: &str, gateway: [u8; 4]) -> Addressing {
    let addresses = vec![address.parse().expect("an address")];
    Addressing {
        ipv4: Ipv4Config::Static {
            addresses,
            gateway: Some(gateway.into()),
        },
        ..Addressing::default()
    }
}

#[test]
fn what_is_shipped_is_valid() {
    HostNetworkConfig::appliance(Some("alpha".to_owned()), Vec::new())
        .validate()
        .expect("the appliance");
    HostNetworkConfig::hosted(PathBuf::from("/run/lodge/net"))
        .validate()
        .expect("a host");
}

#[test]
fn errors_name_the_field_and_the_fix() {
    let outside = problem(ipv4("192.0.2.10/24", [192, 0, 3, 1]));
    assert_eq!(
        outside,
        "links[0].ipv4.gateway: 192.0.3.1 is in no subnet of the addresses: correct it or the prefix length"
    );
    let own = problem(ipv4("192.0.2.10/24", [192, 0, 2, 10]));
    assert!(
        own.starts_with("links[0].ipv4.gateway: 192.0.2.10 is an address of this host itself"),
        "{own}"
    );
    let none = Ipv6Config::Static {
        addresses: Vec::new(),
        gateway: None,
    };
    let none = problem(Addressing {
        ipv6: none,
        ..Addressing::default()
    });
    assert!(
        none.starts_with("links[0].ipv6.addresses: is empty"),
        "{none}"
    );
    let mtu = problem(Addressing {
        mtu: Some(1000),
        ..Addressing::default()
    });
    assert_eq!(mtu, "links[0].mtu: 1000 is out of range: use 1280 to 65535");
    let dns = problem(Addressing {
        dns: vec![IpAddr::from([0, 0, 0, 0])],
        ..Addressing::default()
    });
    assert_eq!(dns, "links[0].dns: 0.0.0.0 cannot be a name server");
    let search = problem(Addressing {
        search: vec!["a b".to_owned()],
        ..Addressing::default()
    });
    assert_eq!(search, "links[0].search: 'a b' is not a domain name");
}

#[test]
fn a_small_mtu_is_fine_without_ipv6() {
    let addressing = Addressing {
        mtu: Some(600),
        ipv6: Ipv6Config::Disabled,
        ..Addressing::default()
    };
    addressing.validate("link").expect("valid");
}

#[test]
fn networks_must_not_collide() {
    let mut config = HostNetworkConfig::appliance(None, Vec::new());
    for bad in ["", "-a", "a/b", "a b", &"a".repeat(64)] {
        assert!(
            NetworkSpec::isolated(bad).validate("network").is_err(),
            "'{bad}' was accepted"
        );
    }
    for bad in [
        "br0",
        "lodge",
        "lodge01",
        "lodge10000",
        "lodge-1",
        "lodge0x",
    ] {
        let spec = NetworkSpec {
            bridge: Some(bad.to_owned()),
            ..NetworkSpec::isolated("a")
        };
        assert!(spec.validate("network").is_err(), "'{bad}' was accepted");
    }
    let addresses = vec!["10.0.0.1/24".parse().expect("an address")];
    assert!(
        NetworkSpec {
            addresses,
            ..NetworkSpec::default_network()
        }
        .validate("network")
        .is_err()
    );
    let uplink = |name: &str| NetworkSpec {
        uplink: Uplink::Mac(MAC),
        ..NetworkSpec::isolated(name)
    };
    config.networks.extend([uplink("a"), uplink("b")]);
    assert_eq!(
        config.validate(),
        Err(NetError::UplinkTaken {
            mac: MAC,
            network: "a".to_owned()
        })
    );
}

#[test]
fn text_forms() {
    let address: HostAddress = "192.0.2.10/24".parse().expect("an address");
    assert_eq!(
        serde_json::to_string(&address).expect("text"),
        "\"192.0.2.10/24\""
    );
    for bad in [
        "192.0.2.10",
        "192.0.2.10/33",
        "192.0.2.10/0",
        "0.0.0.0/8",
        "127.0.0.1/8",
        "ff02::1/64",
        "::1/128",
        "x/24",
    ] {
        assert!(bad.parse::<HostAddress>().is_err(), "'{bad}' was accepted");
    }
    let link = LinkConfig {
        mac: MAC,
        addressing: ipv4("192.0.2.10/24", [192, 0, 2, 1]),
    };
    let text = serde_json::to_string(&link).expect("text");
    assert_eq!(
        serde_json::from_str::<LinkConfig>(&text).expect("a link"),
        link
    );
    assert!(
        serde_json::from_str::<LinkConfig>("{\"mac\":\"52:54:00:00:00:01\",\"mtv\":1500}").is_err(),
        "a misspelt field"
    );
    let uplink = serde_json::to_string(&Uplink::Mac(MAC)).expect("text");
    assert_eq!(uplink, "{\"kind\":\"mac\",\"mac\":\"52:54:00:00:00:01\"}");
}
