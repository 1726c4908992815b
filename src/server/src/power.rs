//! The link to PID 1 on the appliance: its notice that the machine goes down.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use lodge_host::power::{InitLink, InitNotice, InitRequest};
use lodge_manager::Manager;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Kept of the deadline for flushing the store and answering.
const MARGIN: Duration = Duration::from_secs(2);

/// Pause before the link is made anew. Somebody else of this process may have taken it for a moment, to ask for
/// power; PID 1 serves the newest, and repeats its notice to whoever comes.
const RETRY: Duration = Duration::from_millis(200);

/// Follows PID 1's notices for as long as the manager lives.
pub async fn follow(manager: Manager, socket: PathBuf) {
    loop {
        match link(&manager, &socket).await {
            Ok(()) => tracing::warn!("init closed its socket"),
            Err(error) => tracing::warn!(%error, socket = %socket.display(), "no link to init"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn link(manager: &Manager, socket: &std::path::Path) -> io::Result<()> {
    let InitLink {
        mut sender,
        mut receiver,
    } = InitLink::connect(socket).await?;
    let (notices, mut incoming) = mpsc::channel(4);
    // Receiving must not be cancelled in the middle of a line, so it has a task of its own.
    let reader = tokio::spawn(async move {
        while let Some(notice) = receiver.next().await? {
            if notices.send(notice).await.is_err() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    });
    let mut shutdowns = JoinSet::new();
    loop {
        tokio::select! {
            notice = incoming.recv() => match notice {
                Some(InitNotice::Shutdown { action, deadline_s }) => {
                    tracing::info!(deadline_s, "the host is about to {}", action.verb());
                    let (manager, deadline) = (manager.clone(), usable(deadline_s));
                    // A second notice is in more of a hurry and must not wait for the first.
                    shutdowns.spawn(async move { manager.shutdown(deadline).await });
                }
                Some(InitNotice::Refused { message }) => {
                    tracing::error!("init refused a request: {message}");
                }
                None => break,
            },
            Some(_) = shutdowns.join_next() => sender.send(&InitRequest::Drained).await?,
        }
    }
    // PID 1 is gone or confused; what it asked for is done all the same.
    shutdowns.detach_all();
    reader.await.map_err(io::Error::other)?
}

fn usable(deadline_s: u64) -> Duration {
    let deadline = Duration::from_secs(deadline_s);
    deadline.saturating_sub(MARGIN).max(deadline / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_the_deadline_is_kept() {
        assert_eq!(usable(90), Duration::from_secs(88));
        assert_eq!(usable(2), Duration::from_secs(1));
        assert_eq!(usable(0), Duration::ZERO);
    }
}
