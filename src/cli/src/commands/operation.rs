//! `lodge operation`: what a host is doing and has done.

use clap::Subcommand;
use lodge_api::operation::Operation;
use lodge_client::{ClientError, age};

use super::{all, path};
use crate::context::Context;
use crate::target::{RemoteName, Target};
use crate::{output, progress};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List operations, newest first
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Show one with its log
    Show {
        /// [REMOTE:]ID
        id: Target,
    },
    /// Wait for its end; fails when the operation failed
    Wait {
        /// [REMOTE:]ID
        id: Target,
    },
    /// Cancel
    Cancel {
        /// [REMOTE:]ID
        id: Target,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let operations: Vec<Operation> = all(&client, "operations", None).await?;
            let head = ["ID", "KIND", "TARGET", "USER", "STATUS", "AGE"];
            output::list(context.format, &operations, &head, |operation| {
                vec![
                    operation.id.to_string(),
                    operation.kind.clone(),
                    operation.target.clone(),
                    operation.user.to_string(),
                    operation.status.as_str().to_owned(),
                    age(operation.created_at),
                ]
            })
        }
        Verb::Show { id } => {
            let client = context.client(id.remote.as_deref())?;
            let operation: Operation = client.get(&path("operations", &id.name)).await?;
            output::object(context.format, &operation, rows)
        }
        Verb::Wait { id } => {
            let client = context.client(id.remote.as_deref())?;
            let operation: Operation = client.get(&path("operations", &id.name)).await?;
            let operation = progress::follow(&client, operation).await?;
            output::object(context.format, &operation, rows)
        }
        Verb::Cancel { id } => {
            let client = context.client(id.remote.as_deref())?;
            client.delete(&path("operations", &id.name)).await?;
            output::done(context.format, &format!("Operation {} cancelled", id.name));
            Ok(())
        }
    }
}

fn rows(operation: &Operation) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Id", operation.id.to_string()),
        ("Kind", operation.kind.clone()),
        ("Target", operation.target.clone()),
        ("User", operation.user.to_string()),
        ("Status", operation.status.as_str().to_owned()),
        ("Created", operation.created_at.to_string()),
    ];
    rows.extend(
        operation
            .finished_at
            .map(|time| ("Finished", time.to_string())),
    );
    rows.extend(operation.progress.as_ref().map(|progress| {
        (
            "Progress",
            format!(
                "{}: {} of {}",
                progress.phase, progress.done, progress.total
            ),
        )
    }));
    rows.extend(
        operation
            .error
            .as_ref()
            .map(|problem| ("Error", problem.to_string())),
    );
    rows.extend(operation.log.iter().map(|line| ("Log", line.clone())));
    rows
}
