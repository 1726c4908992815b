//! Guests.

use axum::extract::{Path, State};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;
use lodge_api::vm::{Vm, VmAction, VmDiscChange, VmSpec, VmStopOptions};
use serde_json::{Map, Value};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, patch, post, put};
use crate::wire::conditions::Expected;
use crate::wire::json::{Json, OptionalJson};
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/vms";
const ONE: &str = "/v1/vms/{vm}";

pub fn routes() -> Vec<Route> {
    let mut routes = configuration();
    routes.extend(verbs());
    routes
}

fn configuration() -> Vec<Route> {
    let read = Access::Needs(Privilege::VmRead);
    let configure = Access::Needs(Privilege::VmConfigure);
    vec![
        get(LIST, read, "vm_list", vm_list)
            .summary("List guests")
            .query::<ListParams>()
            .answers_page::<Vm>(),
        post(LIST, configure, "vm_create", vm_create)
            .summary("Create a guest, stopped")
            .takes::<VmSpec>()
            .creates::<Vm>("The guest."),
        get(ONE, read, "vm_view", vm_view)
            .summary("Show a guest")
            .answers::<Vm>(200, "The guest.")
            .header("ETag", "Revision of its configuration."),
        put(ONE, configure, "vm_replace", vm_replace)
            .summary("Replace a guest's configuration")
            .description("Takes effect at the next start.")
            .takes::<VmSpec>()
            .if_match()
            .answers_object::<Vm>(200, "Replaced."),
        patch(ONE, configure, "vm_update", vm_update)
            .summary("Change a guest's configuration by a JSON merge patch (RFC 7396)")
            .description(
                "`null` takes a field back to its default. Takes effect at the next start.",
            )
            .takes_patch::<VmSpec>("VmPatch")
            .if_match()
            .answers_object::<Vm>(200, "Changed."),
        post("/v1/vms/{vm}:disc", configure, "vm_disc", vm_change_disc)
            .summary("Put a disc into a guest's CD-ROM drive, or take it out")
            .description("Takes effect at once, whether or not the guest runs.")
            .takes::<VmDiscChange>()
            .answers_object::<Vm>(200, "Changed."),
        delete(ONE, configure, "vm_delete", vm_delete)
            .summary("Delete a guest that does not run")
            .description("Its disks stay.")
            .if_match()
            .deletes(),
    ]
}

fn verbs() -> Vec<Route> {
    let power = Access::Needs(Privilege::VmPower);
    let routes = vec![
        post("/v1/vms/{vm}:start", power, "vm_start", vm_start).summary("Start a stopped guest"),
        post("/v1/vms/{vm}:stop", power, "vm_stop", vm_stop)
            .summary("Press a guest's power button and wait for it to power off")
            .may_take::<VmStopOptions>(),
        post("/v1/vms/{vm}:kill", power, "vm_kill", vm_kill).summary("End a guest at once"),
        post("/v1/vms/{vm}:reset", power, "vm_reset", vm_reset).summary("Reset a guest's hardware"),
        post("/v1/vms/{vm}:pause", power, "vm_pause", vm_pause).summary("Hold a guest"),
        post("/v1/vms/{vm}:resume", power, "vm_resume", vm_resume).summary("Continue a held guest"),
    ];
    routes
        .into_iter()
        .map(|route| route.starts_operation("Under way."))
        .collect()
}

async fn vm_change_disc(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Json(change): Json<VmDiscChange>,
) -> Answer {
    let vm = app
        .manager()
        .vm_change_disc(&who.caller, &key, change)
        .await?;
    reply::object(&vm, vm.revision)
}

async fn vm_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().vm_list(&params)?)
}

async fn vm_create(State(app): State<App>, who: Authenticated, Json(spec): Json<VmSpec>) -> Answer {
    let vm = app.manager().vm_create(&who.caller, spec).await?;
    let path = format!("{LIST}/{}", vm.spec.name);
    reply::created(&path, &vm, Some(vm.revision))
}

/// A guest's status changes without its revision, so a reader who has the revision still gets it anew.
async fn vm_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let vm = app.manager().vm_view(&key)?;
    reply::object(&vm, vm.revision)
}

async fn vm_replace(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
    Json(spec): Json<VmSpec>,
) -> Answer {
    let manager = app.manager();
    let vm = manager
        .vm_replace(&who.caller, &key, spec, revision)
        .await?;
    reply::object(&vm, vm.revision)
}

async fn vm_update(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
    Json(patch): Json<Map<String, Value>>,
) -> Answer {
    let patch = Value::Object(patch);
    let vm = app
        .manager()
        .vm_merge(&who.caller, &key, patch, revision)
        .await?;
    reply::object(&vm, vm.revision)
}

async fn vm_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    app.manager().vm_delete(&who.caller, &key, revision).await?;
    reply::nothing()
}

async fn vm_stop(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    OptionalJson(options): OptionalJson<VmStopOptions>,
) -> Answer {
    act(
        &app,
        &who,
        &key,
        VmAction::Stop,
        options.unwrap_or_default(),
        wait,
    )
    .await
}

macro_rules! verbs {
    ($($name:ident = $action:ident;)*) => {
        $(async fn $name(
            State(app): State<App>,
            Path(key): Path<String>,
            who: Authenticated,
            wait: Wait,
        ) -> Answer {
            act(&app, &who, &key, VmAction::$action, VmStopOptions::default(), wait).await
        })*
    };
}

verbs! {
    vm_start = Start;
    vm_kill = Kill;
    vm_reset = Reset;
    vm_pause = Pause;
    vm_resume = Resume;
}

async fn act(
    app: &App,
    who: &Authenticated,
    key: &str,
    action: VmAction,
    options: VmStopOptions,
    wait: Wait,
) -> Answer {
    let manager = app.manager();
    let operation = manager.vm_action(&who.caller, key, action, options).await?;
    reply::started(app, wait, operation).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_method() {
        let paths: Vec<&str> = verbs().iter().map(|r| r.path).collect();
        assert_eq!(paths.len(), VmAction::ALL.len());
        for action in VmAction::ALL {
            let path = format!("{ONE}:{}", action.as_str());
            assert!(paths.contains(&path.as_str()), "{path}");
        }
    }
}
