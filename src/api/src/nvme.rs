//! NVMe over TCP: disks of other machines, and disks of this one for others.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::Name;

/// Where targets listen.
pub const PORT: u16 = 4420;

/// A connection to a subsystem of another machine, whose disks are disks of this host while it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmeConnection {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// IP address of the target.
    #[schema(value_type = String, example = "10.0.0.5")]
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Name of the subsystem.
    #[schema(example = "nqn.2014-08.org.nvmexpress:uuid:5d3d8e4e-8a0c-4c0e-9d3c-5c6a0b1d2e3f")]
    pub nqn: String,
    /// How it is. A change is an event of type `system`.
    pub state: NvmeState,
    /// Why it is not `live`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Serial numbers of its disks, as `GET /v1/system/disks` has them.
    pub disks: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NvmeState {
    /// It works.
    Live,
    /// It is being made, or was interrupted for less than two minutes: what is read and written waits.
    #[default]
    Connecting,
    /// It is not there, and tried again and again. What is read and written fails.
    Lost,
}

impl NvmeState {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Connecting => "connecting",
            Self::Lost => "lost",
        }
    }
}

/// Body of `POST /v1/nvme-connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmeConnect {
    /// Unique name; `nvme-1` or the like without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// IP address of the target.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// TCP port.
    #[serde(default = "default_port")]
    #[schema(default = 4420, minimum = 1)]
    pub port: u16,
    /// Name of the subsystem, as `GET /v1/nvme-connections:discover` lists it.
    pub nqn: String,
}

fn default_port() -> u16 {
    PORT
}

/// Query of `GET /v1/nvme-connections:discover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NvmeDiscover {
    /// IP address of the target.
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// TCP port (default 4420).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A subsystem that a target offers to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmeOffer {
    /// Its name.
    pub nqn: String,
    /// `tcp`, or another network that Lodge does not use.
    pub transport: String,
    /// Where it is, as the target says.
    pub address: String,
    /// On which port.
    pub port: String,
    /// Whether it is one more place to ask, and no disk.
    pub discovery: bool,
}

/// Answer to `GET /v1/nvme-connections:discover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmeOffers {
    /// What there is for this host: 256 at most.
    pub items: Vec<NvmeOffer>,
    /// The name of this host, for the target to allow.
    pub host_nqn: String,
}

/// A disk of this host that others can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmeExport {
    /// Stable identity. It is on the disk, as the id of its partition, and goes with it to another host.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// Serial number of the disk; the kernel name of one that has none.
    pub disk: String,
    /// Name of the subsystem, which others connect to.
    pub nqn: String,
    /// Serial number that the disk has for them.
    pub serial: String,
    /// Names of the hosts that may use it, or `any`.
    pub allowed_hosts: NvmeHosts,
    /// IP address that is listened on; an unspecified one is every address of its kind.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Whether others can use it now.
    pub active: bool,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// Who may use an export: names of hosts, or `"any"`, which is everybody who reaches this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NvmeHosts {
    /// Hosts of these names, 1 to 64 of them.
    These(Vec<String>),
    /// Everybody.
    Any(Anybody),
}

/// Everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anybody {
    /// The word.
    Any,
}

/// Body of `POST /v1/nvme-exports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmeExportCreate {
    /// Unique name; `export-1` or the like without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Serial number of the disk, all of which others get; the kernel name of a disk that has no serial number.
    pub disk: String,
    /// Who may use it.
    pub allowed_hosts: NvmeHosts,
    /// IP address of this host to listen on (default `0.0.0.0`, which is all of IPv4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Erase what is on the disk. Without it only a blank disk is taken, or one that was exported before, with what others have on it.
    #[serde(default)]
    pub erase: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_a_list_or_a_word() {
        let parse = |text: &str| serde_json::from_str::<NvmeHosts>(text);
        assert_eq!(parse(r#""any""#).unwrap(), NvmeHosts::Any(Anybody::Any));
        let these = NvmeHosts::These(vec!["nqn.2014-08.org:a".to_owned()]);
        let text = serde_json::to_string(&these).unwrap();
        assert_eq!(text, r#"["nqn.2014-08.org:a"]"#);
        assert_eq!(parse(&text).unwrap(), these);
        assert!(parse(r#""all""#).is_err() && parse("null").is_err());
    }

    #[test]
    fn a_port_may_be_left_out() {
        let text = r#"{"address": "10.0.0.5", "nqn": "nqn.2014-08.org:a"}"#;
        let connect: NvmeConnect = serde_json::from_str(text).unwrap();
        assert_eq!((connect.port, connect.name), (PORT, None));
    }
}
