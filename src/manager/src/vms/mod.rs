//! Guests.

use lodge_api::Problem;
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::vm::{ConsoleParams, Vm, VmAction, VmSpec, VmStopOptions};

use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// By name. Filter fields: `id name state vcpus memory autostart kernel`.
    pub fn vm_list(&self, params: &ListParams) -> Result<Page<Vm>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One guest, by name or id.
    pub fn vm_view(&self, key: &str) -> Result<Vm, Problem> {
        let _ = key;
        Err(crate::manager::unfinished())
    }

    /// Makes a guest, stopped.
    pub async fn vm_create(&self, caller: &Caller, spec: VmSpec) -> Result<Vm, Problem> {
        let _ = (caller, spec);
        Err(crate::manager::unfinished())
    }

    /// Replaces a guest's configuration.
    pub async fn vm_replace(
        &self,
        caller: &Caller,
        key: &str,
        spec: VmSpec,
        if_match: IfMatch,
    ) -> Result<Vm, Problem> {
        let _ = (caller, key, spec, if_match);
        Err(crate::manager::unfinished())
    }

    /// Changes a guest's configuration by a JSON merge patch (RFC 7396).
    pub async fn vm_merge(
        &self,
        caller: &Caller,
        key: &str,
        patch: serde_json::Value,
        if_match: IfMatch,
    ) -> Result<Vm, Problem> {
        let _ = (caller, key, patch, if_match);
        Err(crate::manager::unfinished())
    }

    /// Deletes a guest that does not run. Its disks stay.
    pub async fn vm_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let _ = (caller, key, if_match);
        Err(crate::manager::unfinished())
    }

    /// Starts an operation on a guest and returns at once. `options` matter for `Stop` only.
    pub async fn vm_action(
        &self,
        caller: &Caller,
        key: &str,
        action: VmAction,
        options: VmStopOptions,
    ) -> Result<Operation, Problem> {
        let _ = (caller, key, action, options);
        Err(crate::manager::unfinished())
    }

    /// Attaches to a running guest's console: history first, then raw bytes both ways, until
    /// the guest ends (end of file).
    ///
    /// # Errors
    /// `WrongState` when it does not run.
    pub async fn vm_console(
        &self,
        caller: &Caller,
        key: &str,
        params: ConsoleParams,
    ) -> Result<tokio::net::UnixStream, Problem> {
        let _ = (caller, key, params);
        Err(crate::manager::unfinished())
    }
}
