//! Objects in a bucket of an S3 service (Amazon S3 API Reference, version 2006-03-01), which is addressed by path.
//!
//! Requests are signed by [signature version 4](sign). What is large is uploaded in parts, of which one is in memory at a time, and whatever may
//! pass is tried again a few times.

mod bucket;
mod error;
mod object;
mod retry;
pub mod sign;
mod upload;
mod xml;

pub use bucket::{Bucket, Listed, Settings, SettingsError};
pub use error::S3Error;
pub use object::Object;
