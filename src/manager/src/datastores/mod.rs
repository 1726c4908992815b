//! Datastores: filesystems with disks, and with what snapshots have of them.
//!
//! One is always there, on the filesystem of the host's own data; disks on it name none in their records. Others are mounted when the
//! manager starts, or when their disks appear, under the UUID of their filesystem: kernel names change. What an earlier manager has mounted
//! stays, as guests that run use it.

mod attach;
mod create;
mod delete;
mod follow;
mod home;
mod nfs;
mod owner;
mod record;
mod registry;
mod settle;
mod view;
mod wait;

pub(crate) use self::record::{DatastoreRecord, missing_default, require, require_known};
pub(crate) use self::registry::{Datastores, Folders};
pub(crate) use self::view::name_of;
