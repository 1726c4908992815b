//! What the disks of a machine are kept in.

use std::path::{Path, PathBuf};

use crate::volatile_disk::VolatileDisk;

/// What a disk is kept in.
#[derive(Clone)]
pub(crate) enum Drive {
    /// A file. Nothing in it needs to outlive the real machine.
    File(PathBuf),
    /// A [`VolatileDisk`], which is served there.
    Volatile(PathBuf),
}

impl Drive {
    /// As QEMU's `-drive` has it. Discarded blocks leave a file.
    pub(crate) fn option(&self, id: &str) -> String {
        let kept = match self {
            Self::File(file) => format!("cache=unsafe,file={}", file.display()),
            Self::Volatile(socket) => format!(
                "cache=writeback,file=nbd+unix:///?socket={}",
                socket.display()
            ),
        };
        format!("if=none,id={id},format=raw,discard=unmap,{kept}")
    }
}

impl From<&Path> for Drive {
    fn from(file: &Path) -> Self {
        Self::File(file.to_owned())
    }
}

impl From<&VolatileDisk> for Drive {
    fn from(disk: &VolatileDisk) -> Self {
        Self::Volatile(disk.socket().to_owned())
    }
}
