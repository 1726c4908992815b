//! The dialog that puts Lodge on a disk of the host.

use lodge_api::install::HostDisk;
use ratatui::text::Line;

use super::{bold, reversed};
use crate::installer::Installer;

/// Lines about what is on a disk.
const MOST_CONTENTS: usize = 5;

/// What the dialog says.
pub(super) fn lines(installer: &Installer) -> Vec<Line<'static>> {
    let mut lines = match &installer.disks {
        None if installer.error.is_none() => vec![Line::raw("Looking at the disks…")],
        None => Vec::new(),
        Some(disks) if disks.is_empty() => vec![Line::raw("This host has no disk.")],
        Some(disks) => disks
            .iter()
            .enumerate()
            .map(|(row, disk)| entry(disk, row == installer.selected))
            .collect(),
    };
    lines.push(Line::raw(""));
    if let Some(disk) = installer.disk() {
        lines.extend(about(disk));
    }
    if let (Some(typed), Some(disk)) = (&installer.typed, installer.disk()) {
        let question = format!("All of it will be lost. Type {}:", disk.identity());
        lines.push(Line::styled(question, bold()));
        lines.push(Line::styled(format!("{typed:<40}"), reversed()));
    }
    if let Some(error) = &installer.error {
        lines.push(Line::styled(error.clone(), bold()));
    }
    lines.push(Line::raw("Up Down choose   Enter install   Esc back"));
    lines
}

fn entry(disk: &HostDisk, selected: bool) -> Line<'static> {
    let size = disk.size.to_string();
    let line = format!(
        "{:<9}{:<22.22}{:<16.16}{size:>9}",
        disk.name,
        disk.identity(),
        disk.model
    );
    if selected {
        Line::styled(line, reversed())
    } else {
        Line::raw(line)
    }
}

fn about(disk: &HostDisk) -> Vec<Line<'static>> {
    if let Some(reason) = &disk.in_use {
        return vec![Line::raw(format!("In use: {reason}"))];
    }
    let problems = disk.health.iter().flat_map(|health| &health.problems);
    let mut lines: Vec<Line<'static>> = problems
        .map(|problem| Line::raw(format!("It may fail soon: {problem}.")))
        .collect();
    if disk.contents.is_empty() {
        lines.push(Line::raw("Blank."));
    }
    let contents = disk.contents.iter().take(MOST_CONTENTS);
    lines.extend(contents.map(|line| Line::raw(line.clone())));
    if disk.contents.len() > MOST_CONTENTS {
        lines.push(Line::raw("…"));
    }
    lines
}
