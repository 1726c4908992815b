//! The client against a made-up server and a made-up clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::lease::Lease;
use super::machine::{Action, Destination, Input, Machine};
use super::message::{Message, MessageType, option};
use crate::net::state::Dhcp4Phase;
use crate::seed::MacAddress;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const LEASE: u32 = 800;

fn random() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A client, its time, and what it last sent.
struct Bench {
    machine: Machine,
    now: Duration,
    sent: Vec<(Message, Destination)>,
    probes: usize,
    granted: Vec<Lease>,
    lost: usize,
}

impl Bench {
    fn new(lease: Option<Lease>) -> Self {
        Self::at(lease, Duration::from_secs(1000))
    }

    fn at(lease: Option<Lease>, now: Duration) -> Self {
        let machine = Machine::new(MAC, MAC, Some("alpha".to_owned()), lease, now, random);
        Self {
            machine,
            now,
            sent: Vec::new(),
            probes: 0,
            granted: Vec::new(),
            lost: 0,
        }
    }

    fn input(&mut self, input: Input<'_>) {
        for action in self.machine.handle(self.now, input) {
            match action {
                Action::Send { message, to, .. } => self.sent.push((message, to)),
                Action::Probe(_) => self.probes += 1,
                Action::Granted(lease) => self.granted.push(lease),
                Action::Lost(_) => self.lost += 1,
            }
        }
    }

    /// Goes to the next deadline.
    fn tick(&mut self) {
        self.now = self
            .machine
            .deadline()
            .expect("something to wait for")
            .max(self.now);
        self.input(Input::Timer);
    }

    fn last(&self) -> &(Message, Destination) {
        self.sent.last().expect("something was sent")
    }

    fn answer(&mut self, kind: MessageType, address: Ipv4Addr) {
        self.answer_from(kind, address, SERVER);
    }

    fn answer_from(&mut self, kind: MessageType, address: Ipv4Addr, server: Ipv4Addr) {
        let mut message = Message::request(kind, self.last().0.xid, MAC);
        message.reply = true;
        message
            .options
            .insert(option::SERVER_ID, server.octets().to_vec());
        if kind != MessageType::Nak {
            message.yiaddr = address;
            message
                .options
                .insert(option::LEASE_TIME, LEASE.to_be_bytes().to_vec());
            message
                .options
                .insert(option::SUBNET_MASK, vec![255, 255, 255, 0]);
        }
        self.input(Input::Message(&message, SERVER_MAC));
    }

    fn bound(mut self) -> Self {
        self.input(Input::Carrier(true));
        self.answer(MessageType::Offer, ADDRESS);
        self.answer(MessageType::Ack, ADDRESS);
        self.tick();
        self.tick();
        assert_eq!(self.machine.phase(), Dhcp4Phase::Bound);
        assert_eq!(self.granted.len(), 1);
        self
    }
}

#[test]
fn acquires_after_asking_for_conflicts() {
    let mut bench = Bench::new(None);
    assert_eq!(
        bench.machine.deadline(),
        None,
        "nothing to do without carrier"
    );
    bench.input(Input::Carrier(true));
    let (discover, to) = bench.last().clone();
    assert_eq!(
        (discover.kind, to),
        (MessageType::Discover, Destination::Broadcast)
    );
    assert_eq!(discover.options[&option::CLIENT_ID], [1, 2, 0, 0, 0, 0, 1]);
    assert_eq!(discover.text(option::HOST_NAME).as_deref(), Some("alpha"));
    bench.answer(MessageType::Offer, ADDRESS);
    let request = bench.last().0.clone();
    assert_eq!(request.kind, MessageType::Request);
    assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.address(option::SERVER_ID), Some(SERVER));
    bench.answer(MessageType::Ack, ADDRESS);
    assert!(bench.granted.is_empty(), "not before the probes");
    bench.tick();
    bench.tick();
    assert_eq!((bench.probes, bench.granted.len()), (2, 1));
    assert_eq!(bench.granted[0].address, ADDRESS);
    assert_eq!(bench.granted[0].obtained, Duration::from_secs(1000));
}

#[test]
fn discover_backs_off_for_ever() {
    let mut bench = Bench::new(None);
    bench.input(Input::Carrier(true));
    for _ in 0..200 {
        bench.tick();
    }
    let elapsed = bench.now.as_secs() - 1000;
    assert!(
        (190 * 57..200 * 71).contains(&elapsed),
        "200 tries took {elapsed} s"
    );
    assert!(
        bench
            .sent
            .iter()
            .all(|(message, _)| message.kind == MessageType::Discover)
    );
}

