//! Doing what was planned: what may be refused first, then what is durable, then what everybody hears.

use std::sync::Arc;

use lodge_api::Problem;
use lodge_api::configuration::ConfigurationRestored;
use lodge_host::net::{HostNetwork, NetError, NetworkSpec};

use super::networks::{NetworkStep, refused};
use super::plan::Plan;
use crate::Caller;
use crate::catalogue;
use crate::core::Core;
use crate::networks::{net_problem, unmanaged};

/// What was done to the host's network, to be taken back if the rest cannot be done.
#[derive(Default)]
struct Done {
    /// Names of networks that were made.
    made: Vec<String>,
    /// Networks that were taken away.
    removed: Vec<NetworkSpec>,
}

impl Core {
    /// Carries a plan out, all of it or nothing. The catalogue is held.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        caller: &Caller,
        mut plan: Plan,
    ) -> Result<ConfigurationRestored, Problem> {
        let mut done = Done::default();
        if let Err(problem) = self.make_durable(&mut plan, &mut done).await {
            self.settle_limits(&plan.changed, true).await;
            self.take_back(done).await;
            return Err(problem);
        }
        self.settle_limits(&plan.changed, false).await;
        for vm in &plan.made {
            self.begin(vm);
        }
        self.sessions.load(&self.snapshot());
        if plan.initial_password_ends {
            self.initial_password.forget();
        }
        if let Some(name) = plan.hostname.take()
            && let Err(problem) = self.take_name(caller, &name).await
        {
            let warning = format!("all else is restored, but not the host's name: {problem}");
            plan.warnings.push(warning);
        }
        self.console_changed();
        for (target, change) in std::mem::take(&mut plan.known) {
            self.make_known(caller, "configuration_restore", target, change);
        }
        Ok(plan.report(false))
    }

    async fn make_durable(&self, plan: &mut Plan, done: &mut Done) -> Result<(), Problem> {
        let steps = std::mem::take(&mut plan.networks);
        if !steps.is_empty() {
            let host = self.network.as_ref().ok_or_else(unmanaged)?;
            self.exchange_networks(host, plan, steps, done).await?;
        }
        self.limit_all(&plan.changed).await?;
        let batch = std::mem::take(&mut plan.batch);
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        Ok(())
    }

    /// Makes the networks, after those in whose place they come are gone, and adds them to what becomes durable.
    async fn exchange_networks(
        &self,
        host: &HostNetwork,
        plan: &mut Plan,
        steps: Vec<NetworkStep>,
        done: &mut Done,
    ) -> Result<(), Problem> {
        for step in &steps {
            let Some(old) = &step.old else { continue };
            let old = old.value.spec();
            match host.remove_network(&old.name, false).await {
                Ok(()) => done.removed.push(old),
                Err(NetError::UnknownNetwork { .. }) => {}
                Err(error) => return Err(refused(step, net_problem(&error))),
            }
        }
        for step in steps {
            let info = host.add_network(step.new.spec()).await;
            let info = info.map_err(|error| refused(&step, net_problem(&error)))?;
            done.made.push(step.new.name.to_string());
            let mut new = step.new;
            new.bridge = Some(info.bridge);
            match &step.old {
                None => catalogue::insert(&mut plan.batch, &new)?,
                Some(old) => catalogue::replace(&mut plan.batch, old, &new)?,
            }
        }
        Ok(())
    }

    async fn take_back(&self, done: Done) {
        let Some(host) = &self.network else { return };
        for name in done.made.iter().rev() {
            if let Err(error) = host.remove_network(name, true).await {
                tracing::error!(%error, "a bridge that is not recorded stays");
            }
        }
        for spec in done.removed {
            let name = spec.name.clone();
            if let Err(error) = host.add_network(spec).await {
                tracing::error!(%error, %name, "a network is there again only after a restart");
            }
        }
    }
}
