//! `lodge token`: long-lived credentials of programs.

use clap::Subcommand;
use http::Method;
use lodge_api::auth::{Token, TokenCreate, TokenCreated};
use lodge_client::{ClientError, age};

use super::disk::parse_name;
use super::user::RoleName;
use super::{all, path};
use crate::context::Context;
use crate::output::{self, Format};
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a token and print its secret, once
    Create {
        /// [REMOTE:]NAME
        name: Target,
        /// What it may do; your own role without it
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// Days until it stops working
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// List tokens
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Revoke
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME or id
        name: Target,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Create { name, role, days } => {
            let client = context.client(name.remote.as_deref())?;
            let body = TokenCreate {
                name: parse_name(&name.name)?,
                role: role.map(Into::into),
                expires_in_days: days,
            };
            let created: TokenCreated =
                client.send(Method::POST, "/v1/tokens", &body, None).await?;
            match context.format {
                Format::Table => println!("{}", created.secret),
                format => output::structured(format, &created)?,
            }
            Ok(())
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let tokens: Vec<Token> = all(&client, "tokens", None).await?;
            output::list(
                context.format,
                &tokens,
                &["NAME", "USER", "ROLE", "AGE", "EXPIRES"],
                |token| {
                    vec![
                        token.name.to_string(),
                        token.user.to_string(),
                        format!("{:?}", token.role).to_lowercase(),
                        age(token.created_at),
                        token
                            .expires_at
                            .map_or_else(|| "never".to_owned(), |time| time.to_string()),
                    ]
                },
            )
        }
        Verb::Delete { name } => {
            let client = context.client(name.remote.as_deref())?;
            client.delete(&path("tokens", &name.name)).await?;
            output::done(context.format, &format!("Token {} revoked", name.name));
            Ok(())
        }
    }
}
