//! The ISO on a virtual bare-metal machine, driven from outside. One program for all subjects, so that two machines run at any
//! time and no processor waits for the last test of a subject.

mod backup;
mod boot;
mod cloud_init;
mod datastores;
mod faces;
mod firmware;
mod full_disk;
mod guests;
mod hotplug;
mod images;
mod installation;
mod limits;
mod network;
mod nfs;
mod nvme;
mod power_cuts;
mod power_cuts_install;
mod refusals;
mod snapshots;
mod survival;
mod tour;
mod update;
mod virtualization;
