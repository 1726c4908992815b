//! `lodge system authority`: whom a host trusts beside the public certificate authorities, when it fetches content.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use lodge_api::authority::{Authority, AuthorityCreate};
use lodge_client::{ClientError, age};

use super::disk::parse_name;
use super::{all, path};
use crate::context::Context;
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityVerb {
    /// Trust a certificate authority, for content at https URLs
    #[command(after_help = "Example: lodge system authority add lab /etc/ssl/lab-ca.pem")]
    Add {
        /// [REMOTE:]NAME to know it by
        name: Target,
        /// Its certificate, as PEM
        file: PathBuf,
    },
    /// List whom the host trusts beside the public authorities
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Trust an authority no longer
    #[command(visible_alias = "rm")]
    Remove {
        /// [REMOTE:]NAME
        name: Target,
    },
}

pub(crate) async fn run(context: &Context, verb: AuthorityVerb) -> Result<(), ClientError> {
    match verb {
        AuthorityVerb::Add { name, file } => {
            let certificate = std::fs::read_to_string(&file).map_err(|error| {
                ClientError::Usage(format!("{} cannot be read: {error}", file.display()))
            })?;
            let body = AuthorityCreate {
                name: parse_name(&name.name)?,
                certificate,
            };
            let client = context.client(name.remote.as_deref())?;
            let added: Authority = client
                .send(Method::POST, "/v1/authorities", &body, None)
                .await?;
            let text = format!("Authority {} is trusted: {}", added.name, added.fingerprint);
            output::done(context.format, &text);
            Ok(())
        }
        AuthorityVerb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let authorities: Vec<Authority> = all(&client, "authorities", None).await?;
            output::list(
                context.format,
                &authorities,
                &["NAME", "FINGERPRINT", "AGE"],
                |authority| {
                    vec![
                        authority.name.to_string(),
                        authority.fingerprint.clone(),
                        age(authority.created_at),
                    ]
                },
            )
        }
        AuthorityVerb::Remove { name } => {
            let client = context.client(name.remote.as_deref())?;
            client.delete(&path("authorities", &name.name)).await?;
            let text = format!("Authority {} is trusted no longer", name.name);
            output::done(context.format, &text);
            Ok(())
        }
    }
}
