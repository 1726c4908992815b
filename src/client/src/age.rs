//! How long ago something was, in as few characters as a column of a table has.

use jiff::Timestamp;

/// The time since then as people say it: `3d`, `2h`, `5m`, `10s`.
pub fn age(since: Timestamp) -> String {
    age_at(Timestamp::now(), since)
}

fn age_at(now: Timestamp, since: Timestamp) -> String {
    // The host's clock may be ahead of ours.
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_that_fits() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ages = [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (7200, "2h"),
            (86400 * 400, "400d"),
        ];
        for (seconds, text) in ages {
            assert_eq!(age_at(at(seconds), at(0)), text);
        }
    }
}
