//! Runs the client's state machine on a link.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::frame::{self, Endpoints};
use super::lease::Lease;
use super::machine::{Action, Destination, Input, Machine};
use super::message::Message;
use super::socket::{Filter, PacketSocket};
use crate::net::state::Dhcp4Phase;
use crate::seed::MacAddress;

/// The largest frame looked at, in bytes. Servers keep to what we say we take; the rest is cut.
const FRAME_LIMIT: usize = 2048;

/// As much of an ARP message as matters, in bytes.
const ARP_LIMIT: usize = 64;

/// The longest time without looking at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Frames taken in one go before the timer is looked at, so that a flood does not hold it up.
const BURST: u32 = 32;

/// What a client tells its owner.
#[derive(Debug, Clone)]
pub(in crate::net) struct ClientEvent {
    /// The link.
    pub(in crate::net) mac: MacAddress,
    /// Which client of the link: events of one that was replaced count for nothing.
    pub(in crate::net) id: u64,
    /// Its phase.
    pub(in crate::net) phase: Dhcp4Phase,
    /// The lease in use.
    pub(in crate::net) lease: Option<Lease>,
}

/// What a client is made from.
#[derive(Debug, Clone)]
pub(in crate::net) struct ClientSettings {
    /// The link's permanent address, which identifies it to servers.
    pub(in crate::net) mac: MacAddress,
    /// The address it has now, which frames come from.
    pub(in crate::net) current_mac: MacAddress,
    /// Kernel index of the link.
    pub(in crate::net) index: u32,
    /// Name told to servers.
    pub(in crate::net) hostname: Option<String>,
    /// A lease from before a restart.
    pub(in crate::net) lease: Option<Lease>,
}

/// A running client. Ends when dropped; its lease is not given back then.
#[derive(Debug)]
pub(in crate::net) struct Client {
    settings: ClientSettings,
    id: u64,
    carrier: watch::Sender<bool>,
    release: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Starts a client. Events come through `events` until it is dropped.
    pub(in crate::net) fn start(
        settings: ClientSettings,
        id: u64,
        events: mpsc::Sender<ClientEvent>,
    ) -> Self {
        let (carrier, carrier_watch) = watch::channel(false);
        let (release, released) = oneshot::channel();
        let runner = Runner::new(&settings, id, events);
        let task = tokio::spawn(runner.run(carrier_watch, released));
        Self {
            settings,
            id,
            carrier,
            release: Some(release),
            task,
        }
    }

    /// Which of a link's clients this is.
    pub(in crate::net) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether this client still is for the link as it is now.
    pub(in crate::net) fn fits(&self, index: u32, current_mac: MacAddress) -> bool {
        self.settings.index == index && self.settings.current_mac == current_mac
    }

    /// Tells whether the link has a signal.
    pub(in crate::net) fn set_carrier(&self, carrier: bool) {
        self.carrier
            .send_if_modified(|current| std::mem::replace(current, carrier) != carrier);
    }

    /// Gives the lease back and ends.
    pub(in crate::net) async fn release(mut self) {
        if let Some(release) = self.release.take() {
            // The task ended already: nothing to give back.
            let _ = release.send(());
        }
        if tokio::time::timeout(Duration::from_secs(1), &mut self.task)
            .await
            .is_err()
        {
            debug!(mac = %self.settings.mac, "DHCP client did not end in time");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Time since boot, sleep included; the clock of leases.
pub(in crate::net) fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

fn random() -> u32 {
    // The low half of a version 4 UUID is random but for two bits at its top.
    uuid::Uuid::new_v4().as_u128() as u32
}

struct Runner {
    machine: Machine,
    mac: MacAddress,
    current_mac: MacAddress,
    index: u32,
    id: u64,
    events: mpsc::Sender<ClientEvent>,
    reported: Option<(Dhcp4Phase, Option<Lease>)>,
    /// Open only while an answer is awaited.
    dhcp: Option<PacketSocket>,
    /// Open only while somebody may claim the address: what was said before does not count.
    arp: Option<PacketSocket>,
    /// Whether a failure was logged since the last success.
    failed: bool,
}

struct Buffers {
    dhcp: Vec<u8>,
    arp: [u8; ARP_LIMIT],
}

/// A frame from a socket; never, without one.
async fn receive(socket: Option<&PacketSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.receive(buffer).await,
        None => std::future::pending().await,
    }
}

enum Wake {
    /// Something outside changed.
    Look,
    Dhcp(io::Result<usize>),
    Arp(io::Result<usize>),
    Timer,
    Release,
    End,
}

impl Runner {
    fn new(settings: &ClientSettings, id: u64, events: mpsc::Sender<ClientEvent>) -> Self {
        let machine = Machine::new(
            settings.mac,
            settings.current_mac,
            settings.hostname.clone(),
            settings.lease.clone(),
            boot_time(),
            random,
        );
        let (mac, current_mac, index) = (settings.mac, settings.current_mac, settings.index);
        Self {
            machine,
            mac,
            current_mac,
            index,
            id,
            events,
            reported: None,
            dhcp: None,
            arp: None,
            failed: false,
        }
    }

    async fn run(
        mut self,
        mut carrier: watch::Receiver<bool>,
        mut released: oneshot::Receiver<()>,
    ) {
        let mut buffers = Buffers {
            dhcp: vec![0; FRAME_LIMIT],
            arp: [0; ARP_LIMIT],
        };
        let mut connected = false;
        let mut burst = 0;
        loop {
            let up = *carrier.borrow_and_update();
            if up != connected {
                connected = up;
                self.step(Input::Carrier(up));
            }
            self.close_idle();
            if !self.report().await {
                return;
            }
            let wake = self
                .wait(&mut carrier, &mut released, &mut buffers, burst >= BURST)
                .await;
            burst = if matches!(wake, Wake::Dhcp(_) | Wake::Arp(_)) {
                burst + 1
            } else {
                0
            };
            match wake {
                Wake::Dhcp(Ok(length)) => self.receive_dhcp(&buffers.dhcp[..length]),
                Wake::Arp(Ok(length)) => self.receive_arp(&buffers.arp[..length]),
                Wake::Dhcp(Err(_)) => self.dhcp = None,
                Wake::Arp(Err(_)) => self.arp = None,
                Wake::Timer => self.step(Input::Timer),
                Wake::Look => {}
                Wake::Release => {
                    let release = self.machine.release();
                    self.perform(release.into_iter().collect());
                    return;
                }
                Wake::End => return,
            }
        }
    }

    async fn wait(
        &self,
        carrier: &mut watch::Receiver<bool>,
        released: &mut oneshot::Receiver<()>,
        buffers: &mut Buffers,
        timer_first: bool,
    ) -> Wake {
        let remaining = self
            .machine
            .deadline()
            .map(|deadline| deadline.saturating_sub(boot_time()));
        if timer_first && remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Wake::Timer;
        }
        tokio::select! {
            changed = carrier.changed() => if changed.is_ok() { Wake::Look } else { Wake::End },
            result = released => if result.is_ok() { Wake::Release } else { Wake::End },
            // The timer stops while the machine sleeps, and leases do not: look again every hour.
            () = sleep(remaining.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)) => Wake::Timer,
            read = receive(self.dhcp.as_ref(), &mut buffers.dhcp) => Wake::Dhcp(read),
            read = receive(self.arp.as_ref(), &mut buffers.arp) => Wake::Arp(read),
        }
    }

