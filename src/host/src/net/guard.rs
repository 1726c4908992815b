//! Keeps guests from configuring the host.
//!
//! A guest is on the same Ethernet as the host. What it says to other machines is its own affair, but a router
//! advertisement or a redirect from it must not change the host's addresses and routes. (DHCP needs no rule: the
//! client listens below the bridge, where no guest is.)

use nlink::netlink::nftables::{BaseChain, Chain, Family, FilterHook, Priority, Rule};
use nlink::netlink::{Connection, Error, Nftables};

use super::error::NetError;
use super::kernel::failed;
use super::tap::TAP_PREFIX;

/// The table in the kernel. Its chain sees only what bridges hand to the host itself.
const TABLE: &str = "lodge";
const CHAIN: &str = "host";

/// ICMPv6 messages that configure (RFC 4861): router advertisement, redirect.
const CONFIGURING: [u8; 2] = [134, 137];

/// Puts the rules in place, in one step, whatever an earlier version left there.
pub(super) async fn install() -> Result<(), NetError> {
    let action = "keep guests from configuring the host's IPv6";
    rules()
        .await
        .map_err(|error| match error.errno().map(i32::abs) {
            Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ENOENT) => {
                NetError::KindUnsupported { kind: "nf_tables" }
            }
            _ => failed(action, &error),
        })
}

async fn rules() -> Result<(), Error> {
    let connection = Connection::<Nftables>::new()?;
    let tables = connection.list_tables_in(Family::Bridge).await?;
    let mut change = connection.transaction();
    if tables.iter().any(|table| table.name == TABLE) {
        change = change.del_table(TABLE, Family::Bridge);
    }
    let chain = Chain::new(TABLE, CHAIN)?.family(Family::Bridge);
    change = change.add_table(TABLE, Family::Bridge);
    change = change.add_chain(chain.base(BaseChain::filter(FilterHook::Input, Priority::Filter)));
    for kind in CONFIGURING {
        let rule = Rule::new(TABLE, CHAIN).family(Family::Bridge);
        change = change.add_rule(
            rule.match_iif_prefix(TAP_PREFIX)
                .match_icmpv6_type(kind)
                .drop(),
        );
    }
    change.commit(&connection).await
}

/// Takes the rules away. That there are none is fine, and so is a kernel that knows none.
pub(super) async fn remove() {
    if let Ok(connection) = Connection::<Nftables>::new() {
        // Nothing else can be done about a table that stays; it does no harm.
        let _ = connection.del_table_if_exists(TABLE, Family::Bridge).await;
    }
}
