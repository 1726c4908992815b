//! The DHCP client's state machine (RFC 2131, section 4.4), without clock and without sockets.
//!
//! It is told what happened and when, and answers with what to do and when to be called again, so that every
//! path of it, days of lease time included, is tested in microseconds.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::lease::Lease;
use super::message::{Message, MessageType, option};
use crate::net::state::Dhcp4Phase;
use crate::seed::MacAddress;

/// First wait for an answer; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// Requests for an offer that nobody acknowledges before looking for another server.
const REQUEST_TRIES: u32 = 4;
/// Requests for an earlier lease that nobody answers before looking for a new one. Servers that do not know the lease are silent (RFC 2131,
/// section 4.3.2), and one that does offers it again: waiting for longer only keeps a host that has restarted from its network.
const REBOOT_TRIES: u32 = 1;
/// Shortest time between renewals that nobody answers (RFC 2131, section 4.4.5).
const RENEW_WAIT: Duration = Duration::from_secs(60);
/// Questions whether somebody else has an address. RFC 5227 takes seconds for it; a machine that boots does not.
const PROBES: u32 = 2;
/// Time for an answer to each of them.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// Added for each refusal in a row, so that a server that grants and refuses in turn does not keep us busy.
const REFUSAL_WAIT: Duration = Duration::from_secs(10);
/// Least time between declining an address and asking again (RFC 2131, section 3.1).
const DECLINE_WAIT: Duration = Duration::from_secs(10);

/// What we ask servers for. Classless routes must come before the router (RFC 3442).
const PARAMETERS: [u8; 11] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::DNS_SERVER,
    option::HOST_NAME,
    option::DOMAIN_NAME,
    option::MTU,
    option::NTP_SERVER,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
    option::DOMAIN_SEARCH,
];

