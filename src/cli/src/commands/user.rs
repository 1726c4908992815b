//! `lodge user`: people and programs that may log in.

use clap::{Subcommand, ValueEnum};
use http::Method;
use lodge_api::auth::{User, UserCreate, UserPatch};
use lodge_api::privilege::Role;
use lodge_client::{ClientError, age};

use super::disk::parse_name;
use super::{all, path};
use crate::context::{Context, ask, ask_password};
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Everything
    Administrator,
    /// Guests, images and disks
    Operator,
    /// Reads only
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Administrator => Self::Administrator,
            RoleName::Operator => Self::Operator,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a user; asks for the password
    Create {
        /// [REMOTE:]NAME
        name: Target,
        /// What the user may do
        #[arg(long, value_enum, default_value = "operator")]
        role: RoleName,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Change a user's role, or refuse or allow logging in
    Set {
        /// [REMOTE:]NAME
        name: Target,
        /// What the user may do
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// Refuse (true) or allow (false) logging in
        #[arg(long)]
        disabled: Option<bool>,
    },
    /// Set a password; ends the user's sessions
    Password {
        /// [REMOTE:]NAME
        name: Target,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Delete a user with all sessions and tokens
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME
        name: Target,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Create {
            name,
            role,
            password_stdin,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let body = UserCreate {
                name: parse_name(&name.name)?,
                password: new_password(password_stdin)?,
                role: role.into(),
            };
            let user: User = client.send(Method::POST, "/v1/users", &body, None).await?;
            output::done(context.format, &format!("User {} created", user.name));
            Ok(())
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let users: Vec<User> = all(&client, "users", None).await?;
            output::list(
                context.format,
                &users,
                &["NAME", "ROLE", "STATE", "AGE"],
                |user| {
                    vec![
                        user.name.to_string(),
                        format!("{:?}", user.role).to_lowercase(),
                        if user.disabled { "disabled" } else { "enabled" }.to_owned(),
                        age(user.created_at),
                    ]
                },
            )
        }
        Verb::Set {
            name,
            role,
            disabled,
        } => {
            let patch = UserPatch {
                role: role.map(Into::into),
                disabled,
                password: None,
            };
            change(context, &name, &patch).await
        }
        Verb::Password {
            name,
            password_stdin,
        } => {
            let patch = UserPatch {
                password: Some(new_password(password_stdin)?),
                ..UserPatch::default()
            };
            change(context, &name, &patch).await
        }
        Verb::Delete { name } => {
            let client = context.client(name.remote.as_deref())?;
            client.delete(&path("users", &name.name)).await?;
            output::done(context.format, &format!("User {} deleted", name.name));
            Ok(())
        }
    }
}

async fn change(context: &Context, target: &Target, patch: &UserPatch) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let user: User = client
        .send(Method::PATCH, &path("users", &target.name), patch, None)
        .await?;
    output::done(context.format, &format!("User {} changed", user.name));
    Ok(())
}

fn new_password(from_stdin: bool) -> Result<String, ClientError> {
    if from_stdin {
        return ask("");
    }
    let password = ask_password("New password: ")?;
    if ask_password("Once more: ")? != password {
        return Err(ClientError::Usage(
            "the passwords differ; nothing was changed".to_owned(),
        ));
    }
    Ok(password)
}
