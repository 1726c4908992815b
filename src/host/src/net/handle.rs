//! The handle on the host network that the manager holds.

use tokio::sync::{mpsc, oneshot, watch};

use super::config::{HostNetworkConfig, NetworkSpec};
use super::error::NetError;
use super::state::{DnsConfig, NetworkInfo, NetworkState};
use super::tap::Tap;
use super::traffic::TapLimits;

/// Requests waiting for the task; more make callers wait.
const COMMAND_QUEUE: usize = 16;

/// What becomes of bridges, addresses and leases when the host network is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Everything stays as it is: guests keep their network, the next start takes it over.
    LeaveInPlace,
    /// Leases are given back, bridges removed, and the links they used are left bare.
    TearDown,
}

/// A request to the task that owns the network.
#[derive(Debug)]
pub(super) enum Command {
    /// Make a network.
    AddNetwork(NetworkSpec, oneshot::Sender<Result<NetworkInfo, NetError>>),
    /// Take a network away.
    RemoveNetwork {
        name: String,
        force: bool,
        reply: oneshot::Sender<Result<(), NetError>>,
    },
    /// Make a tap and attach it.
    AttachTap {
        network: String,
        tap: String,
        mtu: Option<u32>,
        queues: u8,
        reply: oneshot::Sender<Result<Tap, NetError>>,
    },
    /// Hold a tap to limits.
    LimitTap {
        key: String,
        limits: TapLimits,
        reply: oneshot::Sender<Result<(), NetError>>,
    },
    /// Let packets through a tap, or none.
    SetTapUp {
        key: String,
        up: bool,
        reply: oneshot::Sender<Result<(), NetError>>,
    },
    /// Look at the kernel again now, and answer when the state is published.
    Refresh(oneshot::Sender<()>),
    /// End.
    Shutdown(Shutdown, oneshot::Sender<()>),
}

/// Handle on the host network. Clones share one task; it ends with [`HostNetwork::shutdown`], or when the last
/// clone is dropped (leaving everything in place).
#[derive(Debug, Clone)]
pub struct HostNetwork {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<NetworkState>,
    dns: watch::Receiver<DnsConfig>,
}

impl HostNetwork {
    /// Takes over the network of this machine as `config` says.
    ///
    /// Answers when bridges and links were set up once; addresses come later, see [`HostNetwork::watch`].
    /// What cannot be set up for now (no link yet, module missing) is a warning in the state and tried again.
    ///
    /// # Errors
    /// [`NetError::InvalidConfig`], or [`NetError::Permission`] without the capabilities this needs.
    pub async fn start(config: HostNetworkConfig) -> Result<Self, NetError> {
        config.validate()?;
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (state_sender, state) = watch::channel(NetworkState::default());
        let (dns_sender, dns) = watch::channel(DnsConfig::default());
        super::worker::spawn(config, receiver, state_sender, dns_sender).await?;
        Ok(Self {
            commands,
            state,
            dns,
        })
    }

    /// The network as it is now.
    #[must_use]
    pub fn state(&self) -> NetworkState {
        self.state.borrow().clone()
    }

    /// Follows the network: wakes on every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<NetworkState> {
        self.state.clone()
    }

    /// Follows the resolver configuration: wakes when name servers or search domains change.
    #[must_use]
    pub fn watch_dns(&self) -> watch::Receiver<DnsConfig> {
        self.dns.clone()
    }

    /// Makes a network, or adopts its bridge if that exists already with that name.
    ///
    /// The answer holds the name of the bridge, which should be kept and given at the next start.
    ///
    /// # Errors
    /// [`NetError::InvalidConfig`], [`NetError::NameTaken`], [`NetError::UplinkTaken`], [`NetError::UplinkBusy`], or what
    /// the kernel answered. Nothing is left behind then.
    pub async fn add_network(&self, spec: NetworkSpec) -> Result<NetworkInfo, NetError> {
        self.ask(|reply| Command::AddNetwork(spec, reply)).await?
    }

    /// Takes a network away. With `force` also when guests are attached; they lose their connection.
    ///
    /// # Errors
    /// [`NetError::UnknownNetwork`], [`NetError::NetworkBusy`].
    pub async fn remove_network(&self, name: &str, force: bool) -> Result<(), NetError> {
        let name = name.to_owned();
        self.ask(|reply| Command::RemoveNetwork { name, force, reply })
            .await?
    }

    /// Makes a tap for a guest's interface, attached to a network and switched on.
    ///
    /// `key` identifies the interface (the guest's id and the number of its interface, say): the same key gives
    /// the same kernel name. The tap lives as long as its descriptor is open in any process. `mtu` in bytes;
    /// `None` takes that of the network. It has as many `queues`, at least one.
    ///
    /// # Errors
    /// [`NetError::UnknownNetwork`], [`NetError::NameTaken`] while another process still holds the tap,
    /// [`NetError::DeviceMissing`], [`NetError::Permission`].
    pub async fn attach_tap(
        &self,
        network: &str,
        key: &str,
        mtu: Option<u32>,
        queues: u8,
    ) -> Result<Tap, NetError> {
        let (network, tap) = (network.to_owned(), super::tap::tap_name(key));
        self.ask(|reply| Command::AttachTap {
            network,
            tap,
            mtu,
            queues,
            reply,
        })
        .await?
    }

    /// Holds the tap that was attached by that key to these limits from now on. They end with the tap.
    ///
    /// # Errors
    /// [`NetError::UnknownTap`]; [`NetError::KindUnsupported`] when the kernel lacks what this needs, and some limits may be
    /// in force.
    pub async fn limit_tap(&self, key: &str, limits: TapLimits) -> Result<(), NetError> {
        let key = key.to_owned();
        self.ask(|reply| Command::LimitTap { key, limits, reply })
            .await?
    }

    /// Lets packets through the tap that was attached by that key, or lets none through any more.
    ///
    /// # Errors
    /// [`NetError::UnknownTap`], or what the kernel answered.
    pub async fn set_tap_up(&self, key: &str, up: bool) -> Result<(), NetError> {
        let key = key.to_owned();
        self.ask(|reply| Command::SetTapUp { key, up, reply })
            .await?
    }

    /// Looks at the kernel again and answers when [`HostNetwork::state`] is up to date.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn refresh(&self) -> Result<(), NetError> {
        self.ask(Command::Refresh).await
    }

    /// Ends the task. Other clones of the handle answer [`NetError::Stopped`] from then on.
    pub async fn shutdown(&self, how: Shutdown) {
        // A task that is gone already has nothing left to shut down.
        let _ = self.ask(|reply| Command::Shutdown(how, reply)).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| NetError::Stopped)?;
        answer.await.map_err(|_| NetError::Stopped)
    }
}
