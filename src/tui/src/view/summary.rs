//! The host in a few lines.

use lodge_api::datastore::{Datastore, DatastoreKind};
use lodge_api::system::{Storage, StorageHealth, StorageKind, System};
use ratatui::text::Line;

use super::bold;
use crate::model::Model;

/// Most warnings shown; the log has all.
const WARNINGS: usize = 3;

/// The lines above the lists.
pub(crate) fn lines(model: &Model, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        title(model, usize::from(width)),
        super::reversed(),
    )];
    if let Some(snapshot) = &model.snapshot {
        lines.extend(host(&snapshot.system));
        lines.push(storage(&snapshot.system.storage, &snapshot.datastores));
    }
    lines.extend(address(model));
    if let Some(password) = model
        .local
        .as_ref()
        .and_then(|local| local.initial_password.as_ref())
    {
        lines.push(Line::styled(
            format!("Log in as admin, password {password}"),
            bold(),
        ));
    }
    lines.extend(
        warnings(model)
            .into_iter()
            .take(WARNINGS)
            .map(|text| Line::styled(format!("! {text}"), bold())),
    );
    if let Some(reason) = &model.disconnected {
        lines.push(Line::styled(
            format!("! not connected: {}", first_line(reason)),
            bold(),
        ));
    } else if model.snapshot.is_none() {
        lines.push(Line::raw("Connecting…"));
    }
    lines
}

fn title(model: &Model, width: usize) -> String {
    let host = match (&model.snapshot, &model.local, &model.remote) {
        (Some(snapshot), _, _) => snapshot.system.hostname.clone(),
        (None, Some(local), _) => local.hostname.clone(),
        (None, None, Some(remote)) => remote.clone(),
        (None, None, None) => "starting".to_owned(),
    };
    let version = model
        .snapshot
        .as_ref()
        .map(|snapshot| snapshot.system.versions.lodge.clone());
    let left = format!(" Lodge {}   {host}", version.unwrap_or_default());
    let right = match &model.user {
        Some(user) => format!("{user} "),
        None => "not logged in ".to_owned(),
    };
    let gap = width.saturating_sub(left.chars().count() + right.chars().count());
    format!("{left}{}{right}", " ".repeat(gap))
}

fn host(system: &System) -> Vec<Line<'static>> {
    let (hardware, usage) = (&system.hardware, &system.usage);
    vec![
        Line::raw(format!(
            "{} {}, {}, {} threads",
            hardware.vendor, hardware.product, hardware.cpu_model, hardware.threads
        )),
        Line::raw(format!(
            "CPU {:>3.0} %  load {:.2}   Memory {} of {}   Guests {} of {} running",
            usage.cpu_percent,
            usage.load[0],
            usage.memory_used,
            hardware.memory,
            usage.vms_running,
            usage.vms_total
        )),
    ]
}

/// The host's own, and the other datastores behind it, as far as there is room.
fn storage(own: &Storage, datastores: &[Datastore]) -> Line<'static> {
    let place = match own.kind {
        StorageKind::Disk => own.device.clone().unwrap_or_default(),
        StorageKind::Ram => "RAM".to_owned(),
    };
    let mut line = format!("Storage {} free of {} on {place}", own.free, own.size);
    for datastore in datastores {
        let name = &datastore.name;
        line += &match (datastore.kind, datastore.health) {
            (DatastoreKind::System, _) => continue,
            (_, StorageHealth::Missing) => format!("   {name} missing"),
            (_, StorageHealth::Failed) => format!("   {name} failed"),
            (_, StorageHealth::ReadOnly) => format!("   {name} read-only"),
            (_, StorageHealth::Sound | StorageHealth::Low) => {
                format!("   {name} {} free", datastore.free)
            }
        };
    }
    Line::raw(line)
}

fn address(model: &Model) -> Vec<Line<'static>> {
    let (urls, fingerprint) = match (&model.local, &model.snapshot) {
        (Some(local), _) => (local.urls.clone(), local.certificate_fingerprint.clone()),
        (None, Some(snapshot)) => (
            snapshot.system.urls.clone(),
            snapshot.system.certificate_fingerprint.clone(),
        ),
        (None, None) => return Vec::new(),
    };
    let urls = if urls.is_empty() {
        "no network address yet".to_owned()
    } else {
        urls.join("  ")
    };
    let mut lines = vec![Line::styled(format!("URL {urls}"), bold())];
    // The whole fingerprint matters when it is compared: two lines of sixteen pairs.
    let pairs: Vec<&str> = fingerprint.split(':').collect();
    lines.extend(pairs.chunks(16).enumerate().map(|(index, pairs)| {
        let label = if index == 0 { "Certificate" } else { "" };
        Line::raw(format!("{label:<11} {}", pairs.join(":")))
    }));
    lines
}

fn warnings(model: &Model) -> Vec<String> {
    match (&model.snapshot, &model.local) {
        (Some(snapshot), _) => snapshot.system.warnings.clone(),
        (None, Some(local)) => local.warnings.clone(),
        (None, None) => Vec::new(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
