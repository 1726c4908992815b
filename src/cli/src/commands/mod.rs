//! One file per noun.

pub(crate) mod backup;
mod backup_target;
pub(crate) mod config;
pub(crate) mod datastore;
pub(crate) mod disk;
pub(crate) mod event;
mod export;
pub(crate) mod image;
mod image_upload;
pub(crate) mod network;
pub(crate) mod nvme;
pub(crate) mod operation;
pub(crate) mod query;
pub(crate) mod remote;
pub(crate) mod snapshot;
pub(crate) mod system;
mod system_authority;
mod system_install;
mod system_update;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod vm;
mod vm_backup;
mod vm_backup_schedule;
mod vm_balloon;
mod vm_cloud_init;
mod vm_import;
mod vm_limits;
mod vm_nvram;
mod vm_plug;
mod vm_schedule;
mod vm_settings;
mod vnc;

mod console;
mod screen;

use clap::CommandFactory;
use lodge_api::page::Page;
use lodge_client::{Client, ClientError, encode_segment};
use serde::de::DeserializeOwned;

use crate::args::{Arguments, Noun};
use crate::context::Context;

/// Carries out one command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), ClientError> {
    if let Noun::Completion { shell } = arguments.noun {
        clap_complete::generate(
            shell,
            &mut Arguments::command(),
            "lodge",
            &mut std::io::stdout(),
        );
        return Ok(());
    }
    let mut context = Context::load(&arguments.common)?;
    match arguments.noun {
        Noun::Remote(verb) => remote::run(&mut context, verb).await,
        Noun::Vm(verb) => vm::run(&context, *verb).await,
        Noun::Image(verb) => image::run(&context, verb).await,
        Noun::Datastore(verb) => datastore::run(&context, verb).await,
        Noun::Nvme(verb) => nvme::run(&context, verb).await,
        Noun::Disk(verb) => disk::run(&context, verb).await,
        Noun::Snapshot(verb) => snapshot::run(&context, verb).await,
        Noun::Backup(verb) => backup::run(&context, *verb).await,
        Noun::Network(verb) => network::run(&context, verb).await,
        Noun::Operation(verb) => operation::run(&context, verb).await,
        Noun::Event(verb) => event::run(&context, verb).await,
        Noun::System(verb) => system::run(&context, verb).await,
        Noun::Config(verb) => config::run(&context, verb).await,
        Noun::User(verb) => user::run(&context, verb).await,
        Noun::Token(verb) => token::run(&context, verb).await,
        Noun::Query(query) => query::run(&context, query).await,
        Noun::Tui { .. } | Noun::Completion { .. } => Ok(()),
    }
}

/// Path of one object, whatever a person typed as its name.
fn path(collection: &str, name: &str) -> String {
    format!("/v1/{collection}/{}", encode_segment(name))
}

/// Every page of a list.
async fn all<T: DeserializeOwned>(
    client: &Client,
    collection: &str,
    filter: Option<&str>,
) -> Result<Vec<T>, ClientError> {
    let mut items = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let and = if collection.contains('?') { '&' } else { '?' };
        let mut url = format!("/v1/{collection}{and}limit=1000");
        if let Some(filter) = filter {
            url.push_str(&format!("&filter={}", encode_segment(filter)));
        }
        if let Some(page) = &next {
            url.push_str(&format!("&page={}", encode_segment(page)));
        }
        let page: Page<T> = client.get(&url).await?;
        items.extend(page.items);
        match page.next_page {
            Some(page) => next = Some(page),
            None => return Ok(items),
        }
    }
}
