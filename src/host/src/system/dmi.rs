//! What the maker wrote into the machine's SMBIOS tables.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::attribute;

/// Maker and model of the machine. Fields the maker left empty are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dmi {
    /// Who made it.
    pub vendor: Option<String>,
    /// Its model.
    pub product: Option<String>,
    /// Its serial number; only root may read it.
    pub serial: Option<String>,
    /// Its UUID; only root may read it.
    pub uuid: Option<String>,
    /// Who made its board.
    pub board_vendor: Option<String>,
    /// Its board.
    pub board: Option<String>,
    /// Version of its firmware.
    pub bios_version: Option<String>,
    /// Date of its firmware.
    pub bios_date: Option<String>,
}

impl Dmi {
    /// Reads sysfs; a machine without SMBIOS gives nothing.
    pub fn read() -> Self {
        let get = |name: &str| attribute(&Path::new("/sys/class/dmi/id").join(name));
        Self {
            vendor: get("sys_vendor"),
            product: get("product_name"),
            serial: get("product_serial"),
            uuid: get("product_uuid"),
            board_vendor: get("board_vendor"),
            board: get("board_name"),
            bios_version: get("bios_version"),
            bios_date: get("bios_date"),
        }
    }
}
