//! The grammar of the command line.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    backup, config, datastore, disk, event, image, network, nvme, operation, query, remote,
    snapshot, system, token, user, vm,
};
use crate::output::Format;

/// Host virtual machines, and manage hosts from anywhere.
#[derive(Debug, Parser)]
#[command(
    name = "lodge",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_help = "Objects are named [REMOTE:]NAME; without REMOTE the default one is used.\n\
                  Start with: lodge remote add lab https://ADDRESS"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Format of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Show the HTTP requests and answers on standard error
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Hosts you manage
    #[command(subcommand)]
    Remote(remote::Verb),
    /// Virtual machines
    #[command(subcommand)]
    Vm(Box<vm::Verb>),
    /// Kernels, initial RAM disks and disk images
    #[command(subcommand)]
    Image(image::Verb),
    /// Where virtual disks are
    #[command(subcommand)]
    Datastore(datastore::Verb),
    /// Disks of other machines, and disks for other machines, by NVMe over TCP
    #[command(subcommand)]
    Nvme(nvme::Verb),
    /// Virtual disks
    #[command(subcommand)]
    Disk(disk::Verb),
    /// What virtual machines were at one moment, to go back to or to make others of
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Backups that hosts make by themselves, and where to
    #[command(subcommand)]
    Backup(Box<backup::Verb>),
    /// Networks guests attach to
    #[command(subcommand)]
    Network(network::Verb),
    /// What hosts are doing and have done
    #[command(subcommand)]
    Operation(operation::Verb),
    /// What happens on a host
    #[command(subcommand)]
    Event(event::Verb),
    /// The host itself
    #[command(subcommand)]
    System(system::Verb),
    /// The host's configuration as a whole, in a file
    #[command(subcommand)]
    Config(config::Verb),
    /// People and programs that may log in
    #[command(subcommand)]
    User(user::Verb),
    /// Long-lived credentials of programs
    #[command(subcommand)]
    Token(token::Verb),
    /// Ask the API directly
    Query(query::Query),
    /// Full-screen console of a host
    Tui {
        /// [REMOTE:], the host; the default remote without it
        remote: Option<String>,
    },
    /// Print a completion script for your shell
    Completion {
        /// The shell
        shell: Shell,
    },
}