#[test]
fn a_server_that_offers_but_never_acknowledges_is_given_up() {
    let mut bench = Bench::new(None);
    bench.input(Input::Carrier(true));
    bench.answer(MessageType::Offer, ADDRESS);
    while bench.machine.phase() == Dhcp4Phase::Requesting {
        bench.tick();
    }
    assert_eq!(bench.machine.phase(), Dhcp4Phase::Discovering);
    assert!(bench.now < Duration::from_secs(1020));
}

#[test]
fn foreign_answers_count_for_nothing() {
    let mut bench = Bench::new(None);
    bench.input(Input::Carrier(true));
    let mut message = Message::request(MessageType::Offer, bench.last().0.xid ^ 1, MAC);
    message.reply = true;
    bench.input(Input::Message(&message, SERVER_MAC));
    bench.answer(MessageType::Ack, ADDRESS);
    assert_eq!(
        bench.machine.phase(),
        Dhcp4Phase::Discovering,
        "acknowledged without an offer"
    );
    bench.answer(MessageType::Offer, ADDRESS);
    let other = Ipv4Addr::new(192, 0, 2, 99);
    bench.answer_from(MessageType::Nak, ADDRESS, other);
    bench.answer_from(MessageType::Ack, ADDRESS, other);
    assert_eq!(
        (bench.machine.phase(), bench.probes),
        (Dhcp4Phase::Requesting, 0)
    );
}

#[test]
fn renews_at_t1_with_its_server() {
    let mut bench = Bench::new(None).bound();
    bench.tick();
    assert_eq!(bench.now, Duration::from_secs(1400));
    let (request, to) = bench.last().clone();
    assert_eq!(
        (request.kind, request.ciaddr),
        (MessageType::Request, ADDRESS)
    );
    assert_eq!(
        to,
        Destination::Server {
            mac: SERVER_MAC,
            address: SERVER
        }
    );
    assert_eq!(request.address(option::SERVER_ID), None);
    bench.answer(MessageType::Ack, ADDRESS);
    assert_eq!((bench.granted.len(), bench.lost), (2, 0));
    assert_eq!(bench.granted[1].expires(), Some(Duration::from_secs(2200)));
}

#[test]
fn rebinds_at_t2_and_loses_the_lease_at_its_end() {
    let mut bench = Bench::new(None).bound();
    let sent = bench.sent.len();
    while bench.lost == 0 {
        bench.tick();
    }
    assert_eq!(bench.now, Duration::from_secs(1800));
    let asked = &bench.sent[sent..];
    assert!(
        asked
            .iter()
            .any(|(message, to)| message.ciaddr == ADDRESS && *to == Destination::Broadcast),
        "rebinding"
    );
    assert!(asked.len() < 12, "{} messages", asked.len());
    assert_eq!(bench.last().0.kind, MessageType::Discover);
}

#[test]
fn a_refusal_in_every_phase_starts_over() {
    for phase in [
        Dhcp4Phase::Requesting,
        Dhcp4Phase::Renewing,
        Dhcp4Phase::Rebinding,
        Dhcp4Phase::Rebooting,
    ] {
        let mut bench = Bench::new(None);
        if phase == Dhcp4Phase::Requesting {
            bench.input(Input::Carrier(true));
            bench.answer(MessageType::Offer, ADDRESS);
        } else {
            bench = bench.bound();
        }
        if phase == Dhcp4Phase::Rebooting {
            bench.input(Input::Carrier(false));
            bench.input(Input::Carrier(true));
        }
        while bench.machine.phase() != phase {
            bench.tick();
        }
        let had_lease = usize::from(phase != Dhcp4Phase::Requesting);
        bench.answer(MessageType::Nak, ADDRESS);
        assert_eq!(
            (bench.machine.phase(), bench.lost),
            (Dhcp4Phase::Discovering, had_lease),
            "{phase:?}"
        );
    }
}

#[test]
fn refusals_in_a_row_are_slowed_down() {
    let mut bench = Bench::new(None);
    bench.input(Input::Carrier(true));
    for _ in 0..50 {
        while bench.last().0.kind != MessageType::Discover
            || bench.machine.phase() != Dhcp4Phase::Discovering
        {
            bench.tick();
        }
        bench.answer(MessageType::Offer, ADDRESS);
        bench.answer(MessageType::Nak, ADDRESS);
        bench.tick();
    }
    assert!(
        bench.now > Duration::from_secs(1000 + 40 * 60),
        "{:?}",
        bench.now
    );
}

