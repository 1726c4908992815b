//! Backups that the host writes by itself.

use axum::extract::{Path, State};
use lodge_api::backup::{
    Backup, BackupDeleteParams, BackupListParams, BackupRestore, BackupVerify, VmBackup,
};
use lodge_api::operation::Operation;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::json::{Json, OptionalJson};
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::{Wait, parse_wait};

const LIST: &str = "/v1/backups";
const ONE: &str = "/v1/backups/{backup}";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::VmRead);
    let write = Access::Needs(Privilege::VmConfigure);
    let delete_them = Access::Needs(Privilege::StorageWrite);
    vec![
        post("/v1/vms/{vm}:backup", write, "vm_backup", vm_backup)
            .summary("Back a guest up to a target: its disks, configuration and UEFI variables")
            .description("The disks are as after a power cut if it runs. After the first time, what changed since the last time is written.")
            .takes::<VmBackup>()
            .starts_operation("Under way; its progress is in bytes."),
        get(LIST, read, "backup_list", backup_list)
            .summary("List backups")
            .query::<BackupListParams>()
            .answers_page::<Backup>(),
        get(ONE, read, "backup_view", backup_view)
            .summary("Show a backup")
            .answers::<Backup>(200, "The backup."),
        post("/v1/backups/{backup}:restore", write, "backup_restore", backup_restore)
            .summary("Make a guest of a backup")
            .description("The guest that it was, if it and its disks are gone; or another one under another name, with disks and MAC addresses of its own.")
            .may_take::<BackupRestore>()
            .starts_operation("Under way; the operation's `target` is the guest."),
        post("/v1/backups/{backup}:verify", write, "backup_verify", backup_verify)
            .summary("See whether a backup is good")
            .description(
                "All files that it needs are compared with their checksums. With `boot`, a guest of it is booted, with its links down, until its system has \
                 begun with the driver of its memory balloon or, without firmware, writes to its serial port; then it is removed.",
            )
            .may_take::<BackupVerify>()
            .starts_operation("Under way; what is found is in the backup, too."),
        delete(ONE, delete_them, "backup_delete", backup_delete)
            .summary("Delete a backup")
            .description("One that others are made of is refused, unless those go, too.")
            .query::<BackupDeleteParams>()
            .answers::<Operation>(202, "Under way.")
            .header("Location", "The operation.")
            .answers::<Operation>(200, "Done, where the caller waited for it.")
            .header("Location", "The operation."),
    ]
}

async fn vm_backup(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<VmBackup>,
) -> Answer {
    let operation = app.manager().vm_backup(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn backup_list(State(app): State<App>, Query(params): Query<BackupListParams>) -> Answer {
    reply::value(&app.manager().backup_list(params)?)
}

async fn backup_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    reply::value(&app.manager().backup_view(&key)?)
}

async fn backup_restore(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    OptionalJson(body): OptionalJson<BackupRestore>,
) -> Answer {
    let (manager, body) = (app.manager(), body.unwrap_or_default());
    let operation = manager.backup_restore(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn backup_verify(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    OptionalJson(body): OptionalJson<BackupVerify>,
) -> Answer {
    let (manager, body) = (app.manager(), body.unwrap_or_default());
    let operation = manager.backup_verify(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn backup_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<BackupDeleteParams>,
) -> Answer {
    let wait = Wait(params.wait.as_deref().map(parse_wait).transpose()?);
    let manager = app.manager();
    let operation = manager.backup_delete(&who.caller, &key, params).await?;
    reply::started(&app, wait, operation).await
}
