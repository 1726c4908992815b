//! A guest's watchdog, in the words of the API and of its monitor.

use lodge_api::vm::Watchdog;
use lodge_vmm_proto::WatchdogAction;

/// What the monitor is told; nothing of a guest without one.
pub(crate) fn configured(watchdog: Watchdog) -> Option<WatchdogAction> {
    match watchdog {
        Watchdog::None => None,
        Watchdog::Reset => Some(WatchdogAction::Reset),
        Watchdog::PowerOff => Some(WatchdogAction::PowerOff),
        Watchdog::Pause => Some(WatchdogAction::Pause),
    }
}

/// What the monitor says it does.
pub(crate) fn told(action: WatchdogAction) -> Watchdog {
    match action {
        WatchdogAction::Reset => Watchdog::Reset,
        WatchdogAction::PowerOff => Watchdog::PowerOff,
        WatchdogAction::Pause => Watchdog::Pause,
    }
}
