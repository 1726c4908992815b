//! Who asks, and whether it may.

mod cookie;
mod credentials;
mod guard;

pub use cookie::{clear_cookie, session_cookie};
pub use guard::{Authenticated, Guard, Peer, authenticated, check};
