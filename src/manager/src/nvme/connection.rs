//! Connections as stored, and as the API shows them.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use lodge_api::nvme::{NvmeConnection, NvmeState};
use lodge_api::page::{ListParams, Page};
use lodge_api::{Name, Problem};
use lodge_host::nvmf::{Nqn, Wanted};
use lodge_store::{Record, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Manager;
use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::filter::Field;

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("address", "/address"),
    ("nqn", "/nqn"),
    ("state", "/state"),
];

/// A connection as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConnectionRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) nqn: String,
    pub(super) created_at: Timestamp,
}

impl Record for ConnectionRecord {
    const TABLE: &'static str = "nvme_connections";
    const SCHEMA: u32 = 1;
}

impl Object for ConnectionRecord {
    const KIND: &'static str = "NVMe connection";
    const PATH: &'static str = "nvme-connections";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

impl ConnectionRecord {
    pub(super) fn target_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl Core {
    pub(super) fn connections(&self) -> Vec<ConnectionRecord> {
        let all = catalogue::list::<ConnectionRecord>(&self.snapshot());
        all.into_iter().map(|record| record.value).collect()
    }

    /// What the kernel is to be told.
    pub(super) fn wanted(&self, record: &ConnectionRecord) -> Result<Wanted, Problem> {
        let nqn: Nqn = record
            .nqn
            .parse()
            .map_err(|_| internal("the name of the subsystem is damaged"))?;
        Ok(Wanted {
            target: record.target_address(),
            nqn,
            host: self.nvme.host,
        })
    }

    fn connection_of(&self, record: &Versioned<ConnectionRecord>) -> NvmeConnection {
        let connection = &record.value;
        let seen = self.nvme.link(connection.id).seen();
        NvmeConnection {
            id: connection.id,
            name: connection.name.clone(),
            address: connection.address,
            port: connection.port,
            nqn: connection.nqn.clone(),
            state: seen.state,
            reason: seen.reason,
            disks: seen.disks,
            created_at: connection.created_at,
            revision: record.revision,
        }
    }

    /// What people should know about them.
    pub(crate) fn nvme_warnings(&self) -> Vec<String> {
        let away = self
            .connections()
            .into_iter()
            .filter_map(|record| self.connection_warning(&record));
        away.chain(self.export_warnings()).collect()
    }

    /// What is wrong with one, if anything is.
    pub(super) fn connection_warning(&self, record: &ConnectionRecord) -> Option<String> {
        let seen = self.nvme.link(record.id).seen();
        let (name, target) = (&record.name, record.target_address());
        let why = seen.reason.unwrap_or_default();
        let why = if why.is_empty() {
            why
        } else {
            format!(" ({why})")
        };
        match seen.state {
            NvmeState::Live => None,
            NvmeState::Connecting => Some(format!(
                "The NVMe connection \"{name}\" to {target} is interrupted{why}. What is read and written there waits."
            )),
            NvmeState::Lost => Some(format!(
                "The NVMe connection \"{name}\" to {target} is lost{why}. What is read and written there fails. It is tried again by itself."
            )),
        }
    }
}

impl Manager {
    /// By name. Filter fields: `id name address nqn state`.
    ///
    /// # Errors
    /// `InvalidRequest` for wrong parameters.
    pub fn connection_list(&self, params: &ListParams) -> Result<Page<NvmeConnection>, Problem> {
        let view = |record: &_| self.core.connection_of(record);
        catalogue::page(&self.core.snapshot(), params, FIELDS, view, |view| {
            &view.name
        })
    }

    /// One connection, by name or id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn connection_view(&self, key: &str) -> Result<NvmeConnection, Problem> {
        let record = catalogue::find(&self.core.snapshot(), key)?;
        Ok(self.core.connection_of(&record))
    }
}
