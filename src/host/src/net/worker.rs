//! The task that owns the host network.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::config::{HostNetworkConfig, NetworkSpec};
use super::dhcp4::{Client, ClientEvent, Lease};
use super::error::NetError;
use super::handle::{Command, Shutdown};
use super::kernel::{self, Kernel};
use super::lease_file::LeaseFiles;
use super::state::{Dhcp4Phase, DnsConfig, LeaseInfo, NetWarning, NetworkState};
use crate::seed::MacAddress;

/// Changes come in bunches: time from the first one to the look at them.
const QUIET: Duration = Duration::from_millis(20);
/// Least time between two looks, so that a link that flaps does not keep the machine busy.
const SPACING: Duration = Duration::from_millis(250);
/// Time to the next look when nothing is heard, in case something was not heard.
const IDLE: Duration = Duration::from_secs(60);
/// Time to the next look after a failure, first and longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Events of clients on their way.
const EVENT_QUEUE: usize = 32;

/// A network as it is kept here.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) spec: NetworkSpec,
    pub(super) bridge: String,
}

/// The DHCP client of a link, with what it said last.
#[derive(Debug)]
pub(super) struct ClientSlot {
    pub(super) client: Client,
    pub(super) phase: Dhcp4Phase,
    pub(super) lease: Option<Lease>,
    pub(super) info: Option<LeaseInfo>,
    /// Since when it has been without a lease, with a signal.
    pub(super) searching_since: Option<Instant>,
}

/// Owner of the network.
pub(super) struct Worker {
    pub(super) config: HostNetworkConfig,
    pub(super) kernel: Kernel,
    pub(super) networks: BTreeMap<String, Network>,
    /// The uplinks chosen, by name of network.
    pub(super) uplinks: BTreeMap<String, MacAddress>,
    pub(super) clients: BTreeMap<MacAddress, ClientSlot>,
    pub(super) leases: LeaseFiles,
    pub(super) warnings: Vec<NetWarning>,
    /// Since when there are links to choose an uplink from.
    pub(super) choosing_since: Option<Instant>,
    pub(super) next_client: u64,
    pub(super) events: mpsc::Sender<ClientEvent>,
    pub(super) state: watch::Sender<NetworkState>,
    pub(super) dns: watch::Sender<DnsConfig>,
    /// Whether guests are kept from configuring the host: `None` before the first try.
    pub(super) guard: Option<Result<(), NetError>>,
    /// Failed looks in a row.
    pub(super) failures: u32,
    /// Problems that were logged and still are there.
    pub(super) logged: Vec<NetWarning>,
}

/// Sets the network up once and starts the task.
pub(super) async fn spawn(
    config: HostNetworkConfig,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<NetworkState>,
    dns: watch::Sender<DnsConfig>,
) -> Result<(), NetError> {
    if config.manage_links && !may_administer() {
        return Err(NetError::Permission {
            action: "set up the network of this machine".to_owned(),
        });
    }
    let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let mut worker = Worker {
        kernel: Kernel::open()?,
        networks: BTreeMap::new(),
        uplinks: BTreeMap::new(),
        clients: BTreeMap::new(),
        leases: LeaseFiles::new(&config.run_dir),
        warnings: Vec::new(),
        choosing_since: None,
        next_client: 0,
        events,
        state,
        dns,
        guard: None,
        failures: 0,
        logged: Vec::new(),
        config,
    };
    let snapshot = worker.kernel.snapshot().await?;
    for spec in worker.config.networks.clone() {
        let network = worker.name_bridge(spec, &snapshot)?;
        worker.networks.insert(network.spec.name.clone(), network);
    }
    let (changed, changes) = watch::channel(());
    let monitor = Monitor(tokio::spawn(follow(changed)));
    let next = worker.look().await;
    tokio::spawn(worker.run(commands, event_receiver, changes, monitor, next));
    Ok(())
}

/// Whether the kernel will let this process change the network.
pub(super) fn may_administer() -> bool {
    caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_NET_ADMIN,
    )
    .unwrap_or(false)
}