#[test]
fn a_taken_address_is_declined() {
    let mut bench = Bench::new(None);
    bench.input(Input::Carrier(true));
    bench.answer(MessageType::Offer, ADDRESS);
    bench.answer(MessageType::Ack, ADDRESS);
    bench.input(Input::Claim(ADDRESS, MAC));
    assert_eq!(
        bench.machine.phase(),
        Dhcp4Phase::Requesting,
        "our own echo"
    );
    bench.input(Input::Claim(ADDRESS, MacAddress([2, 0, 0, 0, 0, 9])));
    let decline = bench.last().0.clone();
    assert_eq!(
        (decline.kind, decline.address(option::REQUESTED_ADDRESS)),
        (MessageType::Decline, Some(ADDRESS))
    );
    assert!(bench.granted.is_empty());
    bench.tick();
    assert_eq!(bench.now, Duration::from_secs(1010));
    assert_eq!(bench.last().0.kind, MessageType::Discover);
}

#[test]
fn carrier_back_confirms_the_lease_without_giving_it_up() {
    let mut bench = Bench::new(None).bound();
    bench.input(Input::Carrier(false));
    assert_eq!(
        (bench.machine.phase(), bench.lost),
        (Dhcp4Phase::NoCarrier, 0)
    );
    bench.input(Input::Carrier(true));
    let (request, to) = bench.last().clone();
    assert_eq!(
        (request.kind, to),
        (MessageType::Request, Destination::Broadcast)
    );
    assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.ciaddr, Ipv4Addr::UNSPECIFIED);
    bench.answer(MessageType::Ack, ADDRESS);
    assert_eq!((bench.granted.len(), bench.lost), (2, 0));
}

#[test]
fn another_network_after_carrier_gives_another_lease() {
    let mut bench = Bench::new(None).bound();
    bench.input(Input::Carrier(false));
    bench.input(Input::Carrier(true));
    for _ in 0..4 {
        bench.tick();
    }
    assert_eq!(
        (bench.machine.phase(), bench.lost),
        (Dhcp4Phase::Discovering, 0),
        "silence: the old lease is kept"
    );
    let other = Ipv4Addr::new(198, 51, 100, 7);
    bench.answer(MessageType::Offer, other);
    bench.answer(MessageType::Ack, other);
    bench.tick();
    bench.tick();
    assert_eq!(bench.granted.last().map(|lease| lease.address), Some(other));
}

#[test]
fn a_lease_ends_without_carrier_too() {
    let mut bench = Bench::new(None).bound();
    bench.input(Input::Carrier(false));
    bench.tick();
    assert_eq!((bench.now, bench.lost), (Duration::from_secs(1800), 1));
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn flapping_sends_one_message_a_flap() {
    let mut bench = Bench::new(None).bound();
    let sent = bench.sent.len();
    for _ in 0..1000 {
        bench.input(Input::Carrier(false));
        bench.input(Input::Carrier(true));
        bench.input(Input::Carrier(true));
    }
    assert_eq!(bench.sent.len() - sent, 1000);
    assert_eq!(bench.lost, 0);
}

#[test]
fn a_restart_takes_the_lease_over_and_renews_it() {
    let lease = Bench::new(None).bound().granted.remove(0);
    let mut bench = Bench::at(Some(lease.clone()), Duration::from_secs(1100));
    assert_eq!(bench.machine.lease(), Some(&lease));
    bench.input(Input::Carrier(true));
    assert_eq!(bench.machine.phase(), Dhcp4Phase::Renewing);
    bench.answer(MessageType::Ack, ADDRESS);
    assert_eq!((bench.granted.len(), bench.lost), (1, 0));
    let late = Bench::at(Some(lease.clone()), Duration::from_secs(1801));
    assert_eq!(late.machine.lease(), None);
    let other_link = Machine::new(
        SERVER_MAC,
        SERVER_MAC,
        None,
        Some(lease),
        Duration::from_secs(1100),
        random,
    );
    assert_eq!(other_link.lease(), None);
}

#[test]
fn release_names_the_server() {
    let mut bench = Bench::new(None).bound();
    let Some(Action::Send {
        message,
        source,
        to,
    }) = bench.machine.release()
    else {
        panic!("nothing to send")
    };
    assert_eq!(
        (message.kind, message.ciaddr, source),
        (MessageType::Release, ADDRESS, ADDRESS)
    );
    assert_eq!(
        to,
        Destination::Server {
            mac: SERVER_MAC,
            address: SERVER
        }
    );
    assert_eq!(bench.machine.release(), None);
}
