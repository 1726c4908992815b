//! `lodge event`: what happens on a host, as it happens.

use clap::Subcommand;
use lodge_api::event::{Change, Event, EventBody};
use lodge_client::{ClientError, SocketMessage, encode_segment};

use crate::context::Context;
use crate::output::{self, Format};
use crate::target::RemoteName;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print events until interrupted
    Monitor {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Begin after this sequence number; 0: with all that is kept
        #[arg(long)]
        since: Option<u64>,
        /// Only these types, separated by commas: object,vm_state,vm_reset,vm_panicked,vm_jail_violation,vm_watchdog,vm_disk_error,operation,system
        #[arg(long)]
        types: Option<String>,
        /// End after so many events
        #[arg(long)]
        count: Option<u64>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    let Verb::Monitor {
        remote,
        since,
        types,
        count,
    } = verb;
    let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
    let mut url = "/v1/events?".to_owned();
    if let Some(since) = since {
        url.push_str(&format!("since={since}&"));
    }
    if let Some(types) = &types {
        url.push_str(&format!("types={}&", encode_segment(types)));
    }
    let mut socket = client.websocket(url.trim_end_matches(['&', '?'])).await?;
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        match socket.receive().await? {
            SocketMessage::Text(text) => print(context.format, &text)?,
            SocketMessage::Bytes(_) => continue,
            SocketMessage::Closed(reason) => return Err(ClientError::Usage(closed(&reason))),
        }
        left -= 1;
    }
    socket.close().await;
    Ok(())
}

fn closed(reason: &str) -> String {
    match reason {
        "" => "the host closed the event stream".to_owned(),
        reason => format!("the host closed the event stream: {reason}"),
    }
}

fn print(format: Format, text: &str) -> Result<(), ClientError> {
    match (format, serde_json::from_str::<Event>(text)) {
        (Format::Table, Ok(event)) => {
            let user = event.user.as_ref().map_or("-", |name| name.as_str());
            println!(
                "{} {:>6} {user:<10} {}",
                event.time,
                event.sequence,
                describe(&event.body)
            );
        }
        (Format::Yaml, Ok(event)) => {
            println!("---");
            output::structured(format, &event)?;
        }
        // One object a line; also what this release does not understand yet.
        _ => println!("{text}"),
    }
    Ok(())
}

fn describe(body: &EventBody) -> String {
    match body {
        EventBody::Object { target, change } => {
            let change = match change {
                Change::Created => "created",
                Change::Changed => "changed",
                Change::Deleted => "deleted",
            };
            format!("{target} {change}")
        }
        EventBody::VmState { vm, state, reason } => {
            let reason = reason
                .as_ref()
                .map(|text| format!(": {text}"))
                .unwrap_or_default();
            format!("vm {vm} {}{reason}", state.as_str())
        }
        EventBody::VmReset { vm } => format!("vm {vm} reset"),
        EventBody::VmJailViolation { vm, system_call } => {
            format!("vm {vm} tried {system_call} by its monitor, which the jail forbids")
        }
        EventBody::VmPanicked { vm, crash_kernel } => {
            let then = if *crash_kernel {
                "; its crash kernel takes over"
            } else {
                ""
            };
            format!("vm {vm}: its system has crashed{then}")
        }
        EventBody::VmWatchdog { vm, action } => {
            format!("vm {vm}: its watchdog has expired ({})", action.as_str())
        }
        EventBody::VmDiskError { vm, error } => {
            format!("vm {vm}: its disk {} failed: {}", error.disk, error.message)
        }
        EventBody::Operation { operation } => {
            format!(
                "operation {} {} {}",
                operation.kind,
                operation.target,
                operation.status.as_str()
            )
        }
        EventBody::System { message } => message.clone(),
        EventBody::Gap { from, to } => format!("events {from} to {to} were lost"),
    }
}
