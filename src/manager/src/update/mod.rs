//! Another version of Lodge, beside the one that runs.
//!
//! A signed file is taken in and checked before anything on the disk changes. It then becomes the image that does not run, which is
//! started once. Only when the host has come up with it, does it become the one that is started from then on
//! ([`Manager::confirm_trial`]); otherwise PID 1, the kernel or the watchdog restart the host, and GRUB starts the old one.

pub(crate) mod keys;
mod trial;

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::Stream;
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_api::system::SystemAction;
use lodge_api::update::{
    GuestsMeanwhile, HostImage, HostImageState, ImageSlot, UpdateParams, Updated,
};
use lodge_api::{ErrorCode, Problem};
use lodge_host::install::{
    self, Contents, Environment, Home, InstallError, SignatureError, Slot, Step, UpdateKey,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::catalogue::HOST;
use crate::core::{Core, blocking, internal};
use crate::fetch::{Fetch, Fetched};
use crate::images::Upload;
use crate::install::phase;
use crate::operations::{OperationHandle, cancelled};
use crate::upload::{Expected, Received, Receiver};
use crate::{Caller, Manager};

pub(crate) use self::trial::{AtStart, trying};

/// Who does something with the images of the disk.
#[derive(Default)]
pub(crate) struct HostImages {
    /// Held while something is mounted.
    mounts: Mutex<()>,
    /// One of them is being written.
    writing: AtomicBool,
}

impl Manager {
    /// `GET /v1/system/images`.
    ///
    /// # Errors
    /// `WrongState` where the host does not run from a disk that Lodge is installed on.
    pub async fn host_images(&self) -> Result<Page<HostImage>, Problem> {
        let home = self.core.home()?;
        let items = if self.core.host_images.writing.load(Ordering::SeqCst) {
            vec![
                shown(
                    home.started(),
                    Some(own_version()),
                    true,
                    HostImageState::Default,
                ),
                shown(home.started().other(), None, false, HostImageState::Writing),
            ]
        } else {
            let _mounting = self.core.host_images.mounts.lock().await;
            blocking(move || look(&home)).await?
        };
        Ok(Page {
            items,
            next_page: None,
        })
    }

    /// `POST /v1/system:update`: takes a signed file in, makes it the other image, and has it tried at the next start.
    ///
    /// # Errors
    /// As of an image's upload; `InvalidContent` for a file that is not signed by one whom this host trusts, `WrongState` where the
    /// host cannot be updated.
    pub async fn system_update(
        &self,
        caller: &Caller,
        params: UpdateParams,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<Updated, Problem> {
        let ready = self.core.ready()?;
        self.require_room_for(&self.core.images, declared_len)?;
        let running = self.update_operation(caller).await?;
        self.update_from(caller, params, ready, running, declared_len, body)
            .await
    }

    /// `POST /v1/system:fetch_update`: as [`Manager::system_update`], with a file that the host fetches, whether or not anybody
    /// waits for it.
    ///
    /// # Errors
    /// `WrongState` where the host cannot be updated; others are the operation's.
    pub async fn system_update_fetch(
        &self,
        caller: &Caller,
        params: UpdateParams,
        fetch: Fetch,
    ) -> Result<Operation, Problem> {
        let ready = self.core.ready()?;
        let running = self.update_operation(caller).await?;
        let operation = running.handle.view();
        let (manager, caller) = (self.clone(), caller.clone());
        self.background(async move {
            let fetched = manager.begin_fetch(&manager.core.images, fetch, &running.handle);
            let Fetched { length, body } = match fetched.await {
                Ok(fetched) => fetched,
                Err(problem) => return running.end::<()>(&Err(problem)),
            };
            let updated = manager
                .update_from(&caller, params, ready, running, length, body)
                .await;
            if let Err(problem) = updated {
                tracing::warn!(%problem, "the host was not updated");
            }
        });
        Ok(operation)
    }

    async fn update_operation(&self, caller: &Caller) -> Result<Upload, Problem> {
        self.upload_operation(caller, "system_update", HOST.to_owned())
            .await
    }

    /// Takes the file in, and has it tried at the next start.
    async fn update_from(
        &self,
        caller: &Caller,
        params: UpdateParams,
        Ready { home, keys }: Ready,
        running: Upload,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<Updated, Problem> {
        let receiver = Receiver::start(self.core.images.clone(), Expected::Update);
        let received = self
            .receive(receiver, declared_len, body, &running.handle)
            .await;
        let received = match received {
            Ok(received) => received,
            Err(problem) => {
                running.end::<()>(&Err(problem.clone()));
                return Err(problem);
            }
        };
        // Whoever sent it may go away now.
        let caller = caller.clone();
        self.finish_anyway(move |manager| async move {
            let slot = home.started().other();
            let core = &manager.core;
            let written = core
                .write_other(home, received, keys, &running.handle)
                .await;
            if written.is_ok() {
                core.prepare_guests(params, &running.handle).await;
            }
            running.end(&written);
            manager.tried_next(&caller, slot, written?, params).await
        })
        .await
    }

    /// `POST /v1/system:rollback`: has the other image tried at the next start. An update that has not been tried yet is forgotten instead.
    ///
    /// # Errors
    /// `WrongState` where there is no other image.
    pub async fn system_rollback(
        &self,
        caller: &Caller,
        params: UpdateParams,
    ) -> Result<Updated, Problem> {
        let core = &self.core;
        core.require_changeable()?;
        let home = core.home()?;
        let running = self
            .upload_operation(caller, "system_rollback", HOST.to_owned())
            .await?;
        caller.audit("system_rollback", HOST);
        let caller = caller.clone();
        self.finish_anyway(move |manager| async move {
            let (core, started) = (&manager.core, home.started());
            let result = core.roll_back(home).await;
            if matches!(result, Ok(Some(_))) {
                core.prepare_guests(params, &running.handle).await;
            }
            running.end(&result);
            let Some(contents) = result? else {
                return Ok(Updated {
                    slot: named(started),
                    version: own_version(),
                    restarts: false,
                });
            };
            let other = started.other();
            manager.tried_next(&caller, other, contents, params).await
        })
        .await
    }

    /// Answers that an image is tried at the next start, and brings that about if it is wanted now.
    async fn tried_next(
        &self,
        caller: &Caller,
        slot: Slot,
        contents: Contents,
        params: UpdateParams,
    ) -> Result<Updated, Problem> {
        let (slot, version) = (named(slot), contents.version);
        let when = if params.restart {
            "now"
        } else {
            "at the next restart"
        };
        self.core.tell(format!(
            "Lodge {version}, image {}, is tried {when}",
            slot.as_str()
        ));
        if params.restart
            && let Err(problem) = self.system_action(caller, SystemAction::Reboot).await
        {
            self.core.restarting.store(false, Ordering::SeqCst);
            self.core.guests_go_on().await;
            return Err(problem);
        }
        Ok(Updated {
            slot,
            version,
            restarts: params.restart,
        })
    }
}

/// A host that can be updated.
struct Ready {
    home: Home,
    /// Who may sign updates.
    keys: Vec<UpdateKey>,
}

impl Core {
    fn ready(&self) -> Result<Ready, Problem> {
        self.require_changeable()?;
        let home = self.home()?;
        let keys = self.update_keys();
        if keys.is_empty() {
            return Err(
                wrong_state("this host trusts no key, and takes no update therefore")
                    .with_hint("`lodge system update-key add` names who may sign updates"),
            );
        }
        Ok(Ready { home, keys })
    }

    fn home(&self) -> Result<Home, Problem> {
        if !self.config.appliance {
            return Err(wrong_state(
                "this server runs on an ordinary Linux host, which updates it by its own means",
            ));
        }
        Home::find(&self.config.run_dir.join("update")).map_err(|error| problem(&error))
    }

    /// For as long as what is returned is held, nobody else changes the images.
    async fn images_to_change(&self) -> Result<MutexGuard<'_, ()>, Problem> {
        if self.host_images.writing.load(Ordering::SeqCst) {
            return Err(wrong_state("another update is under way")
                .with_hint("wait for it to end, or cancel its operation"));
        }
        Ok(self.host_images.mounts.lock().await)
    }

    /// Checks what was received, and makes the other image of it.
    async fn write_other(
        &self,
        home: Home,
        received: Received,
        keys: Vec<UpdateKey>,
        handle: &OperationHandle,
    ) -> Result<Contents, Problem> {
        self.note_before().await?;
        let _mounting = self.images_to_change().await?;
        self.host_images.writing.store(true, Ordering::SeqCst);
        let handle = handle.clone();
        let written = blocking(move || {
            let file = received.file.file();
            let length = install::verify(file, &keys, &mut |done, total| {
                watch(&handle, "checking the signature", done, total)
            })
            .map_err(|error| untrusted(&error))?;
            let contents = home
                .replace_other(file, length, &mut |step, done, total| {
                    watch(&handle, phase(step), done, total)
                })
                .map_err(|error| problem(&error))?;
            handle.commit_to_finish()?;
            try_other(&home)?;
            Ok(contents)
        })
        .await;
        self.host_images.writing.store(false, Ordering::SeqCst);
        written
    }

    /// What the other image contains, which is tried next, unless there was an update to be forgotten.
    async fn roll_back(&self, home: Home) -> Result<Option<Contents>, Problem> {
        self.note_before().await?;
        let _mounting = self.images_to_change().await?;
        blocking(move || roll_back(&home)).await
    }

    /// Saves the guests that run if the host is about to restart and they are to go on.
    async fn prepare_guests(&self, params: UpdateParams, handle: &OperationHandle) {
        if params.restart && params.guests == GuestsMeanwhile::Suspend {
            // Who started a saved guest now, or changed its disks, would have it go on with others than it knows.
            self.restarting.store(true, Ordering::SeqCst);
            self.suspend_guests(handle).await;
        }
    }
}

/// Tells how far a step is, and whether to go on.
fn watch(handle: &OperationHandle, phase: &str, done: u64, total: u64) -> ControlFlow<()> {
    handle.progress(phase, done, total);
    if handle.is_cancelled() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Has the image that does not run tried at the next start.
fn try_other(home: &Home) -> Result<(), Problem> {
    let trial = Environment {
        slot: home.started(),
        trial: Some(home.started().other()),
        pending: true,
    };
    home.decide(trial).map_err(|error| problem(&error))
}

/// Forgets an update that has not been tried yet, else has the other image tried, and tells what that contains.
fn roll_back(home: &Home) -> Result<Option<Contents>, Problem> {
    let failed = |error: InstallError| problem(&error);
    let other = home.started().other();
    let environment = home.environment().map_err(failed)?;
    let contents = home
        .check(other, &mut |_: Step, _, _| ControlFlow::Continue(()))
        .map_err(|error| {
            wrong_state(format!("there is no other image to go to: {error}"))
                .with_hint("`lodge system update` writes one")
        })?;
    if environment.pending && environment.trial == Some(other) {
        home.decide(Environment::only(home.started()))
            .map_err(failed)?;
        return Ok(None);
    }
    try_other(home)?;
    Ok(Some(contents))
}

fn look(home: &Home) -> Result<Vec<HostImage>, Problem> {
    let environment = home.environment().map_err(|error| problem(&error))?;
    let image = |slot: Slot| {
        let running = slot == home.started();
        let version = home.contents(slot).ok().map(|contents| contents.version);
        let state = state(slot, running, version.is_some(), environment);
        shown(slot, version, running, state)
    };
    Ok([Slot::A, Slot::B].into_iter().map(image).collect())
}

fn state(slot: Slot, running: bool, there: bool, environment: Environment) -> HostImageState {
    let trial = environment.trial == Some(slot);
    match (there, trial) {
        (false, _) => HostImageState::Empty,
        (true, true) if environment.pending => HostImageState::NextTrial,
        (true, true) if running => HostImageState::OnTrial,
        (true, true) => HostImageState::Failed,
        (true, false) if environment.slot == slot => HostImageState::Default,
        (true, false) => HostImageState::Spare,
    }
}

fn shown(slot: Slot, version: Option<String>, running: bool, state: HostImageState) -> HostImage {
    HostImage {
        slot: named(slot),
        version,
        running,
        state,
    }
}

fn own_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn named(slot: Slot) -> ImageSlot {
    match slot {
        Slot::A => ImageSlot::A,
        Slot::B => ImageSlot::B,
    }
}

fn wrong_state(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::WrongState, detail)
}

fn problem(error: &InstallError) -> Problem {
    let detail = error.to_string();
    match error {
        InstallError::NotInstalled(_) => {
            wrong_state(detail).with_hint("`lodge system install` puts Lodge on a disk of the host")
        }
        InstallError::Damaged { .. } => Problem::new(ErrorCode::InvalidContent, detail)
            .with_hint("get the file again, or build it again"),
        InstallError::Cancelled => cancelled(),
        _ => internal(detail),
    }
}

fn untrusted(error: &SignatureError) -> Problem {
    let invalid =
        |hint: &str| Problem::new(ErrorCode::InvalidContent, error.to_string()).with_hint(hint);
    match error {
        SignatureError::Missing => invalid("`scripts/sign` puts one there"),
        SignatureError::Malformed | SignatureError::Wrong => invalid("get the file again"),
        SignatureError::Unknown => {
            invalid("`lodge system update-key add` trusts another one, if that is what you want")
        }
        SignatureError::Cancelled => cancelled(),
        SignatureError::Io(_) => internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grub_has_written_down_says_when_an_image_starts() {
        let environment = |slot, trial, pending| Environment {
            slot,
            trial,
            pending,
        };
        let quiet = environment(Slot::A, None, false);
        assert_eq!(state(Slot::A, true, true, quiet), HostImageState::Default);
        assert_eq!(state(Slot::B, false, true, quiet), HostImageState::Spare);
        assert_eq!(state(Slot::B, false, false, quiet), HostImageState::Empty);
        let next = environment(Slot::A, Some(Slot::B), true);
        assert_eq!(state(Slot::B, false, true, next), HostImageState::NextTrial);
        let tried = environment(Slot::A, Some(Slot::B), false);
        assert_eq!(state(Slot::B, true, true, tried), HostImageState::OnTrial);
        assert_eq!(state(Slot::B, false, true, tried), HostImageState::Failed);
    }
}
