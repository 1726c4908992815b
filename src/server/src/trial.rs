//! A version of Lodge that was started for a trial, after an update: whether the host is as well with it as it should be.
//!
//! Asked from outside, as anybody would: over TLS, by the certificate that others have pinned. PID 1 is told when all is well; when it
//! is not told for too long, it restarts the machine, with the version before.

use std::io;
use std::path::Path;
use std::time::Duration;

use lodge_api::ApiInfo;
use lodge_client::{Client, Remote};
use lodge_host::install::on_trial;
use lodge_host::power::{InitLink, InitRequest};
use lodge_manager::Manager;

use crate::local_console::Fixed;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// How often in a row all has to be well.
const IN_A_ROW: u32 = 5;

/// Returns when the version has shown that it works; at once where none is on trial.
pub async fn follow(manager: Manager, fixed: Fixed, socket: impl AsRef<Path>) {
    if !on_trial() {
        return;
    }
    tracing::info!("this version of Lodge is on trial");
    let (mut well, mut said) = (0, String::new());
    while well < IN_A_ROW {
        tokio::time::sleep(PAUSE).await;
        match look(&manager, &fixed).await {
            Ok(()) => well += 1,
            Err(problem) => {
                well = 0;
                if problem != said {
                    tracing::warn!("not as it should be after the update: {problem}");
                    said = problem;
                }
            }
        }
    }
    while let Err(problem) = manager.confirm_trial().await {
        tracing::error!(%problem, "that this version works cannot be written down");
        tokio::time::sleep(PAUSE).await;
    }
    if let Err(error) = tell_init(socket.as_ref()).await {
        tracing::error!(%error, "init does not hear that this version works");
    }
}

async fn look(manager: &Manager, fixed: &Fixed) -> Result<(), String> {
    manager.healthy()?;
    let url = format!("https://127.0.0.1:{}", fixed.listen.port());
    let remote = Remote {
        url: url.parse().map_err(|error| format!("{url}: {error}"))?,
        fingerprint: fixed
            .fingerprint
            .parse()
            .map_err(|error| format!("the certificate: {error}"))?,
        user: None,
        token: None,
    };
    let info: ApiInfo = Client::new(remote, None)
        .get("/v1")
        .await
        .map_err(|error| format!("the API: {error}"))?;
    tracing::debug!(version = info.version, "the API answers");
    Ok(())
}

async fn tell_init(socket: &Path) -> io::Result<()> {
    let mut link = InitLink::connect(socket).await?;
    link.sender.send(&InitRequest::Works).await
}
