//! Networks: the bridges guests attach to.

use lodge_api::Problem;
use lodge_api::network::{Network, NetworkCreate};
use lodge_api::page::{ListParams, Page};

use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// By name. Filter fields: `id name bridge uplink carrier`.
    pub fn network_list(&self, params: &ListParams) -> Result<Page<Network>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One network, by name or id.
    pub fn network_view(&self, key: &str) -> Result<Network, Problem> {
        let _ = key;
        Err(crate::manager::unfinished())
    }

    /// Makes a network and its bridge.
    pub async fn network_create(
        &self,
        caller: &Caller,
        create: NetworkCreate,
    ) -> Result<Network, Problem> {
        let _ = (caller, create);
        Err(crate::manager::unfinished())
    }

    /// Removes a network no guest is attached to.
    pub async fn network_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let _ = (caller, key, if_match);
        Err(crate::manager::unfinished())
    }
}
