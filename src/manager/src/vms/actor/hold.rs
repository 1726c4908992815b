//! A guest that is held while it is copied.
//!
//! Held, it stands still whatever its state is said to be: who pauses or resumes it meanwhile decides what it does afterwards.

use lodge_api::vm::{VmAction, VmState};
use lodge_api::{ErrorCode, Problem};
use lodge_vmm_proto::RequestBody;
use tokio::sync::oneshot;

use super::{Actor, Reply};
use crate::core::internal;
use crate::vms::control::Control;

/// A held guest. It is let go when this is dropped, if not by [`Held::release`].
#[derive(Debug)]
pub(crate) struct Held {
    control: Control,
    release: oneshot::Sender<Reply>,
}

impl Held {
    /// The way to its monitor.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Lets it go.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub(crate) async fn release(self) -> Result<(), Problem> {
        let gone = || Problem::new(ErrorCode::WrongState, "the guest has just ended");
        let (reply, released) = oneshot::channel();
        self.release.send(reply).map_err(|_| gone())?;
        released.await.map_err(|_| gone())?
    }
}

/// What the guest's task knows of it.
pub(super) type Hold = oneshot::Receiver<Reply>;

impl Actor {
    pub(super) async fn hold(&mut self) -> Result<Held, Problem> {
        self.require_not_held()?;
        let control = self.control()?.clone();
        if !matches!(self.state(), VmState::Running | VmState::Paused) {
            let detail = format!("the guest is {}", self.state().as_str());
            return Err(Problem::new(ErrorCode::WrongState, detail)
                .with_hint("wait until it runs or has stopped"));
        }
        if !self.leaving.is_empty() || !self.gone.is_empty() {
            let detail = "a device is being removed from the guest";
            return Err(Problem::new(ErrorCode::WrongState, detail)
                .with_hint("wait for that operation, or cancel it"));
        }
        self.ask(RequestBody::Hold, None).await?;
        let (release, held) = oneshot::channel();
        self.held = Some(held);
        Ok(Held { control, release })
    }

    /// The copy is made, or whoever made it is gone.
    pub(super) async fn released(&mut self, reply: Option<Reply>) {
        self.held = None;
        let body = match self.state() {
            // It is no longer let go when this manager dies.
            VmState::Paused => RequestBody::Pause,
            _ => RequestBody::Resume,
        };
        let resumed = self.ask(body, None).await;
        match reply {
            Some(reply) => drop(reply.send(resumed)),
            None => {
                if let Err(problem) = resumed {
                    tracing::warn!(vm = %self.name(), %problem, "a held guest cannot go on");
                }
            }
        }
    }

    /// Refuses what would change a guest that is being copied.
    pub(super) fn require_not_held(&self) -> Result<(), Problem> {
        if self.held.is_none() {
            return Ok(());
        }
        Err(Problem::new(
            ErrorCode::WrongState,
            "a snapshot of the guest is being taken",
        )
        .with_hint("wait for that operation, or cancel it"))
    }

    /// What an action asks of the monitor of a held guest: nothing, if it is one that can wait.
    pub(super) fn act_held(&self, action: VmAction) -> Result<VmState, Problem> {
        match action {
            VmAction::Pause => Ok(VmState::Paused),
            VmAction::Resume => Ok(VmState::Running),
            VmAction::Reset => self.require_not_held().map(|()| self.state()),
            VmAction::Start | VmAction::Stop | VmAction::Kill => {
                Err(internal("this action has a command of its own"))
            }
        }
    }
}

/// Returns when a held guest may go on.
pub(super) async fn end_of_hold(held: Option<&mut Hold>) -> Option<Reply> {
    match held {
        Some(held) => held.await.ok(),
        None => std::future::pending().await,
    }
}
