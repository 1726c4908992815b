//! Logging in, and whose credential a request carries.

use std::net::IpAddr;

use lodge_api::Problem;
use lodge_api::auth::{LoginRequest, Session};

use crate::{Identity, Manager};

impl Manager {
    /// Checks a password and opens a session.
    ///
    /// # Errors
    /// `Unauthorized`, the same for an unknown user, a disabled user and a wrong password;
    /// `TooManyRequests` when the throttle holds, with the seconds to wait in `hint`.
    pub async fn login(&self, login: LoginRequest, peer: IpAddr) -> Result<Session, Problem> {
        let _ = (login, peer);
        Err(crate::manager::unfinished())
    }

    /// Whose credential this is: a session's, a token's or the local console's. Extends a session.
    pub fn authenticate(&self, bearer: &str) -> Option<Identity> {
        let _ = bearer;
        None
    }

    /// Ends the session a request was made with; a token is left as it is.
    pub async fn logout(&self, identity: &Identity) -> Result<(), Problem> {
        let _ = identity;
        Err(crate::manager::unfinished())
    }

    /// The local console's token: role `viewer`, valid until the manager ends.
    pub fn local_token(&self) -> &str {
        ""
    }
}
