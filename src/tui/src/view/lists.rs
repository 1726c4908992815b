//! Guests, operations and the log.

use lodge_api::log::LogLevel;
use lodge_api::operation::Operation;
use lodge_api::vm::Vm;
use lodge_client::age;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, List, ListState, Paragraph, Row, Table, TableState};

use super::{bold, reversed};
use crate::model::{Model, Tab};

/// Draws the list of the present tab.
pub(crate) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    match model.tab {
        Tab::Guests => guests(frame, area, model),
        Tab::Operations => operations(frame, area, model),
        Tab::Log => log(frame, area, model),
    }
}

fn guests(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let vms = model
        .snapshot
        .as_ref()
        .map_or(&[][..], |snapshot| &snapshot.vms);
    if vms.is_empty() && model.snapshot.is_some() {
        let text = "No guests yet. Create one with: lodge vm create NAME --kernel IMAGE";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows = vms.iter().map(|vm| guest(vm, model));
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(4),
        Constraint::Length(10),
        Constraint::Fill(3),
    ];
    table(
        frame,
        area,
        model.selected,
        rows.collect(),
        &["NAME", "STATE", "FOR", "CPU", "CPUS", "MEMORY", "REASON"],
        &widths,
    );
}

fn guest(vm: &Vm, model: &Model) -> Row<'static> {
    let cpu = model
        .cpu_percent(vm)
        .map(|percent| format!("{percent:.0} %"));
    Row::new(vec![
        Cell::new(vm.spec.name.to_string()),
        Cell::new(vm.status.state.as_str()),
        Cell::new(age(vm.status.since)),
        Cell::new(cpu.unwrap_or_else(|| "-".to_owned())),
        Cell::new(vm.spec.vcpus.to_string()),
        Cell::new(vm.spec.memory.to_string()),
        Cell::new(vm.status.reason.clone().unwrap_or_default()),
    ])
}

fn operations(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let operations = model
        .snapshot
        .as_ref()
        .map_or(&[][..], |snapshot| &snapshot.operations);
    let widths = [
        Constraint::Length(16),
        Constraint::Fill(2),
        Constraint::Length(10),
        Constraint::Length(5),
        Constraint::Fill(3),
    ];
    let rows = operations.iter().map(operation).collect();
    table(
        frame,
        area,
        model.selected,
        rows,
        &["OPERATION", "TARGET", "STATUS", "AGE", "DETAIL"],
        &widths,
    );
}

fn operation(operation: &Operation) -> Row<'static> {
    let detail = match (&operation.error, &operation.progress) {
        (Some(problem), _) => problem.detail.clone(),
        (None, Some(progress)) if progress.total > 0 => {
            format!(
                "{} {} %",
                progress.phase,
                progress.done.saturating_mul(100) / progress.total
            )
        }
        (None, Some(progress)) => progress.phase.clone(),
        (None, None) => String::new(),
    };
    Row::new(vec![
        Cell::new(operation.kind.clone()),
        Cell::new(operation.target.trim_start_matches("/v1/").to_owned()),
        Cell::new(operation.status.as_str()),
        Cell::new(age(operation.created_at)),
        Cell::new(detail),
    ])
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    selected: usize,
    rows: Vec<Row<'static>>,
    head: &[&'static str],
    widths: &[Constraint],
) {
    let mut state = TableState::default().with_selected((!rows.is_empty()).then_some(selected));
    let table = Table::new(rows, widths.to_vec())
        .header(Row::new(head.to_vec()).style(bold()))
        .row_highlight_style(reversed());
    frame.render_stateful_widget(table, area, &mut state);
}

fn log(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let lines = model.log.iter().map(|entry| {
        let text = format!(
            "{} {}: {}",
            entry.time.strftime("%H:%M:%S"),
            entry.source,
            entry.message
        );
        match entry.level {
            LogLevel::Error | LogLevel::Warning => Line::styled(format!("! {text}"), bold()),
            LogLevel::Info | LogLevel::Debug => Line::raw(format!("  {text}")),
        }
    });
    let mut state =
        ListState::default().with_selected((!model.log.is_empty()).then_some(model.selected));
    frame.render_stateful_widget(List::new(lines), area, &mut state);
}
