//! The manager, without guests that run.

mod accounts;
mod backups;
mod configuration;
mod configuration_hostile;
mod datastores;
mod foreign;
mod hostname;
mod installation;
mod losses;
mod nvme;
mod objects;
mod ova;
#[path = "../support/mod.rs"]
mod support;
