//! UEFI variables of guests that do not run: what firmware has kept, seen and changed from outside.
//!
//! A change makes a new file with all variables and puts it in the place of the old one, by the guest's own task, which meanwhile
//! does not start it.

mod edit;
mod store;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read, Write};

use lodge_api::nvram::{VmVariable, VmVariableInfo, VmVariableSet};
use lodge_api::page::Page;
use lodge_api::vm::Firmware;
use lodge_api::{ErrorCode, Problem};
use lodge_block::datastore::{Access, DatastoreError};
use uuid::Uuid;

use self::edit::VariableId;
use self::store::{Store, Unreadable, Variable};
use super::actor::Command;
use super::boot::{self, Method};
use super::{VmRecord, command};
use crate::catalogue::{self, Object as _};
use crate::core::{Core, blocking, internal};
use crate::images::{datastore_problem, file_name};
use crate::{Caller, Manager};

pub(crate) use self::edit::Edit;

/// The largest flash chip a monitor takes.
const MOST: u64 = 1 << 20;

impl Manager {
    /// The UEFI variables of a guest that does not run; of one that never ran, those it will begin with.
    ///
    /// # Errors
    /// `WrongState` while it runs, and of a guest that does not start by UEFI.
    pub async fn variable_list(&self, key: &str) -> Result<Page<VmVariableInfo>, Problem> {
        let mut items: Vec<_> = self.variables(key).await?.iter().map(info).collect();
        items.sort_by(|one, other| (&one.name, one.guid).cmp(&(&other.name, other.guid)));
        Ok(Page {
            items,
            next_page: None,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`Manager::variable_list`], and `NotFound`.
    pub async fn variable_view(&self, key: &str, variable: &str) -> Result<VmVariable, Problem> {
        let id = VariableId::parse(variable)?;
        let variables = self.variables(key).await?;
        let found = variables.iter().find(|variable| id.is(variable));
        found.map(view).ok_or_else(|| id.not_found())
    }

    /// Makes or changes one of them. Durable on return.
    ///
    /// # Errors
    /// As [`Manager::variable_list`]; `InsufficientResources` when they do not fit any more.
    pub async fn variable_set(
        &self,
        caller: &Caller,
        key: &str,
        variable: &str,
        set: VmVariableSet,
    ) -> Result<VmVariable, Problem> {
        let edit = Edit::set(VariableId::parse(variable)?, &set)?;
        self.change_variables(caller, key, "variable_set", edit)
            .await?;
        self.variable_view(key, variable).await
    }

    /// Deletes one of them. Durable on return.
    ///
    /// # Errors
    /// As [`Manager::variable_view`].
    pub async fn variable_delete(
        &self,
        caller: &Caller,
        key: &str,
        variable: &str,
    ) -> Result<(), Problem> {
        let edit = Edit::Delete(VariableId::parse(variable)?);
        self.change_variables(caller, key, "variable_delete", edit)
            .await
    }

    /// Forgets them all: the next start makes fresh ones. It is also the way out when a guest has made a mess of them.
    ///
    /// # Errors
    /// `WrongState` while it runs, and of a guest that does not start by UEFI.
    pub async fn variable_reset(&self, caller: &Caller, key: &str) -> Result<(), Problem> {
        self.change_variables(caller, key, "variable_reset", Edit::Reset)
            .await
    }

    async fn variables(&self, key: &str) -> Result<Vec<Variable>, Problem> {
        let vm = self.core.vm_with_variables(key)?;
        require_rest(&self.core, &vm)?;
        let core = self.core.clone();
        blocking(move || Ok(load(&core, vm.id)?.variables)).await
    }

    async fn change_variables(
        &self,
        caller: &Caller,
        key: &str,
        what: &'static str,
        edit: Edit,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let vm = manager.core.vm_with_variables(&key)?;
            let handle = manager.core.vms.handle(vm.id);
            let handle = handle.ok_or_else(|| Problem::not_found("guest", &vm.spec.name))?;
            command(&handle, |reply| Command::EditVariables { edit, reply }).await?;
            caller.audit(what, &vm.target());
            Ok(())
        })
        .await
    }
}

impl Core {
    /// A guest that has UEFI variables.
    fn vm_with_variables(&self, key: &str) -> Result<VmRecord, Problem> {
        let vm = catalogue::find::<VmRecord>(&self.snapshot(), key)?.value;
        if boot::method(&vm.spec.boot) == Method::Firmware(Firmware::Uefi) {
            return Ok(vm);
        }
        let detail = format!("the guest \"{}\" does not start by UEFI", vm.spec.name);
        Err(Problem::new(ErrorCode::WrongState, detail)
            .with_hint("only guests with UEFI firmware have variables"))
    }
}

/// Refuses a guest that runs: what it has in its flash chip is its own.
pub(crate) fn require_rest(core: &Core, vm: &VmRecord) -> Result<(), Problem> {
    let state = core.vms.observed(vm.id).state;
    if !state.is_active() {
        return Ok(());
    }
    let detail = format!("the guest \"{}\" is {}", vm.spec.name, state.as_str());
    Err(Problem::new(ErrorCode::WrongState, detail).with_hint("stop it first"))
}

/// Changes the variables of a guest that does not run, and is not started meanwhile.
pub(crate) fn apply(core: &Core, id: Uuid, edit: Edit) -> Result<(), Problem> {
    if let Edit::Reset = edit {
        return match core.variables.remove_file(&file_name(id)?) {
            Ok(()) | Err(DatastoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(datastore_problem(&error)),
        };
    }
    let mut store = load(core, id)?;
    edit.apply(&mut store.variables)?;
    let image = store.into_image().map_err(|full| {
        Problem::new(ErrorCode::InsufficientResources, full.to_string())
            .with_hint("delete others first")
    })?;
    let failed = |error: DatastoreError| datastore_problem(&error);
    let new = core.variables.new_file().map_err(failed)?;
    new.file()
        .write_all(&image)
        .map_err(|error| internal(format!("writing UEFI variables: {error}")))?;
    new.replace(&file_name(id)?).map_err(failed)
}

/// All variables in the image of a chip, which was kept.
pub(crate) fn all_of(image: File) -> Result<Page<VmVariable>, Problem> {
    Ok(Page {
        items: parse(image)?.variables.iter().map(view).collect(),
        next_page: None,
    })
}

/// What the guest has, or what it will begin with.
fn load(core: &Core, id: Uuid) -> Result<Store, Problem> {
    let file = match core.variables.open_file(&file_name(id)?, Access::default()) {
        Err(DatastoreError::NotFound { .. }) => boot::fresh_variables()?,
        opened => opened.map_err(|error| datastore_problem(&error))?,
    };
    parse(file)
}

fn parse(file: File) -> Result<Store, Problem> {
    let image = read(file).map_err(|error| internal(format!("reading UEFI variables: {error}")))?;
    Store::parse(image).map_err(|error: Unreadable| {
        Problem::new(ErrorCode::WrongState, error.to_string()).with_hint(
            "the guest may have damaged them: make fresh ones with DELETE /v1/vms/{vm}/nvram",
        )
    })
}

fn read(file: File) -> std::io::Result<Vec<u8>> {
    let mut image = Vec::new();
    file.take(MOST).read_to_end(&mut image)?;
    Ok(image)
}

fn info(variable: &Variable) -> VmVariableInfo {
    VmVariableInfo {
        name: variable.shown(),
        guid: variable.guid,
        attributes: variable.attributes,
        size: variable.data.len() as u64,
    }
}

fn view(variable: &Variable) -> VmVariable {
    VmVariable {
        info: info(variable),
        data: edit::hex(&variable.data),
    }
}