/// The task that listens to the kernel; ends with its owner.
struct Monitor(JoinHandle<()>);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn follow(changed: watch::Sender<()>) {
    let mut wait = RETRY.0;
    while !changed.is_closed() {
        let began = Instant::now();
        let error = kernel::monitor(|| changed.send_replace(())).await;
        debug!(%error, "no longer hear of changes of the network; listening again");
        wait = if began.elapsed() > RETRY.1 {
            RETRY.0
        } else {
            (wait * 2).min(RETRY.1)
        };
        tokio::time::sleep(wait).await;
    }
}

impl Worker {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<ClientEvent>,
        mut changes: watch::Receiver<()>,
        _monitor: Monitor,
        first: Duration,
    ) {
        let mut last = Instant::now();
        let mut due = last + first;
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    if let Command::Shutdown(how, reply) = command {
                        self.shut_down(how).await;
                        // The one who asked may have given up.
                        let _ = reply.send(());
                        return;
                    }
                    self.obey(command).await;
                    last = Instant::now();
                    due = due.min(last + SPACING);
                }
                Some(event) = events.recv() => {
                    self.hear(event);
                    due = due.min(soon(last));
                }
                Ok(()) = changes.changed() => due = due.min(soon(last)),
                () = sleep_until(due) => {
                    let next = self.look().await;
                    last = Instant::now();
                    due = last + next;
                }
            }
        }
    }

    /// Looks at everything, sets right what is not, and says when to look again.
    pub(super) async fn look(&mut self) -> Duration {
        let outcome = self.reconcile().await;
        self.log_problems();
        if !outcome.failed {
            self.failures = 0;
            return outcome.next.unwrap_or(IDLE).min(IDLE);
        }
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY.0.saturating_mul(1 << self.failures.min(6));
        outcome
            .next
            .map_or(wait, |next| next.min(wait))
            .clamp(RETRY.0, RETRY.1)
    }

    fn hear(&mut self, event: ClientEvent) {
        let Some(slot) = self
            .clients
            .get_mut(&event.mac)
            .filter(|slot| slot.client.id() == event.id)
        else {
            return;
        };
        if slot.lease != event.lease {
            self.leases.store(event.mac, event.lease.as_ref());
            slot.info = event.lease.as_ref().and_then(super::publish::lease_info);
            slot.lease = event.lease;
        }
        let searching = slot.lease.is_none() && event.phase != Dhcp4Phase::NoCarrier;
        slot.searching_since = searching.then(|| slot.searching_since.unwrap_or_else(Instant::now));
        slot.phase = event.phase;
    }

    /// Answers may find nobody who waits for them any more; that is fine.
    async fn obey(&mut self, command: Command) {
        match command {
            Command::AddNetwork(spec, reply) => {
                let _ = reply.send(self.add_network(spec).await);
            }
            Command::RemoveNetwork { name, force, reply } => {
                let _ = reply.send(self.remove_network(&name, force).await);
            }
            Command::AttachTap {
                network,
                tap,
                mtu,
                queues,
                reply,
            } => {
                let _ = reply.send(self.attach_tap(&network, &tap, mtu, queues).await);
            }
            Command::LimitTap { key, limits, reply } => {
                let _ = reply.send(self.limit_tap(&key, limits).await);
            }
            Command::SetTapUp { key, up, reply } => {
                let _ = reply.send(self.set_tap_up(&key, up).await);
            }
            Command::Refresh(reply) => {
                self.look().await;
                let _ = reply.send(());
            }
            Command::Shutdown(_, reply) => drop::<oneshot::Sender<()>>(reply),
        }
    }

    async fn shut_down(&mut self, how: Shutdown) {
        if how == Shutdown::LeaveInPlace {
            return;
        }
        for (mac, slot) in std::mem::take(&mut self.clients) {
            slot.client.release().await;
            self.leases.store(mac, None);
        }
        if let Err(error) = self.tear_down().await {
            warn!(%error, "the network was not taken down completely");
        }
    }
}

/// When to look after a change now, with the last look at `last`.
fn soon(last: Instant) -> Instant {
    (Instant::now() + QUIET).max(last + SPACING)
}
