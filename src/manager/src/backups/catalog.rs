//! Reading and writing the list of a folder's backups.

use lodge_api::backup_catalog::{Catalog, FILE};
use lodge_api::{ErrorCode, Name, Problem};
use uuid::Uuid;

use super::place::{Folder, Place};
use super::record;
use crate::core::{Core, internal};

/// Largest list that is read, in bytes: some thousand backups of many disks.
const MOST: usize = 16 << 20;

/// Most backups of a guest on a target.
const MOST_BACKUPS: usize = 5000;

/// The list in a folder, if there is one.
pub(super) async fn read(folder: &Folder) -> Result<Option<Catalog>, Problem> {
    let Some(content) = folder.read(FILE, MOST).await? else {
        return Ok(None);
    };
    let unusable = |why: String| {
        let detail = format!("{}/{FILE} cannot be read: {why}", folder.name());
        Problem::new(ErrorCode::InvalidContent, detail)
            .with_hint("move the folder away, and the next backup begins anew")
    };
    let catalog: Catalog =
        serde_json::from_slice(&content).map_err(|error| unusable(error.to_string()))?;
    if catalog.backups.len() > MOST_BACKUPS {
        return Err(unusable(format!("more than {MOST_BACKUPS} backups")));
    }
    Ok(Some(catalog))
}

/// Writes it; before that is done, the old one is there.
pub(super) async fn write(folder: &Folder, catalog: &Catalog) -> Result<(), Problem> {
    let content = serde_json::to_vec_pretty(catalog)
        .map_err(|error| internal(format!("a list of backups: {error}")))?;
    folder.write(FILE, content).await
}

impl Core {
    /// The folder of a guest's backups on a target, and their list: where they were last, or else under its name; under its id, where another
    /// guest's are under that name.
    pub(super) async fn folder_of(
        &self,
        target: Uuid,
        place: &Place,
        vm: Uuid,
        name: &Name,
    ) -> Result<(Folder, Catalog), Problem> {
        let known = record::all(&self.snapshot()).into_iter();
        let mut known = known.map(|known| known.value);
        let known = known.find(|known| known.target == target && known.vm_id == vm);
        let candidates = [
            known.map(|known| known.folder),
            Some(name.to_string()),
            Some(vm.to_string()),
        ];
        for candidate in candidates.into_iter().flatten() {
            let folder = place.folder(&candidate)?;
            match read(&folder).await? {
                None => return Ok((folder, Catalog::of(vm))),
                Some(catalog) if catalog.vm == vm => return Ok((folder, catalog)),
                // Another guest's.
                Some(_) => {}
            }
        }
        let detail = format!("the folder {vm} of the target has backups of another guest");
        Err(Problem::new(ErrorCode::WrongState, detail).with_hint("move it away"))
    }
}
