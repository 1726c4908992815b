//! What a disk is held to.

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Most operations and bytes in a second. What is absent is not limited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskLimits {
    /// Requests of any kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Rate>,
    /// Bytes read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// So many in a second, at least 1.
    pub per_second: u64,
    /// So many at once after a rest.
    #[serde(default)]
    pub burst: u64,
}

impl DiskLimits {
    /// Whether there are any.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every bound the monitor relies on. `at` is the field that holds them.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self, at: &str) -> Result<(), ConfigError> {
        for (field, rate) in [("operations", self.operations), ("bytes", self.bytes)] {
            if rate.is_some_and(|rate| rate.per_second == 0) {
                let field = format!("{at}.{field}.per_second");
                return Err(ConfigError::new(field, "must be at least 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_have_the_documented_form() {
        let limits = DiskLimits {
            operations: Some(Rate {
                per_second: 100,
                burst: 10,
            }),
            bytes: None,
        };
        let text = json!({"operations": {"per_second": 100, "burst": 10}});
        assert_eq!(serde_json::to_value(limits).unwrap(), text);
        assert_eq!(serde_json::from_value::<DiskLimits>(text).unwrap(), limits);
        assert!(limits.validate("limits").is_ok());
        assert!(serde_json::from_str::<DiskLimits>("{}").unwrap().is_none());
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        let limits = DiskLimits {
            bytes: Some(Rate {
                per_second: 0,
                burst: 1,
            }),
            ..DiskLimits::default()
        };
        let error = limits.validate("disks.0.limits").unwrap_err();
        assert_eq!(error.field, "disks.0.limits.bytes.per_second");
    }
}
