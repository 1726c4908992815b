//! Disks: raw files guests write to.

use lodge_api::Problem;
use lodge_api::disk::{Disk, DiskCreate, DiskPatch};
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};

use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// By name. Filter fields: `id name size`.
    pub fn disk_list(&self, params: &ListParams) -> Result<Page<Disk>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One disk, by name or id.
    pub fn disk_view(&self, key: &str) -> Result<Disk, Problem> {
        let _ = key;
        Err(crate::manager::unfinished())
    }

    /// Makes a disk, empty or a copy of an image. What can be checked is checked before this returns;
    /// the operation does the rest. Its target is `/v1/disks/NAME`.
    pub async fn disk_create(
        &self,
        caller: &Caller,
        create: DiskCreate,
    ) -> Result<Operation, Problem> {
        let _ = (caller, create);
        Err(crate::manager::unfinished())
    }

    /// Renames or grows a disk.
    pub async fn disk_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: DiskPatch,
        if_match: IfMatch,
    ) -> Result<Disk, Problem> {
        let _ = (caller, key, patch, if_match);
        Err(crate::manager::unfinished())
    }

    /// Deletes a disk no guest names.
    pub async fn disk_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let _ = (caller, key, if_match);
        Err(crate::manager::unfinished())
    }
}
