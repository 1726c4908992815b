//! The host as the API shows it, and its power.

use lodge_api::Problem;
use lodge_api::operation::Operation;
use lodge_api::system::{System, SystemAction};
use tokio::sync::watch;

use crate::{Caller, Manager};

/// Where the server listens, for `System::urls` and its fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// TCP port.
    pub port: u16,
    /// The one address listened on; `None` for all.
    pub address: Option<std::net::IpAddr>,
    /// SHA-256 fingerprint of the certificate: upper-case pairs joined by colons.
    pub certificate_fingerprint: String,
}

impl Manager {
    /// Tells where the server listens. Call it whenever that changes.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        let _ = endpoint;
    }

    /// `GET /v1/system`.
    pub fn system(&self) -> System {
        unreachable!("replaced before anybody runs it")
    }

    /// The host's name.
    pub fn hostname(&self) -> String {
        String::new()
    }

    /// What an administrator should know, most important first.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where the API is reached, by [`Endpoint`] and the host's addresses.
    pub fn urls(&self) -> Vec<String> {
        Vec::new()
    }

    /// Changes whenever `hostname`, `warnings`, `urls`, `addresses` or `initial_password` may have changed.
    pub fn watch_console(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// The random administrator's password of the first boot, while it is in force.
    pub fn initial_password(&self) -> Option<String> {
        None
    }

    /// Powers the host off or restarts it; guests are asked to power off first.
    ///
    /// # Errors
    /// `WrongState` when hosted: the host's power is not ours.
    pub async fn system_action(
        &self,
        caller: &Caller,
        action: SystemAction,
    ) -> Result<Operation, Problem> {
        let _ = (caller, action);
        Err(crate::manager::unfinished())
    }
}
