//! Typed tables, durable before acknowledged.

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The filesystem is full.
    #[error("no space left")]
    NoSpace,
}
