//! The host's name.

use std::sync::{PoisonError, RwLock};

use lodge_api::event::Change;
use lodge_api::system::{System, SystemPatch};
use lodge_api::{ErrorCode, Problem};
use lodge_host::boot::BootReport;
use lodge_host::hostname;

use crate::catalogue::HOST;
use crate::config::ManagerConfig;
use crate::core::{Core, blocking, internal};
use crate::{Caller, Manager, update};

/// The host's name at present.
#[derive(Debug)]
pub(crate) struct HostName(RwLock<String>);

impl HostName {
    /// On the appliance the chosen name, or what init made of the seed; elsewhere the machine's own.
    pub(crate) fn read(config: &ManagerConfig, boot: Option<&BootReport>) -> Self {
        let chosen = config
            .appliance
            .then(|| hostname::stored(&config.data_dir))
            .flatten();
        let name = chosen
            .or_else(|| boot.map(|boot| boot.hostname.clone()))
            .unwrap_or_else(lodge_host::system::hostname);
        Self(RwLock::new(name))
    }

    pub(crate) fn get(&self) -> String {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, name: &str) {
        name.clone_into(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Manager {
    /// The host's name.
    pub fn hostname(&self) -> String {
        self.core.hostname.get()
    }

    /// `PATCH /v1/system`: gives the host another name, which init reads at the next boot, and trusts other keys for updates.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no name or no key, `WrongState` when hosted: the machine's name is not ours.
    pub async fn system_patch(
        &self,
        caller: &Caller,
        patch: SystemPatch,
    ) -> Result<System, Problem> {
        let name = patch.hostname.as_deref().map(hostname::normalize);
        let name = name
            .transpose()
            .map_err(|problem| Problem::invalid("/hostname", problem))?;
        let keys = patch.update_keys;
        keys.as_deref().map(update::keys::check).transpose()?;
        if name.is_some() && !self.core.config.appliance {
            return Err(Problem::new(
                ErrorCode::WrongState,
                "this server runs on an ordinary Linux host, whose name it does not set",
            )
            .with_hint("use the host's own commands"));
        }
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            if let Some(name) = name {
                manager.rename(&caller, &name).await?;
            }
            if let Some(keys) = keys {
                manager.trust(&caller, keys).await?;
            }
            Ok(manager.system())
        })
        .await
    }

    async fn rename(&self, caller: &Caller, name: &str) -> Result<(), Problem> {
        let _changing = self.core.catalogue.lock().await;
        self.core.take_name(caller, name).await
    }
}

impl Core {
    /// Gives the host, an appliance, a name in its usual form. The catalogue is held.
    pub(crate) async fn take_name(&self, caller: &Caller, name: &str) -> Result<(), Problem> {
        let (data_dir, stored) = (self.config.data_dir.clone(), name.to_owned());
        blocking(move || {
            hostname::store(&data_dir, &stored)
                .map_err(|error| internal(format!("the name cannot be kept: {error}")))
        })
        .await?;
        if let Err(error) = hostname::set(name) {
            tracing::warn!(%error, "the kernel takes the host's new name only at the next boot");
        }
        self.hostname.set(name);
        self.console_changed();
        self.make_known(caller, "system_change", HOST.to_owned(), Change::Changed);
        Ok(())
    }
}
