//! Watchdogs of guests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a guest has a watchdog, and what is done when it expires because the guest's system no longer reloads it.
///
/// It is an Intel 6300ESB (Linux: `i6300esb`), which systems leave alone until a program of theirs starts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watchdog {
    /// There is none.
    #[default]
    None,
    /// The guest is reset.
    Reset,
    /// The guest's power is cut: it has crashed then, and is started again if `on_crash` says so.
    PowerOff,
    /// The guest is paused, for somebody to look at.
    Pause,
}

impl Watchdog {
    /// The word used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reset => "reset",
            Self::PowerOff => "power_off",
            Self::Pause => "pause",
        }
    }
}
