//! UEFI variables of a guest at rest.

use lodge_api::Problem;

use super::Actor;
use crate::core::blocking;
use crate::vms::nvram;

impl Actor {
    /// While this is awaited, the guest is not started.
    pub(super) async fn edit_variables(&self, edit: nvram::Edit) -> Result<(), Problem> {
        nvram::require_rest(&self.core, &self.record()?)?;
        let (core, id) = (self.core.clone(), self.id);
        blocking(move || nvram::apply(&core, id, edit)).await
    }
}
