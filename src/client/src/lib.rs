//! A client of the Lodge API: what the command line and the text console share.
//!
//! It knows remotes (a host's address, its pinned certificate and a
//! credential), speaks HTTPS to one of them, and turns every failure into a
//! [`ClientError`] that says what to do. A [`Fetcher`] gets files from the web for a host.

mod age;
mod authority;
mod connect;
mod error;
mod exchange;
mod fetch;
mod fingerprint;
mod operations;
mod remotes;
mod request;
mod resolve;
mod tls;
mod url;
mod websocket;

pub use age::age;
pub use authority::Authority;
pub use connect::{Exchange, Trace, fetch_fingerprint};
pub use error::ClientError;
pub use exchange::Exchanged;
pub use fetch::{FetchError, Fetched, Fetcher, fetch_url, outside};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use remotes::{Remote, RemoteError, Remotes};
pub use request::{Client, Response, UploadBody};
pub use resolve::addresses_of;
pub use url::{BaseUrl, encode_segment};
pub use websocket::{Socket, SocketMessage};
