//! Backups that the host writes by itself, to folders and buckets, in the layout that `lodge vm restore` reads.
//!
//! What is on a target is what its lists, [`FILE`](lodge_api::backup_catalog::FILE), say. Records of this host follow them, for `GET
//! /v1/backups`: they are made anew when a target is added, and whenever a list is written.

mod busy;
mod catalog;
mod delete;
mod listing;
mod make;
mod place;
mod place_bucket;
mod place_directory;
mod record;
mod restore;
mod schedule;
mod target;
mod target_change;
mod verify;
mod write;

pub(crate) use self::busy::Backups;
pub(crate) use self::schedule::{check as check_schedule, require_target};
pub(crate) use self::target::TargetRecord;
