//! Keeps guests from configuring the host.
//!
//! A guest is on the same Ethernet as the host. What it says to other machines is its own affair, but a router
//! advertisement or a redirect from it must not change the host's addresses and routes. (DHCP needs no rule: the
//! client listens below the bridge, where no guest is.)

use super::error::NetError;
use super::kernel::failed;
use super::netlink::{Netlink, NetlinkError, Request};
use super::nftables::{self, Rule};
use super::tap::TAP_PREFIX;

/// The table in the kernel. Its chain sees only what bridges hand to the host itself.
const TABLE: &str = "lodge";
const CHAIN: &str = "host";

/// ICMPv6 messages that configure (RFC 4861): router advertisement, redirect.
const CONFIGURING: [u8; 2] = [134, 137];

/// Puts the rules in place, in one step, whatever an earlier version left there.
pub(super) async fn install() -> Result<(), NetError> {
    let action = "keep guests from configuring the host's IPv6";
    let mut changes = nftables::no_table(TABLE);
    changes.push(nftables::new_table(TABLE));
    changes.push(nftables::new_input_chain(TABLE, CHAIN));
    for kind in CONFIGURING {
        let rule = Rule::default()
            .came_in_by(TAP_PREFIX)
            .icmpv6_type(kind)
            .dropped();
        changes.push(rule.append(TABLE, CHAIN));
    }
    apply(changes).await.map_err(|error| match error.errno() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ENOENT) => {
            NetError::KindUnsupported { kind: "nf_tables" }
        }
        _ => failed(action, &error),
    })
}

/// Takes the rules away. That there are none is fine, and so is a kernel that knows none.
pub(super) async fn remove() {
    // Nothing else can be done about a table that stays; it does no harm.
    let _ = apply(nftables::no_table(TABLE)).await;
}

async fn apply(changes: Vec<Request>) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    netlink
        .batch(nftables::begin(), changes, nftables::end())
        .await
}