/// Largest message we take, in bytes, IP and UDP headers included.
const MAX_MESSAGE: u16 = 1500;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To everybody on the link.
    Broadcast,
    /// To one server, through the machine its last answer came from.
    Server { mac: MacAddress, address: Ipv4Addr },
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send a message from that address.
    Send {
        message: Message,
        source: Ipv4Addr,
        to: Destination,
    },
    /// Ask on the link who has that address.
    Probe(Ipv4Addr),
    /// This lease is to be used now; a renewed one comes this way too.
    Granted(Lease),
    /// The lease must not be used any more.
    Lost(&'static str),
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// The link gained or lost its signal.
    Carrier(bool),
    /// A message came from that Ethernet address.
    Message(&'a Message, MacAddress),
    /// Somebody at that Ethernet address says that the IPv4 address is theirs.
    Claim(Ipv4Addr, MacAddress),
    /// Nothing but time passed.
    Timer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    NoCarrier,
    Discovering { tries: u32 },
    Requesting { offer: Box<Lease>, tries: u32 },
    Probing { lease: Box<Lease>, sent: u32 },
    Rebooting { tries: u32 },
    Bound,
    Renewing,
    Rebinding,
}

/// The client of one link.
#[derive(Debug)]
pub(super) struct Machine {
    /// The link's permanent address: who we are.
    mac: MacAddress,
    /// The one it has now: where answers go.
    chaddr: MacAddress,
    hostname: Option<String>,
    phase: Phase,
    /// The lease in use. Also while looking for a better one.
    lease: Option<Lease>,
    /// Whether the lease is from before a restart of this process: the link was there all the time.
    resumed: bool,
    /// When to act next, apart from the end of the lease.
    deadline: Option<Duration>,
    xid: u32,
    /// When the message whose answer is awaited was first sent.
    sent: Duration,
    /// When looking for a lease began.
    began: Duration,
    /// Refusals since the last lease.
    refusals: u32,
    random: fn() -> u32,
}

impl Machine {
    /// A client without carrier. `lease` is one from before a restart; it is used if still valid.
    pub(super) fn new(
        mac: MacAddress,
        chaddr: MacAddress,
        hostname: Option<String>,
        lease: Option<Lease>,
        now: Duration,
        random: fn() -> u32,
    ) -> Self {
        let lease = lease.filter(|lease| lease.mac == mac && lease.is_valid(now));
        Self {
            mac,
            chaddr,
            hostname,
            phase: Phase::NoCarrier,
            resumed: lease.is_some(),
            lease,
            deadline: None,
            xid: random(),
            sent: now,
            began: now,
            refusals: 0,
            random,
        }
    }

    /// The lease in use.
    pub(super) const fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The phase, for people.
    pub(super) const fn phase(&self) -> Dhcp4Phase {
        match self.phase {
            Phase::NoCarrier => Dhcp4Phase::NoCarrier,
            Phase::Discovering { .. } => Dhcp4Phase::Discovering,
            Phase::Requesting { .. } | Phase::Probing { .. } => Dhcp4Phase::Requesting,
            Phase::Rebooting { .. } => Dhcp4Phase::Rebooting,
            Phase::Bound => Dhcp4Phase::Bound,
            Phase::Renewing => Dhcp4Phase::Renewing,
            Phase::Rebinding => Dhcp4Phase::Rebinding,
        }
    }

    /// When [`Input::Timer`] is due, since boot; `None` if only an event can change anything.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let end = self.lease.as_ref().and_then(Lease::expires);
        self.deadline.into_iter().chain(end).min()
    }

    /// Takes in what happened at `now`, since boot, and says what to do.
    pub(super) fn handle(&mut self, now: Duration, input: Input<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.expire(now, &mut actions);
        match input {
            Input::Carrier(true) if self.phase == Phase::NoCarrier => {
                self.connect(now, &mut actions);
            }
            Input::Carrier(true) => {}
            Input::Carrier(false) => {
                self.phase = Phase::NoCarrier;
                self.deadline = None;
                self.refusals = 0;
            }
            Input::Message(message, from) => self.receive(now, message, from, &mut actions),
            Input::Claim(address, from) => self.claim(now, address, from, &mut actions),
            Input::Timer if self.deadline.is_some_and(|deadline| deadline <= now) => {
                self.timer(now, &mut actions);
            }
            Input::Timer => {}
        }
        actions
    }

    /// The message that gives the lease back.
    pub(super) fn release(&mut self) -> Option<Action> {
        let lease = self.lease.take()?;
        let mut message = self.message(MessageType::Release);
        message.ciaddr = lease.address;
        message
            .options
            .insert(option::SERVER_ID, lease.server.octets().to_vec());
        let to = Destination::Server {
            mac: lease.server_mac,
            address: lease.server,
        };
        Some(Action::Send {
            message,
            source: lease.address,
            to,
        })
    }

    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.lease.as_ref().is_none_or(|lease| lease.is_valid(now)) {
            return;
        }
        self.lease = None;
        actions.push(Action::Lost("the lease ended and no server renewed it"));
        if matches!(
            self.phase,
            Phase::Bound | Phase::Renewing | Phase::Rebinding | Phase::Rebooting { .. }
        ) {
            self.discover(now, Duration::ZERO, actions);
        }
    }

    fn connect(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let resumed = std::mem::take(&mut self.resumed);
        if self.lease.is_none() {
            self.discover(now, Duration::ZERO, actions);
        } else if resumed {
            self.renew(now, actions);
        } else {
            // Another cable may lead to another network: ask whether the lease is good here.
            self.began = now;
            self.phase = Phase::Rebooting { tries: 0 };
            self.reboot(now, actions);
        }
    }

    fn timer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::NoCarrier => self.deadline = None,
            Phase::Discovering { .. } => self.send_discover(now, actions),
            Phase::Requesting { tries, .. } if *tries < REQUEST_TRIES => {
                self.send_request(now, actions);
            }
            Phase::Requesting { .. } => self.discover(now, Duration::ZERO, actions),
            Phase::Probing { sent, lease } if *sent < PROBES => {
                *sent += 1;
                actions.push(Action::Probe(lease.address));
                self.deadline = Some(now + PROBE_WAIT);
            }
            Phase::Probing { lease, .. } => {
                let lease = lease.as_ref().clone();
                self.bind(lease, actions);
            }
            Phase::Rebooting { tries } if *tries < REBOOT_TRIES => self.reboot(now, actions),
            Phase::Rebooting { .. } => self.discover(now, Duration::ZERO, actions),
            Phase::Bound | Phase::Renewing | Phase::Rebinding => self.renew(now, actions),
        }
    }

    fn receive(
        &mut self,
        now: Duration,
        message: &Message,
        from: MacAddress,
        actions: &mut Vec<Action>,
    ) {
        if !message.reply || message.xid != self.xid || message.chaddr != self.chaddr {
            return;
        }
        let server = message.address(option::SERVER_ID);
        let current = self.lease.as_ref();
        match (&self.phase, message.kind) {
            (Phase::Discovering { .. }, MessageType::Offer) => {
                if let Some(offer) = Lease::from_ack(message, self.mac, from, self.sent) {
                    self.sent = now;
                    self.phase = Phase::Requesting {
                        offer: Box::new(offer),
                        tries: 0,
                    };
                    self.send_request(now, actions);
                }
            }
            (Phase::Requesting { offer, .. }, MessageType::Ack) if server == Some(offer.server) => {
                if let Some(lease) = Lease::from_ack(message, self.mac, from, self.sent) {
                    self.acknowledged(now, lease, actions);
                }
            }
            (Phase::Requesting { offer, .. }, MessageType::Nak)
                if server.is_none_or(|server| server == offer.server) =>
            {
                self.refused(now, actions);
            }
            (Phase::Rebooting { .. } | Phase::Renewing | Phase::Rebinding, MessageType::Ack) => {
                let lease = Lease::from_ack(message, self.mac, from, self.sent);
                if let Some(lease) = lease
                    .filter(|lease| current.is_some_and(|current| current.address == lease.address))
                {
                    self.bind(lease, actions);
                }
            }
            (Phase::Rebooting { .. } | Phase::Rebinding, MessageType::Nak) => {
                self.refused(now, actions);
            }
            (Phase::Renewing, MessageType::Nak)
                if server.is_none() || server == current.map(|lease| lease.server) =>
            {
                self.refused(now, actions);
            }
            _ => {}
        }
    }

    fn claim(
        &mut self,
        now: Duration,
        address: Ipv4Addr,
        from: MacAddress,
        actions: &mut Vec<Action>,
    ) {
        let Phase::Probing { lease, .. } = &self.phase else {
            return;
        };
        if lease.address != address || from == self.chaddr {
            return;
        }
        let mut message = self.message(MessageType::Decline);
        message
            .options
            .insert(option::REQUESTED_ADDRESS, address.octets().to_vec());
        message
            .options
            .insert(option::SERVER_ID, lease.server.octets().to_vec());
        actions.push(Action::Send {
            message,
            source: Ipv4Addr::UNSPECIFIED,
            to: Destination::Broadcast,
        });
        self.refusals = self.refusals.saturating_add(1);
        self.discover(now, DECLINE_WAIT, actions);
    }

    fn acknowledged(&mut self, now: Duration, lease: Lease, actions: &mut Vec<Action>) {
        if self
            .lease
            .as_ref()
            .is_some_and(|current| current.address == lease.address)
        {
            self.bind(lease, actions);
        } else {
            actions.push(Action::Probe(lease.address));
            self.phase = Phase::Probing {
                lease: Box::new(lease),
                sent: 1,
            };
            self.deadline = Some(now + PROBE_WAIT);
        }
    }

    fn bind(&mut self, lease: Lease, actions: &mut Vec<Action>) {
        self.deadline = lease
            .duration
            .is_some()
            .then(|| lease.obtained.saturating_add(lease.t1));
        self.phase = Phase::Bound;
        self.refusals = 0;
        self.lease = Some(lease.clone());
        actions.push(Action::Granted(lease));
    }

    fn refused(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.lease.take().is_some() {
            actions.push(Action::Lost("the server refused to go on with the lease"));
        }
        let delay = (REFUSAL_WAIT * self.refusals).min(LONGEST_WAIT);
        self.refusals = self.refusals.saturating_add(1).min(100);
        self.discover(now, delay, actions);
    }

    fn discover(&mut self, now: Duration, delay: Duration, actions: &mut Vec<Action>) {
        self.xid = (self.random)();
        self.began = now;
        self.phase = Phase::Discovering { tries: 0 };
        if delay.is_zero() {
            self.send_discover(now, actions);
        } else {
            self.deadline = Some(now + delay);
        }
    }

    fn send_discover(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Phase::Discovering { tries } = &mut self.phase else {
            return;
        };
        let wait = backoff(*tries);
        *tries = tries.saturating_add(1);
        self.sent = now;
        self.deadline = Some(now + self.jitter(wait));
        let mut message = self.message(MessageType::Discover);
        message.secs = self.seconds(now);
        actions.push(Action::Send {
            message,
            source: Ipv4Addr::UNSPECIFIED,
            to: Destination::Broadcast,
        });
    }

    fn send_request(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Phase::Requesting { offer, tries } = &mut self.phase else {
            return;
        };
        let wait = backoff(*tries);
        *tries += 1;
        let (address, server) = (offer.address, offer.server);
        self.deadline = Some(now + self.jitter(wait));
        let mut message = self.message(MessageType::Request);
        message.secs = self.seconds(now);
        message
            .options
            .insert(option::REQUESTED_ADDRESS, address.octets().to_vec());
        message
            .options
            .insert(option::SERVER_ID, server.octets().to_vec());
        actions.push(Action::Send {
            message,
            source: Ipv4Addr::UNSPECIFIED,
            to: Destination::Broadcast,
        });
    }

    fn reboot(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (Phase::Rebooting { tries }, Some(lease)) = (&mut self.phase, &self.lease) else {
            return;
        };
        let wait = backoff(*tries);
        *tries += 1;
        let address = lease.address;
        self.deadline = Some(now + self.jitter(wait));
        self.fresh_transaction(now);
        let mut message = self.message(MessageType::Request);
        message.secs = self.seconds(now);
        message
            .options
            .insert(option::REQUESTED_ADDRESS, address.octets().to_vec());
        actions.push(Action::Send {
            message,
            source: Ipv4Addr::UNSPECIFIED,
            to: Destination::Broadcast,
        });
    }

    /// Asks for more time: the own server until T2, any server after it.
    fn renew(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(lease) = self.lease.clone() else {
            return self.discover(now, Duration::ZERO, actions);
        };
        let t2 = lease.obtained.saturating_add(lease.t2);
        let rebind = now >= t2 && lease.duration.is_some();
        if self.phase != Phase::Renewing && self.phase != Phase::Rebinding {
            self.began = now;
        }
        let end = if rebind {
            lease.expires()
        } else {
            lease.duration.map(|_| t2)
        };
        // With an infinite lease, which is asked about only after a restart, nobody's answer is needed.
        let remaining = end.map_or(LONGEST_WAIT * 60, |end| end.saturating_sub(now));
        self.deadline = Some(now + remaining.min((remaining / 2).max(RENEW_WAIT)));
        self.phase = if rebind {
            Phase::Rebinding
        } else {
            Phase::Renewing
        };
        self.fresh_transaction(now);
        let mut message = self.message(MessageType::Request);
        message.secs = self.seconds(now);
        message.ciaddr = lease.address;
        let to = match rebind {
            true => Destination::Broadcast,
            false => Destination::Server {
                mac: lease.server_mac,
                address: lease.server,
            },
        };
        actions.push(Action::Send {
            message,
            source: lease.address,
            to,
        });
    }

    /// A new transaction number, so that an answer to an earlier request does not count for this one.
    fn fresh_transaction(&mut self, now: Duration) {
        self.xid = (self.random)();
        self.sent = now;
    }

    fn message(&self, kind: MessageType) -> Message {
        let mut message = Message::request(kind, self.xid, self.chaddr);
        let mut client_id = vec![1];
        client_id.extend(self.mac.0);
        message.options.insert(option::CLIENT_ID, client_id);
        if matches!(kind, MessageType::Discover | MessageType::Request) {
            message
                .options
                .insert(option::PARAMETER_LIST, PARAMETERS.to_vec());
            message
                .options
                .insert(option::MAX_MESSAGE_SIZE, MAX_MESSAGE.to_be_bytes().to_vec());
            if let Some(name) = &self.hostname {
                message
                    .options
                    .insert(option::HOST_NAME, name.clone().into_bytes());
            }
        }
        message
    }

    fn seconds(&self, now: Duration) -> u16 {
        u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX)
    }

    /// The wait, up to a tenth longer or shorter, so that machines switched on together do not ask together.
    fn jitter(&self, wait: Duration) -> Duration {
        wait * (900 + (self.random)() % 201) / 1000
    }
}

fn backoff(tries: u32) -> Duration {
    (FIRST_WAIT * 2_u32.saturating_pow(tries.min(6))).min(LONGEST_WAIT)
}
