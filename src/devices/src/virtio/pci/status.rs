//! The device status field: which steps a driver may take (virtio 1.2, 2.1 and 3.1.1).

/// The driver has noticed the device.
pub(super) const ACKNOWLEDGE: u8 = 1;
/// The driver knows how to drive it.
pub(super) const DRIVER: u8 = 2;
/// The driver is set up.
pub(super) const DRIVER_OK: u8 = 4;
/// Features are agreed on.
pub(super) const FEATURES_OK: u8 = 8;
/// The device needs a reset. Only the device sets it, only a reset clears it.
pub(super) const NEEDS_RESET: u8 = 0x40;
/// The driver has given up.
pub(super) const FAILED: u8 = 0x80;

/// What a write to the status field leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Back to the beginning.
    Reset,
    /// These bits are added, in this order of meaning. `FEATURES_OK` is subject to the features being right.
    Add(u8),
    /// Nothing: the write breaks the order and is ignored.
    Ignore,
}

/// Judges a write of `value` while the field reads `current`.
///
/// Bits can only be added, each after the one before it. `ACKNOWLEDGE` and
/// `DRIVER` may come together (SeaBIOS does so), and so may `FEATURES_OK`; `DRIVER_OK` needs a write of
/// its own, as the driver must have read back `FEATURES_OK`. A driver that gave up must reset.
pub(super) fn judge(current: u8, value: u8) -> Step {
    if value == 0 {
        return Step::Reset;
    }
    let known = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
    // Reads of the field show NEEDS_RESET; a driver that writes back what it read means nothing by it.
    let value = value & !NEEDS_RESET;
    let present = current & known;
    let added = value & !present;
    if value & !known != 0 || present & !value != 0 || added == 0 || current & FAILED != 0 {
        return Step::Ignore;
    }
    let orderly = [
        (DRIVER, ACKNOWLEDGE),
        (FEATURES_OK, DRIVER),
        (DRIVER_OK, FEATURES_OK),
    ]
    .iter()
    .all(|&(bit, needs)| value & bit == 0 || value & needs != 0);
    let hasty = added & DRIVER_OK != 0 && present & FEATURES_OK == 0;
    if orderly && !hasty {
        Step::Add(added)
    } else {
        Step::Ignore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_table() {
        use Step::{Add, Ignore, Reset};
        let table = [
            // The way up, one bit at a time.
            (0, 1, Add(1)),
            (1, 3, Add(2)),
            (3, 11, Add(8)),
            (11, 15, Add(4)),
            // Together, as SeaBIOS does.
            (0, 3, Add(3)),
            (1, 11, Add(10)),
            (0, 11, Add(11)),
            // Reset from anywhere.
            (0, 0, Reset),
            (15, 0, Reset),
            (0xcf, 0, Reset),
            // Giving up from anywhere, and staying there.
            (0, 0x80, Add(0x80)),
            (3, 0x83, Add(0x80)),
            (15, 0x8f, Add(0x80)),
            (0x83, 0x8b, Ignore),
            (0x80, 0x81, Ignore),
            // Skipping.
            (0, 2, Ignore),
            (0, 4, Ignore),
            (0, 8, Ignore),
            (1, 9, Ignore),
            (1, 5, Ignore),
            (3, 7, Ignore),
            (3, 15, Ignore),
            (0, 15, Ignore),
            // Clearing.
            (3, 1, Ignore),
            (15, 11, Ignore),
            (15, 7, Ignore),
            (11, 3, Ignore),
            // Saying the same again.
            (1, 1, Ignore),
            (15, 15, Ignore),
            // Bits nobody knows.
            (0, 0x11, Ignore),
            (3, 0x23, Ignore),
            // NEEDS_RESET is neither set nor cleared by a write.
            (0, 0x40, Ignore),
            (15, 0x4f, Ignore),
            (0x4f, 0x0f, Ignore),
            (0x43, 0x4b, Add(8)),
        ];
        for (current, value, expected) in table {
            assert_eq!(
                judge(current, value),
                expected,
                "{current:#x} -> {value:#x}"
            );
        }
    }
}
