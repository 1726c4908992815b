//! A guest's screen and keyboard, which guests have that start by firmware.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lodge_api::keyboard::VmKeys;
use lodge_api::pointer::{PointerButton, VmPointer};
use lodge_api::vm::VmState;
use lodge_api::{ErrorCode, Problem};
use lodge_vmm_proto::{Answer, ErrorCode as VmmErrorCode, PointerButton as VmmButton, RequestBody};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, oneshot};

use super::actor::Command;
use super::boot::{self, Method};
use super::control::{Control, refusal};
use super::typing::{Keys, Pace, type_all};
use super::{Handle, VmRecord, just_deleted, screenshot};
use crate::catalogue::{self, Object};
use crate::core::{blocking, internal};
use crate::{Caller, Manager};

/// One at a time for each guest.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    /// Pictures: the monitor pays for their memory, which is bounded.
    screen: Arc<Mutex<()>>,
    /// Typing: what two people type at once would be mixed.
    keyboard: Arc<Mutex<()>>,
}

impl Manager {
    /// What is on a guest's screen, as PNG.
    ///
    /// # Errors
    /// `WrongState` when the guest does not run, starts without firmware, or shows nothing (yet).
    pub async fn vm_screenshot(&self, caller: &Caller, key: &str) -> Result<Vec<u8>, Problem> {
        let (record, handle) = self.with_display(key)?;
        let turn = handle.turns.screen.clone().lock_owned().await;
        let control = reach(&handle).await?;
        let failed = |error: io::Error| internal(format!("a file for the picture: {error}"));
        let file = screenshot::file().map_err(failed)?;
        let theirs = file.try_clone().map_err(failed)?;
        let size = match ask(&control, RequestBody::Screen, Some(theirs.into())).await? {
            Answer::Screen { width, height } => screenshot::Size::new(width, height)
                .ok_or_else(|| internal("the guest's monitor named an impossible size"))?,
            _ => return Err(unexpected()),
        };
        caller.audit("vm_screenshot", &record.target());
        let encoder = self.core.vms.encoders.clone().acquire_owned().await;
        let encoder = encoder.map_err(|error| internal(error.to_string()))?;
        blocking(move || {
            // Even when nobody waits any more: until then the memory is in use.
            let _held = (turn, encoder);
            screenshot::encode(&file, size)
                .map_err(|error| internal(format!("the picture could not be encoded: {error}")))
        })
        .await
    }

