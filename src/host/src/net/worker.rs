//! The task that owns the host network.

use tokio::sync::{mpsc, watch};

use super::config::HostNetworkConfig;
use super::error::NetError;
use super::handle::Command;
use super::state::{DnsConfig, NetworkState};

/// Starts the task.
pub(super) async fn spawn(
    _config: HostNetworkConfig,
    mut commands: mpsc::Receiver<Command>,
    _state: watch::Sender<NetworkState>,
    _dns: watch::Sender<DnsConfig>,
) -> Result<(), NetError> {
    tokio::spawn(async move { while commands.recv().await.is_some() {} });
    Ok(())
}
