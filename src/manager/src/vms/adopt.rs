//! Finding the guests that an earlier manager started.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::control;
use super::launch::{Guest, Launched};
use super::run_dir::RunDir;
use super::state::End;
use crate::core::Core;

/// How long a monitor that is there may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between tries while a monitor is in the middle of its birth.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a guest that was not watched.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It runs.
    Runs(Box<Launched>),
    /// It has ended.
    Ended(End),
}

/// Finds out what became of a guest that has a run directory.
///
/// A monitor whose manager died while it was starting gives up by itself: then its socket
/// soon refuses connections.
pub(crate) async fn find(core: &Arc<Core>, id: Uuid, run: RunDir) -> Fate {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match connect(core, id, &run).await {
            Ok(launched) => return Fate::Runs(Box::new(launched)),
            Err(error) => error,
        };
        let gone = is_gone(&error);
        if gone || Instant::now() >= deadline {
            if !gone {
                tracing::error!(%id, %error, "a guest's monitor cannot be reached, and is killed");
            }
            return Fate::Ended(end(core, id, &run));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether an error of connecting says that no monitor is there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::NotFound
    )
}

/// What is known of the end of a guest that was not watched.
pub(crate) fn end(core: &Core, id: Uuid, run: &RunDir) -> End {
    End {
        record: run.exit_record(),
        asked: false,
        out_of_memory: out_of_memory(core, id),
        last_line: run.last_line(),
    }
}

fn out_of_memory(core: &Core, id: Uuid) -> bool {
    let leaf = core
        .cgroups
        .as_ref()
        .and_then(|tree| tree.leaf(&id.to_string()).ok());
    leaf.and_then(|leaf| leaf.usage().ok())
        .is_some_and(|usage| usage.oom_kills > 0)
}

async fn connect(core: &Arc<Core>, id: Uuid, run: &RunDir) -> io::Result<Launched> {
    // The first connection may have been accepted into the queue before the monitor made the socket
    // its own, and then names the dead manager as its peer. Once it has answered, a second one does not.
    control::find(&run.socket()).await?;
    let found = control::find(&run.socket()).await?;
    let note = run.read_note()?;
    let cgroup = core
        .cgroups
        .as_ref()
        .and_then(|tree| tree.leaf(&id.to_string()).ok());
    Ok(Launched {
        guest: Guest {
            control: found.control,
            process: found.process.into_async()?,
            pid: found.pid,
            run: run.clone(),
            cgroup,
            note,
        },
        notices: found.notices,
        status: found.status,
    })
}
