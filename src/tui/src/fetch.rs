//! Reading the host again and again, and at once when it says that something happened.

use std::time::Duration;

use lodge_api::log::LogEntry;
use lodge_api::page::Page;
use lodge_client::{Client, ClientError, SocketMessage};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::model::{Message, Snapshot};

/// How often the host is read when nothing happens.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shortest pause between two readings, so that a burst of events is one reading.
const SHORTEST: Duration = Duration::from_millis(200);

/// Log lines asked for at a time.
const LOG_LINES: u32 = 200;

/// Reports the host until the receiver is gone.
pub(crate) async fn run(client: Client, messages: mpsc::Sender<Message>) {
    let (wake, mut woken) = mpsc::channel(1);
    let listener = tokio::spawn(listen(client.clone(), wake));
    let mut last_line = None;
    loop {
        let begin = Instant::now();
        let message = match snapshot(&client, last_line).await {
            Ok(snapshot) => {
                last_line = snapshot
                    .log
                    .last()
                    .map(|entry| entry.sequence)
                    .or(last_line);
                Message::Snapshot(Box::new(snapshot))
            }
            Err(error) => Message::Disconnected(error.to_string()),
        };
        if messages.send(message).await.is_err() {
            break;
        }
        sleep_until(begin + SHORTEST).await;
        tokio::select! {
            () = sleep_until(begin + INTERVAL) => {}
            Some(()) = woken.recv() => {}
        }
    }
    listener.abort();
}

async fn snapshot(client: &Client, since: Option<u64>) -> Result<Snapshot, ClientError> {
    let since = since
        .map(|line| format!("&since={line}"))
        .unwrap_or_default();
    let log: Page<LogEntry> = client
        .get(&format!("/v1/system/log?limit={LOG_LINES}{since}"))
        .await?;
    let vms: Page<_> = client.get("/v1/vms?limit=1000").await?;
    let operations: Page<_> = client.get("/v1/operations?limit=50").await?;
    // Earlier versions of Lodge have one, and do not tell.
    let datastores = client.get::<Page<_>>("/v1/datastores?limit=1000").await;
    Ok(Snapshot {
        system: client.get("/v1/system").await?,
        datastores: datastores.map_or_else(|_| Vec::new(), |page| page.items),
        vms: vms.items,
        operations: operations.items,
        log: log.items,
    })
}

/// Wakes the reader at every event; without events the interval does.
async fn listen(client: Client, wake: mpsc::Sender<()>) {
    loop {
        if let Ok(mut socket) = client.websocket("/v1/events").await {
            while let Ok(SocketMessage::Text(_) | SocketMessage::Bytes(_)) = socket.receive().await
            {
                // A full channel means that the reader is woken already.
                let _ = wake.try_send(());
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
