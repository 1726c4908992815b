//! Requests to the kernel's packet filter, nf_tables, about frames that bridges hand to the host
//! (`linux/netfilter/nf_tables.h`). Numbers in it are big-endian.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::attributes::Body;
use super::netlink::Request;

/// `NFPROTO_BRIDGE`
const BRIDGE: u8 = 7;

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;

/// Messages around the changes that are made together (`NFNL_MSG_BATCH_…`).
const BEGIN: u16 = 16;
const END: u16 = 17;

/// Frames for the host itself (`NF_BR_LOCAL_IN`).
const LOCAL_IN: u32 = 1;

/// Where filters of bridges come in the order of the hook (`NF_BR_PRI_FILTER_BRIDGED`).
const FILTER_PRIORITY: i32 = -200;

/// `NFT_REG_1` and `NFT_REG_VERDICT`
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// `NF_DROP`
const DROP: u32 = 0;

/// Kinds of values that `meta` loads (`NFT_META_…`).
const META_PROTOCOL: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;

/// Offsets count from the header above IP (`NFT_PAYLOAD_TRANSPORT_HEADER`).
const TRANSPORT_HEADER: u32 = 2;

const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMPV6: u8 = 58;

/// Attributes, by what they belong to.
mod attribute {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const LIST_ELEMENT: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const META_REGISTER: u16 = 1;
    pub(super) const META_KEY: u16 = 2;
    pub(super) const PAYLOAD_REGISTER: u16 = 1;
    pub(super) const PAYLOAD_BASE: u16 = 2;
    pub(super) const PAYLOAD_OFFSET: u16 = 3;
    pub(super) const PAYLOAD_LENGTH: u16 = 4;
    pub(super) const CMP_REGISTER: u16 = 1;
    pub(super) const CMP_OPERATION: u16 = 2;
    pub(super) const CMP_DATA: u16 = 3;
    pub(super) const IMMEDIATE_REGISTER: u16 = 1;
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
}

/// `struct nfgenmsg`: family, version, resource.
fn header(family: u8, resource: u16) -> Body {
    let [high, low] = resource.to_be_bytes();
    Body::new(&[family, 0, high, low])
}

fn request(message: libc::c_int, flags: u16, body: Body) -> Request {
    // Messages of a part of netfilter have its number before theirs, which is a byte.
    let message = message.to_ne_bytes()[0];
    Request::new(NFTABLES << 8 | u16::from(message), flags, body)
}

/// Begins the changes that are made together.
pub(super) fn begin() -> Request {
    Request::new(BEGIN, 0, header(0, NFTABLES))
}

/// Ends them.
pub(super) fn end() -> Request {
    Request::new(END, 0, header(0, NFTABLES))
}

/// Makes a table, or leaves one that is there as it is.
pub(super) fn new_table(name: &str) -> Request {
    request(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, table(name))
}

/// What has the table gone, with all that is in it, whether it was there or not.
pub(super) fn no_table(name: &str) -> Vec<Request> {
    // One that is not there cannot be removed.
    let remove = request(libc::NFT_MSG_DELTABLE, 0, table(name));
    vec![new_table(name), remove]
}

fn table(name: &str) -> Body {
    header(BRIDGE, 0).with_text(attribute::TABLE_NAME, name)
}

/// Makes a chain that is asked about every frame for the host.
pub(super) fn new_input_chain(table: &str, name: &str) -> Request {
    let hook = Body::default()
        .with(attribute::HOOK_NUMBER, LOCAL_IN.to_be_bytes())
        .with(attribute::HOOK_PRIORITY, FILTER_PRIORITY.to_be_bytes());
    let body = header(BRIDGE, 0)
        .with_text(attribute::CHAIN_TABLE, table)
        .with_text(attribute::CHAIN_NAME, name)
        .with_nested(attribute::CHAIN_HOOK, hook)
        .with_text(attribute::CHAIN_TYPE, "filter");
    request(libc::NFT_MSG_NEWCHAIN, NLM_F_CREATE, body)
}

/// A rule: conditions that must all hold, and what is done then.
#[derive(Default)]
pub(super) struct Rule {
    expressions: Body,
}

impl Rule {
    /// The frame came in by an interface whose name begins so.
    pub(super) fn came_in_by(self, prefix: &str) -> Self {
        // Without a zero at its end: only as many bytes are compared as there are.
        self.meta(META_IIFNAME).equal(prefix.as_bytes())
    }

    /// It is an ICMPv6 message of that type.
    pub(super) fn icmpv6_type(self, kind: u8) -> Self {
        self.meta(META_PROTOCOL)
            .equal(&ETHERTYPE_IPV6.to_be_bytes())
            .meta(META_L4PROTO)
            .equal(&[PROTOCOL_ICMPV6])
            .transport_byte(0)
            .equal(&[kind])
    }

    /// It is dropped.
    pub(super) fn dropped(self) -> Self {
        let code = Body::default().with(attribute::VERDICT_CODE, DROP.to_be_bytes());
        let verdict = Body::default().with_nested(attribute::DATA_VERDICT, code);
        let data = Body::default()
            .with(attribute::IMMEDIATE_REGISTER, VERDICT.to_be_bytes())
            .with_nested(attribute::IMMEDIATE_DATA, verdict);
        self.expression("immediate", data)
    }

    /// Appends the rule to a chain.
    pub(super) fn append(self, table: &str, chain: &str) -> Request {
        let body = header(BRIDGE, 0)
            .with_text(attribute::RULE_TABLE, table)
            .with_text(attribute::RULE_CHAIN, chain)
            .with_nested(attribute::RULE_EXPRESSIONS, self.expressions);
        request(libc::NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)
    }

    /// Loads something known of the frame.
    fn meta(self, key: u32) -> Self {
        let data = Body::default()
            .with(attribute::META_REGISTER, REGISTER.to_be_bytes())
            .with(attribute::META_KEY, key.to_be_bytes());
        self.expression("meta", data)
    }

    /// Loads a byte of the header above IP.
    fn transport_byte(self, offset: u32) -> Self {
        let data = Body::default()
            .with(attribute::PAYLOAD_REGISTER, REGISTER.to_be_bytes())
            .with(attribute::PAYLOAD_BASE, TRANSPORT_HEADER.to_be_bytes())
            .with(attribute::PAYLOAD_OFFSET, offset.to_be_bytes())
            .with(attribute::PAYLOAD_LENGTH, 1_u32.to_be_bytes());
        self.expression("payload", data)
    }

    /// What was loaded is this (`NFT_CMP_EQ`).
    fn equal(self, value: &[u8]) -> Self {
        let value = Body::default().with(attribute::DATA_VALUE, value);
        let data = Body::default()
            .with(attribute::CMP_REGISTER, REGISTER.to_be_bytes())
            .with(attribute::CMP_OPERATION, 0_u32.to_be_bytes())
            .with_nested(attribute::CMP_DATA, value);
        self.expression("cmp", data)
    }

    fn expression(self, name: &str, data: Body) -> Self {
        let expression = Body::default()
            .with_text(attribute::EXPRESSION_NAME, name)
            .with_nested(attribute::EXPRESSION_DATA, data);
        Self {
            expressions: self
                .expressions
                .with_nested(attribute::LIST_ELEMENT, expression),
        }
    }
}
