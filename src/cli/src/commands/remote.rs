//! `lodge remote`: the hosts a person manages.

use std::io::IsTerminal;

use clap::Subcommand;
use http::Method;
use lodge_api::auth::{LoginRequest, Session};
use lodge_client::{BaseUrl, Client, ClientError, Fingerprint, Remote, fetch_fingerprint};
use serde::Serialize;

use crate::context::{Context, ask, ask_password};
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a host: compare its fingerprint, log in, remember both
    Add {
        /// How you want to call it
        name: String,
        /// Where it is: https://ADDRESS[:PORT]
        url: BaseUrl,
        /// The certificate's fingerprint as the host's console shows it; asked for without it
        #[arg(long)]
        fingerprint: Option<Fingerprint>,
        #[command(flatten)]
        credentials: Credentials,
    },
    /// List the hosts
    #[command(visible_alias = "ls")]
    List,
    /// Log in again, when the session has ended
    Login {
        /// The remote
        name: String,
        #[command(flatten)]
        credentials: Credentials,
    },
    /// Make a host the default one
    Default {
        /// The remote
        name: String,
    },
    /// Forget a host and its session
    #[command(visible_alias = "rm")]
    Remove {
        /// The remote
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Credentials {
    /// Who logs in
    #[arg(long, default_value = "admin")]
    user: String,
    /// Read the password from standard input instead of asking
    #[arg(long, conflicts_with = "token")]
    password_stdin: bool,
    /// Use this API token instead of logging in
    #[arg(long, env = "LODGE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    url: String,
    user: &'a str,
    fingerprint: String,
    default: bool,
}

pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Add {
            name,
            url,
            fingerprint,
            credentials,
        } => add(context, &name, url, fingerprint, credentials).await,
        Verb::List => list(context),
        Verb::Login { name, credentials } => {
            let (_, remote) = context.remotes.find(Some(&name))?;
            let remote = log_in(remote.clone(), credentials).await?;
            context.remotes.remotes.insert(name.clone(), remote);
            context.remotes.save(&context.path)?;
            output::done(context.format, &format!("Logged in to {name}"));
            Ok(())
        }
        Verb::Default { name } => {
            context.remotes.find(Some(&name))?;
            context.remotes.default = Some(name);
            context.remotes.save(&context.path)
        }
        Verb::Remove { name } => remove(context, &name).await,
    }
}

async fn add(
    context: &mut Context,
    name: &str,
    url: BaseUrl,
    fingerprint: Option<Fingerprint>,
    credentials: Credentials,
) -> Result<(), ClientError> {
    let fingerprint = match fingerprint {
        Some(fingerprint) => fingerprint,
        None => confirm(&url).await?,
    };
    let remote = Remote {
        url,
        fingerprint,
        user: None,
        token: None,
    };
    // Refuse a taken name before asking for a password.
    context.remotes.clone().add(name, remote.clone())?;
    let remote = log_in(remote, credentials).await?;
    context.remotes.add(name, remote)?;
    context.remotes.save(&context.path)?;
    output::done(context.format, &format!("Remote {name} added"));
    Ok(())
}

async fn confirm(url: &BaseUrl) -> Result<Fingerprint, ClientError> {
    let found = fetch_fingerprint(url).await?;
    eprintln!("The certificate of {url} has the fingerprint\n  {found}");
    if !std::io::stdin().is_terminal() {
        return Err(ClientError::Usage(
            "compare it with the host's console, then pass it as --fingerprint".to_owned(),
        ));
    }
    match ask("Is this what the host's console shows? [y/N] ")?.as_str() {
        "y" | "Y" | "yes" => Ok(found),
        _ => Err(ClientError::Usage("nothing was added".to_owned())),
    }
}

async fn log_in(mut remote: Remote, credentials: Credentials) -> Result<Remote, ClientError> {
    remote.token = None;
    if let Some(token) = credentials.token {
        remote.token = Some(token);
        let session: serde_json::Value = Client::new(remote.clone(), None)
            .get("/v1/sessions/current")
            .await?;
        remote.user = session["user"].as_str().map(str::to_owned);
        return Ok(remote);
    }
    let password = if credentials.password_stdin {
        ask("")?
    } else {
        ask_password(&format!("Password of {}: ", credentials.user))?
    };
    let request = LoginRequest {
        user: credentials.user,
        password,
    };
    let session: Session = Client::new(remote.clone(), None)
        .send(Method::POST, "/v1/sessions", &request, None)
        .await?;
    remote.user = Some(session.user.to_string());
    remote.token = Some(session.token);
    Ok(remote)
}

async fn remove(context: &mut Context, name: &str) -> Result<(), ClientError> {
    let remote = context.remotes.remove(name)?;
    context.remotes.save(&context.path)?;
    // The session dies by itself where the host cannot be reached.
    let _ = Client::new(remote, None)
        .delete("/v1/sessions/current")
        .await;
    output::done(context.format, &format!("Remote {name} removed"));
    Ok(())
}

fn list(context: &Context) -> Result<(), ClientError> {
    let default = context.remotes.default.as_deref();
    let rows: Vec<_> = context
        .remotes
        .remotes
        .iter()
        .map(|(name, remote)| Row {
            name,
            url: remote.url.to_string(),
            user: remote.user.as_deref().unwrap_or("-"),
            fingerprint: remote.fingerprint.to_string(),
            default: default == Some(name),
        })
        .collect();
    output::list(
        context.format,
        &rows,
        &["NAME", "URL", "USER", "DEFAULT"],
        |row| {
            let default = if row.default { "yes" } else { "" };
            vec![
                row.name.to_owned(),
                row.url.clone(),
                row.user.to_owned(),
                default.to_owned(),
            ]
        },
    )
}