    fn receive_dhcp(&mut self, frame: &[u8]) {
        if let Some((from, payload)) = frame::read_datagram(frame)
            && let Some(message) = Message::parse(payload)
        {
            self.step(Input::Message(&message, from));
        }
    }

    fn receive_arp(&mut self, frame: &[u8]) {
        if let Some((address, from)) = frame::read_arp(frame) {
            self.step(Input::Claim(address, from));
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let actions = self.machine.handle(boot_time(), input);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send {
                    message,
                    source,
                    to,
                } => {
                    debug!(mac = %self.mac, kind = ?message.kind, ?to, "DHCP message sent");
                    let (target_mac, target) = match to {
                        Destination::Broadcast => (None, Ipv4Addr::BROADCAST),
                        Destination::Server { mac, address } => (Some(mac), address),
                    };
                    let ends = Endpoints {
                        source_mac: self.current_mac,
                        target_mac,
                        source,
                        target,
                    };
                    self.send_dhcp(&frame::datagram(ends, &message.encode()));
                }
                Action::Probe(address) => {
                    self.send_arp(&frame::arp_probe(self.current_mac, address));
                }
                Action::Granted(lease) => {
                    info!(mac = %self.mac, address = %lease.address, server = %lease.server, duration = ?lease.duration, "DHCP lease");
                    self.send_arp(&frame::arp_announcement(self.current_mac, lease.address));
                }
                Action::Lost(reason) => warn!(mac = %self.mac, reason, "DHCP lease lost"),
            }
        }
    }

    /// A frame that cannot be sent is a frame lost: the machine tries again by itself.
    fn send_dhcp(&mut self, frame: &[u8]) {
        let opened = match self.dhcp.take() {
            Some(socket) => Ok(socket),
            None => PacketSocket::open(self.index, Filter::Dhcp),
        };
        let sent = opened.and_then(|socket| socket.send(frame).map(|()| socket));
        match sent {
            Ok(socket) => {
                self.dhcp = Some(socket);
                self.failed = false;
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Probes and announcements are a courtesy: without them the address works too.
    fn send_arp(&mut self, frame: &[u8]) {
        if self.arp.is_none() {
            self.arp = PacketSocket::open(self.index, Filter::Arp).ok();
        }
        if let Some(socket) = &self.arp
            && let Err(error) = socket.send(frame)
        {
            debug!(mac = %self.mac, %error, "ARP message not sent");
        }
    }

    /// Sockets cost the kernel something for every frame on the link, and what comes while no answer is awaited
    /// does not count anyway.
    fn close_idle(&mut self) {
        match self.machine.phase() {
            Dhcp4Phase::Requesting => {}
            Dhcp4Phase::NoCarrier | Dhcp4Phase::Bound => (self.dhcp, self.arp) = (None, None),
            _ => self.arp = None,
        }
    }

    /// Says it once; what goes on failing fails quietly.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            warn!(mac = %self.mac, %error, "cannot send DHCP messages on the link; trying on quietly");
        }
    }

    /// Tells the owner what changed. `false` when nobody listens any more.
    async fn report(&mut self) -> bool {
        let now = (self.machine.phase(), self.machine.lease().cloned());
        if self.reported.as_ref() == Some(&now) {
            return true;
        }
        self.reported = Some(now.clone());
        let (phase, lease) = now;
        self.events
            .send(ClientEvent {
                mac: self.mac,
                id: self.id,
                phase,
                lease,
            })
            .await
            .is_ok()
    }
}
