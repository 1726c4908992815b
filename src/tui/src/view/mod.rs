//! Drawing the model. Meaning is carried by words, bold and reverse video, never
//! by colour alone; everything fits 80 columns by 24 lines.

mod console;
mod dialog;
mod installer;
mod lists;
mod summary;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::model::{Model, Tab};

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    if let Some(console) = &mut model.console {
        console::draw(frame, console);
        return;
    }
    let header = summary::lines(model, frame.area().width);
    let height = u16::try_from(header.len())
        .unwrap_or(u16::MAX)
        .min(frame.area().height / 2);
    let [top, tabs, list, bottom] = Layout::vertical([
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(2),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header), top);
    frame.render_widget(tab_line(model), tabs);
    lists::draw(frame, list, model);
    frame.render_widget(Paragraph::new(footer(model)), bottom);
    if let Some(dialog) = &model.dialog {
        dialog::draw(frame, dialog);
    }
}

pub(crate) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(crate) fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn tab_line(model: &Model) -> Line<'static> {
    let tab = |tab: Tab, label: &'static str| {
        let style = if model.tab == tab {
            reversed()
        } else {
            Style::new()
        };
        Span::styled(format!(" {label} "), style)
    };
    Line::from(vec![
        tab(Tab::Guests, "Guests"),
        Span::raw(" "),
        tab(Tab::Operations, "Operations"),
        Span::raw(" "),
        tab(Tab::Log, "Log"),
    ])
}

fn footer(model: &Model) -> Vec<Line<'static>> {
    let notice = model.notice.clone().unwrap_or_default();
    let keys = match model.tab {
        Tab::Guests => {
            "s start  x stop  r reset  p pause  Enter console  F12 power  ? help  q quit"
        }
        Tab::Operations | Tab::Log => {
            "Up/Down scroll  Tab next  F2 log in  F12 power  ? help  q quit"
        }
    };
    vec![Line::styled(notice, bold()), Line::styled(keys, reversed())]
}

#[cfg(test)]
mod tests;
