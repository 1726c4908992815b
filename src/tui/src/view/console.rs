//! A guest's console over the whole screen, below one line that tells how to leave.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::reversed;
use crate::guest_console::GuestConsole;

/// Draws the guest's screen and places the cursor.
pub(crate) fn draw(frame: &mut Frame<'_>, console: &mut GuestConsole) {
    let [top, rest] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(frame.area());
    let title = format!(" Console of {} - Ctrl-] leaves it", console.name);
    let title = format!("{title:<width$}", width = usize::from(top.width));
    frame.render_widget(Line::styled(title, reversed()), top);
    console.resize(rest.height, rest.width);
    let screen = console.screen();
    cells(frame, rest, screen);
    let (row, column) = screen.cursor_position();
    if !screen.hide_cursor() && row < rest.height && column < rest.width {
        frame.set_cursor_position(Position::new(rest.x + column, rest.y + row));
    }
}

fn cells(frame: &mut Frame<'_>, area: Rect, screen: &vt100::Screen) {
    for row in 0..area.height {
        for column in 0..area.width {
            let Some(cell) = screen.cell(row, column) else {
                continue;
            };
            let target = &mut frame.buffer_mut()[(area.x + column, area.y + row)];
            if cell.has_contents() {
                target.set_symbol(cell.contents());
            }
            target.set_style(style(cell));
        }
    }
}

fn style(cell: &vt100::Cell) -> Style {
    let mut style = Style::new()
        .fg(colour(cell.fgcolor()))
        .bg(colour(cell.bgcolor()));
    for (on, modifier) in [
        (cell.bold(), Modifier::BOLD),
        (cell.italic(), Modifier::ITALIC),
        (cell.underline(), Modifier::UNDERLINED),
        (cell.inverse(), Modifier::REVERSED),
    ] {
        if on {
            style = style.add_modifier(modifier);
        }
    }
    style
}

fn colour(colour: vt100::Color) -> Color {
    match colour {
        vt100::Color::Default => Color::Reset,
        vt100::Color::Idx(index) => Color::Indexed(index),
        vt100::Color::Rgb(red, green, blue) => Color::Rgb(red, green, blue),
    }
}