    /// Lets somebody see a guest's screen and use its keyboard and mouse: the stream is the viewer's end of an RFB
    /// connection (RFC 6143). The guest's end closes it when the guest ends, or another viewer wants to be alone.
    ///
    /// # Errors
    /// `WrongState` when the guest does not run or starts without firmware, `InsufficientResources` when too many look on.
    pub async fn vm_vnc(&self, caller: &Caller, key: &str) -> Result<UnixStream, Problem> {
        let (record, handle) = self.with_display(key)?;
        let control = reach(&handle).await?;
        let failed = |error: io::Error| internal(format!("a socket pair: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = theirs.into_std().map_err(failed)?;
        let name = record.spec.name.to_string();
        ask(
            &control,
            RequestBody::AttachViewer { name },
            Some(theirs.into()),
        )
        .await?;
        caller.audit("vm_vnc", &record.target());
        Ok(ours)
    }

    /// Types on a guest's keyboard; returns when the guest has taken all of it.
    ///
    /// # Errors
    /// `InvalidRequest` for what no keyboard has, `WrongState` when the guest does not run, starts without firmware, or
    /// does not read its keyboard, `InUse` while somebody else types.
    pub async fn vm_type(&self, caller: &Caller, key: &str, keys: &VmKeys) -> Result<(), Problem> {
        let keys = Keys::parse(keys)?;
        let (record, handle) = self.with_display(key)?;
        let turn = handle.turns.keyboard.clone().try_lock_owned();
        let turn = turn.map_err(|_| {
            let name = &record.spec.name;
            let detail = format!("somebody else is typing on the guest \"{name}\"");
            Problem::new(ErrorCode::InUse, detail).with_hint("try again a little later")
        })?;
        let control = reach(&handle).await?;
        caller.audit("vm_type", &record.target());
        // To the end, so that no key stays down when the client goes away.
        self.to_the_end(move |manager| async move {
            let _turn = turn;
            let typed = type_all(&keys, Pace::GUEST, |body| typed(control.clone(), body));
            tokio::select! {
                typed = typed => typed,
                () = manager.core.ended.cancelled() => Err(Problem::new(
                    ErrorCode::ShuttingDown,
                    "the manager ends; the guest may have got a part",
                )),
            }
        })
        .await
    }

    /// Moves a guest's pointer to a pixel of its screen, and clicks there.
    ///
    /// # Errors
    /// `InvalidRequest` for a place outside of the screen, `WrongState` when the guest does not run, starts without firmware,
    /// shows nothing, or has no driver for its tablet.
    pub async fn vm_point(
        &self,
        caller: &Caller,
        key: &str,
        pointer: &VmPointer,
    ) -> Result<(), Problem> {
        let (record, handle) = self.with_display(key)?;
        let control = reach(&handle).await?;
        let VmPointer { x, y, click } = *pointer;
        let click = click.map(|button| match button {
            PointerButton::Left => VmmButton::Left,
            PointerButton::Middle => VmmButton::Middle,
            PointerButton::Right => VmmButton::Right,
        });
        match ask(&control, RequestBody::Point { x, y, click }, None).await? {
            Answer::Screen { width, height } => within(x, y, width, height)?,
            _ => return Err(unexpected()),
        }
        caller.audit("vm_point", &record.target());
        Ok(())
    }

    /// A guest that runs and has a display, as far as can be told from here.
    fn with_display(&self, key: &str) -> Result<(VmRecord, Handle), Problem> {
        let record = catalogue::find::<VmRecord>(&self.core.snapshot(), key)?.value;
        let name = &record.spec.name;
        let handle = self.core.vms.handle(record.id);
        let handle = handle.ok_or_else(|| Problem::not_found("guest", name))?;
        let (state, launched) = {
            let observed = handle.observed.borrow();
            (observed.state, observed.launched.clone())
        };
        let spec = launched.as_ref().unwrap_or(&record.spec);
        if let Method::Kernel(_) = boot::method(&spec.boot) {
            return Err(Problem::new(
                ErrorCode::WrongState,
                format!("the guest \"{name}\" starts from a kernel: only guests with firmware have screen and keyboard"),
            )
            .with_hint("use its console, or start it by firmware (boot.firmware)"));
        }
        let hint = match state {
            VmState::Stopped | VmState::Crashed => "start it first",
            VmState::Starting => "wait until it runs",
            VmState::Running | VmState::Paused | VmState::Stopping => return Ok((record, handle)),
        };
        let detail = format!("the guest \"{name}\" is {}", state.as_str());
        Err(Problem::new(ErrorCode::WrongState, detail).with_hint(hint))
    }
}

/// Whether a place is on a screen of that size.
fn within(x: u32, y: u32, width: u32, height: u32) -> Result<(), Problem> {
    let (pointer, place, most) = match (x < width, y < height) {
        (true, true) => return Ok(()),
        (false, _) => ("/x", x, width),
        (true, false) => ("/y", y, height),
    };
    let detail = format!("{place} is outside of the screen, which has {width} by {height} pixels");
    Err(Problem::invalid(pointer, detail)
        .with_hint(format!("give 0 to {}", most.saturating_sub(1))))
}

/// The way to a guest's monitor.
async fn reach(handle: &Handle) -> Result<Control, Problem> {
    let (reply, control) = oneshot::channel();
    let command = Command::Reach { reply };
    let sent = handle.commands.send(command).await;
    sent.map_err(|_| just_deleted())?;
    control.await.map_err(|_| just_deleted())?
}

async fn typed(control: Control, body: RequestBody) -> Result<usize, Problem> {
    match ask(&control, body, None).await? {
        Answer::Typed { accepted } => Ok(accepted as usize),
        _ => Err(unexpected()),
    }
}

/// Asks for something that monitors of older releases do not know.
async fn ask(
    control: &Control,
    body: RequestBody,
    descriptor: Option<OwnedFd>,
) -> Result<Answer, Problem> {
    match control.exchange(body, descriptor).await? {
        Answer::Error {
            code: VmmErrorCode::BadRequest,
            message,
        } => {
            tracing::debug!(message, "a monitor does not know a request");
            let detail =
                "the guest was started by an older release of Lodge, whose guests cannot do that";
            Err(Problem::new(ErrorCode::WrongState, detail).with_hint("stop it and start it again"))
        }
        Answer::Error {
            code: code @ VmmErrorCode::WrongState,
            message,
        } => Err(refusal(code, &message)
            .with_hint("wait a moment if it has just been started, and see its console")),
        Answer::Error { code, message } => Err(refusal(code, &message)),
        answer => Ok(answer),
    }
}

fn unexpected() -> Problem {
    internal("the guest's monitor gave an unexpected answer")
}
