//! How the API's values become HTTP and back.

pub mod conditions;
pub mod failure;
pub mod json;
pub mod path;
pub mod query;
pub mod reply;
pub mod wait;
