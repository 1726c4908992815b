//! Amounts of memory and storage.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A number of bytes.
///
/// Written as an integer. Read from an integer or from text with a unit:
/// `"512MiB"`, `"2G"`, `"10 GB"`; `K M G T` and `KiB MiB GiB TiB` are powers of
/// 1024, `KB MB GB TB` powers of 1000.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64, example = 536870912)]
pub struct Size(pub u64);

/// A text that is no [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a size: write bytes, or a number with KiB, MiB, GiB or TiB, like 512MiB")]
pub struct SizeError(String);

impl Size {
    /// That many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// That many gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

fn unit(text: &str) -> Option<u64> {
    Some(match text.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = trimmed.split_at(digits);
        number
            .parse::<u64>()
            .ok()
            .zip(unit(suffix.trim_start()))
            .and_then(|(number, unit)| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                SizeError(shown.escape_debug().to_string())
            })
    }
}

impl fmt::Display for Size {
    /// The largest binary unit in which the number is at least one; one decimal
    /// where it is not whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let step = ((self.0.ilog2() / 10) as usize).min(UNITS.len());
        let scale = 1_u64 << (10 * step);
        let name = UNITS[step - 1];
        if self.0.is_multiple_of(scale) {
            f.pad(&format!("{} {name}", self.0 / scale))
        } else {
            f.pad(&format!("{:.1} {name}", self.0 as f64 / scale as f64))
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesOrText;

        impl Visitor<'_> for BytesOrText {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or text like \"512MiB\"")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value)
                    .map(Size)
                    .map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(BytesOrText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("2G", 2 << 30),
            ("10 GB", 10_000_000_000),
            ("1tib", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5G", "1 XB", "99999999999T", "0x10"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shows_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (512 << 20, "512 MiB"),
            (1_500_000_000, "1.4 GiB"),
            (5 << 50, "5120 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn json_takes_numbers_and_text() {
        assert_eq!(serde_json::from_str::<Size>("7").unwrap(), Size(7));
        assert_eq!(serde_json::from_str::<Size>("\"1K\"").unwrap(), Size(1024));
        assert!(serde_json::from_str::<Size>("-1").is_err());
        assert!(serde_json::from_str::<Size>("1.5").is_err());
        assert_eq!(serde_json::to_string(&Size(9)).unwrap(), "9");
    }
}
