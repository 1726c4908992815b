//! What lies on top of the lists.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::{bold, installer, reversed};
use crate::model::{Dialog, Field};

const HELP: &[&str] = &[
    "Up Down      choose a row          Tab    next list",
    "Enter or c   console of the guest; Ctrl-] leaves it",
    "s            start                 p      pause, resume",
    "x            stop (power button)   k      kill",
    "r            reset",
    "F2 or L      log in                F12 or P   power of the host",
    "F3 or I      install on a disk",
    "Ctrl-L       draw the screen anew  q      quit",
];

/// Draws a dialog in the middle.
pub(crate) fn draw(frame: &mut Frame<'_>, dialog: &Dialog) {
    let (title, lines) = match dialog {
        Dialog::Help => (" Keys ", HELP.iter().map(|line| Line::raw(*line)).collect()),
        Dialog::Confirm { question, .. } => (
            " Sure? ",
            vec![
                Line::raw(question.clone()),
                Line::raw(""),
                Line::raw("y yes   n no"),
            ],
        ),
        Dialog::Power => (
            " Power of the host ",
            vec![
                Line::raw("s  power off guests, then the host"),
                Line::raw("r  power off guests, then restart the host"),
                Line::raw("Esc  back"),
            ],
        ),
        Dialog::Install(installer) => (" Install on a disk ", installer::lines(installer)),
        Dialog::Login {
            user,
            password,
            editing,
            error,
        } => (
            " Log in ",
            login(user, password, *editing, error.as_deref()),
        ),
    };
    let area = centre(
        frame.area(),
        60,
        u16::try_from(lines.len()).unwrap_or(20) + 2,
    );
    frame.render_widget(Clear, area);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title(title)), area);
}

fn login(user: &str, password: &str, editing: Field, error: Option<&str>) -> Vec<Line<'static>> {
    let field = |label: &str, text: String, active: bool| {
        let line = format!("{label:<10}{text:<30}");
        if active {
            Line::styled(line, reversed())
        } else {
            Line::raw(line)
        }
    };
    vec![
        field("User", user.to_owned(), editing == Field::User),
        field(
            "Password",
            "*".repeat(password.chars().count()),
            editing == Field::Password,
        ),
        Line::raw(""),
        Line::styled(error.unwrap_or_default().to_owned(), bold()),
        Line::raw("Enter log in   Tab other field   Esc back"),
    ]
}

fn centre(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    )
}
