//! The clock: the kernel has set it from the RTC; here it is made sure that it is not absurd.

use lodge_host::boot::{BootWarning, WarningCode};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

/// No machine that runs this program is earlier: the date of its source, or a floor where the build does not name it.
fn build_epoch() -> i64 {
    const FLOOR: i64 = 1_763_942_400; // 2025-11-24
    option_env!("SOURCE_DATE_EPOCH")
        .and_then(|text| text.parse().ok())
        .unwrap_or(FLOOR)
        .max(FLOOR)
}

/// Sets a clock that is behind the program's own date to that date. Certificates would otherwise not be valid yet.
pub(crate) fn check() -> Option<BootWarning> {
    let epoch = build_epoch();
    let now = clock_gettime(ClockId::CLOCK_REALTIME).ok()?;
    if now.tv_sec() >= epoch {
        return None;
    }
    let message = match clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(epoch, 0)) {
        Ok(()) => "The machine's clock was years behind (is its battery flat?); it was set to the date of this software. Set it in the firmware's set-up.".to_owned(),
        Err(error) => format!("The machine's clock is years behind and cannot be set: {error}."),
    };
    Some(BootWarning {
        code: WarningCode::ClockWrong,
        message,
    })
}
