//! Users and their tokens.

use lodge_api::Problem;
use lodge_api::auth::{Token, TokenCreate, TokenCreated, User, UserCreate, UserPatch};
use lodge_api::page::{ListParams, Page};

use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// By name. Filter fields: `id name role disabled`.
    pub fn user_list(&self, params: &ListParams) -> Result<Page<User>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One user, by name or id.
    pub fn user_view(&self, key: &str) -> Result<User, Problem> {
        let _ = key;
        Err(crate::manager::unfinished())
    }

    /// Makes a user.
    pub async fn user_create(&self, caller: &Caller, create: UserCreate) -> Result<User, Problem> {
        let _ = (caller, create);
        Err(crate::manager::unfinished())
    }

    /// Changes a user. A caller whose role is not `administrator` may change its own password only
    /// (the server lets such a request through with `SelfManage`).
    pub async fn user_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: UserPatch,
        if_match: IfMatch,
    ) -> Result<User, Problem> {
        let _ = (caller, key, patch, if_match);
        Err(crate::manager::unfinished())
    }

    /// Deletes a user with its sessions and tokens; never the last enabled administrator.
    pub async fn user_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let _ = (caller, key, if_match);
        Err(crate::manager::unfinished())
    }

    /// The caller's tokens; everybody's for an administrator. Filter fields: `id name user role`.
    pub fn token_list(&self, caller: &Caller, params: &ListParams) -> Result<Page<Token>, Problem> {
        let _ = (caller, params);
        Err(crate::manager::unfinished())
    }

    /// Makes a token of the caller.
    pub async fn token_create(
        &self,
        caller: &Caller,
        create: TokenCreate,
    ) -> Result<TokenCreated, Problem> {
        let _ = (caller, create);
        Err(crate::manager::unfinished())
    }

    /// Deletes a token by id, or by name one of the caller's own. Others' tokens only for an administrator.
    pub async fn token_delete(&self, caller: &Caller, key: &str) -> Result<(), Problem> {
        let _ = (caller, key);
        Err(crate::manager::unfinished())
    }
}
