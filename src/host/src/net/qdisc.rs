//! Requests to the kernel's traffic control about queueing disciplines (`linux/pkt_sched.h`, `linux/pkt_cls.h`).
//!
//! Rates are in bytes per second, amounts in bytes; what is more than the kernel can hold is as much as it can.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::attributes::Body;
use super::netlink::Request;

/// Numbers of messages (`linux/rtnetlink.h`).
const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const NEW_FILTER: u16 = 44;

/// The handle that the kernel's ingress discipline always has.
const INGRESS_HANDLE: u32 = 0xffff_0000;

/// A filter that is asked first, about frames of all protocols (`ETH_P_ALL`, big-endian).
const FIRST_FOR_ALL: u32 = 1 << 16 | 0x0300;

/// Sizes of frames are taken as they are (`TC_LINKLAYER_ETHERNET`).
const ETHERNET: u8 = 1;

/// The kernel's ticks are of 64 ns.
const TICKS_PER_SECOND: u128 = 1_000_000_000 / 64;

/// Entries of the table of times that policers are given, each of four bytes.
const TABLE: [u8; 1024] = [0; 1024];

/// Action on what is too much (`TC_ACT_SHOT`).
const DROP: u32 = 2;

/// Attributes, by what they belong to.
mod attribute {
    pub(super) const KIND: u16 = 1;
    pub(super) const OPTIONS: u16 = 2;
    pub(super) const TBF_PARAMETERS: u16 = 1;
    pub(super) const TBF_RATE64: u16 = 4;
    pub(super) const TBF_BURST: u16 = 6;
    pub(super) const MATCHALL_ACTION: u16 = 2;
    pub(super) const FIRST_ACTION: u16 = 1;
    pub(super) const POLICE_PARAMETERS: u16 = 1;
    pub(super) const POLICE_RATE_TABLE: u16 = 2;
    pub(super) const POLICE_RATE64: u16 = 8;
}

/// Where a discipline is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Frames going out.
    Root,
    /// Frames coming in.
    Ingress,
}

impl Place {
    fn parent(self) -> u32 {
        match self {
            Self::Root => 0xffff_ffff,
            Self::Ingress => 0xffff_fff1,
        }
    }
}

/// Frames wait until there are tokens for them (`tbf`).
pub(super) struct TokenBucket {
    pub(super) rate: u64,
    pub(super) burst: u64,
    /// What may be waiting at most.
    pub(super) limit: u64,
}

/// Frames that there are no tokens for are dropped (`police`).
pub(super) struct Police {
    pub(super) rate: u64,
    pub(super) burst: u64,
    /// A larger frame is always too much.
    pub(super) largest: u64,
}

/// `struct tcmsg`: family, index of the link, handle, parent, and for filters their place and protocol.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> Body {
    let words = [0, index, handle, parent, info];
    Body::new(&words.map(u32::to_ne_bytes).concat())
}

fn word(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes()
}

/// `struct tc_ratespec`
fn rate_spec(cell_log: u8, rate: u64) -> Vec<u8> {
    [&[cell_log, ETHERNET, 0, 0, 0, 0, 0, 0], &word(rate)[..]].concat()
}

const NO_RATE: [u8; 12] = [0; 12];

/// Has what a link sends wait in a token bucket, whatever it did before.
pub(super) fn set_bucket(index: u32, bucket: &TokenBucket) -> Request {
    // struct tc_tbf_qopt: rate, peak rate, limit, burst as a time (it is given in bytes below), largest frame.
    let parameters = [
        &rate_spec(0, bucket.rate)[..],
        &NO_RATE,
        &word(bucket.limit),
        &[0; 8],
    ];
    let options = Body::default()
        .with(attribute::TBF_PARAMETERS, parameters.concat())
        .with(attribute::TBF_BURST, word(bucket.burst))
        .with(attribute::TBF_RATE64, bucket.rate.to_ne_bytes());
    let body = header(index, 0, Place::Root.parent(), 0)
        .with_text(attribute::KIND, "tbf")
        .with_nested(attribute::OPTIONS, options);
    Request::new(NEW_QDISC, NLM_F_CREATE | NLM_F_REPLACE, body)
}

/// Removes a discipline.
pub(super) fn remove(index: u32, place: Place) -> Request {
    Request::new(DEL_QDISC, 0, header(index, 0, place.parent(), 0))
}

/// Makes the discipline that filters of frames coming in belong to.
pub(super) fn add_ingress(index: u32) -> Request {
    let body = header(index, INGRESS_HANDLE, Place::Ingress.parent(), 0);
    let body = body.with_text(attribute::KIND, "ingress");
    Request::new(NEW_QDISC, NLM_F_CREATE | NLM_F_EXCL, body)
}

/// Polices every frame that comes in.
pub(super) fn police_all(index: u32, police: &Police) -> Request {
    let ticks = u128::from(police.burst) * TICKS_PER_SECOND / u128::from(police.rate.max(1));
    let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
    // struct tc_police: index, action, limit, burst as a time, largest frame, rate, peak rate, and what only the kernel sets.
    let parameters = [
        &[0; 4][..],
        &DROP.to_ne_bytes(),
        &[0; 4],
        &word(ticks),
        &word(police.largest),
        // The size of a cell of the table, which must be there although it is not looked into any more.
        &rate_spec(10, police.rate),
        &NO_RATE,
        &[0; 12],
    ];
    let options = Body::default()
        .with(attribute::POLICE_PARAMETERS, parameters.concat())
        .with(attribute::POLICE_RATE_TABLE, TABLE)
        .with(attribute::POLICE_RATE64, police.rate.to_ne_bytes());
    let action = Body::default()
        .with_text(attribute::KIND, "police")
        .with_nested(attribute::OPTIONS, options);
    let actions = Body::default().with_nested(attribute::FIRST_ACTION, action);
    let options = Body::default().with_nested(attribute::MATCHALL_ACTION, actions);
    let body = header(index, 0, INGRESS_HANDLE, FIRST_FOR_ALL)
        .with_text(attribute::KIND, "matchall")
        .with_nested(attribute::OPTIONS, options);
    Request::new(NEW_FILTER, NLM_F_CREATE | NLM_F_EXCL, body)
}
