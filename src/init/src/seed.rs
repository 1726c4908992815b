//! Looking for the seed, in this order: a volume labelled `LODGE-SEED`; `seed.toml` on one labelled `CIDATA`; a file in
//! QEMU's fw_cfg; an OEM string in the SMBIOS tables.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use lodge_host::boot::{BootWarning, SeedFound, WarningCode};
use lodge_host::disk::{FilesystemKind, Found, MountFlags, mount, unmount, with_label};
use lodge_host::seed::{SEED_FILE, SEED_LABEL, SEED_LIMIT, Seed};

use crate::modules::Loader;
use crate::oem_string;

/// Where the volume is mounted while it is read.
const MOUNT_POINT: &str = "/run/lodge/seed";
/// The label of cloud-init's volumes.
const CLOUD_INIT_LABEL: &str = "CIDATA";
/// `-fw_cfg name=opt/org.lodge/seed,file=seed.toml` of a virtual machine.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.lodge/seed/raw";

/// What came of the search.
#[derive(Debug, Default)]
pub(crate) struct SeedSearch {
    /// A valid seed.
    pub(crate) found: Option<SeedFound>,
    /// What is wrong with what was found.
    pub(crate) warnings: Vec<BootWarning>,
}

/// Reads the seed, if there is one. An invalid seed is as none, with a warning.
pub(crate) fn search(media: &[Found], loader: &mut Loader) -> SeedSearch {
    let mut search = SeedSearch::default();
    let volumes = with_label(media, SEED_LABEL);
    if volumes.len() > 1 {
        let names: Vec<String> = volumes
            .iter()
            .map(|v| v.device.path().display().to_string())
            .collect();
        search.warn(
            WarningCode::SeedAmbiguous,
            format!("Several volumes are labelled {SEED_LABEL} ({}); the first is used. Unplug the others.", names.join(", ")),
        );
    }
    let Some((source, text)) = volumes
        .first()
        .map(|volume| (describe(volume), read_volume(volume, loader)))
        .or_else(|| cloud_init_volume(media, loader))
        .or_else(from_below)
    else {
        return search;
    };
    match text.map(|text| Seed::parse(&text)) {
        Ok(Ok(seed)) => search.found = Some(SeedFound { source, seed }),
        Ok(Err(error)) => search.warn(
            WarningCode::SeedInvalid,
            format!("{SEED_FILE} on {source} was not applied: {error}. Correct it and restart."),
        ),
        Err(error) => search.warn(
            WarningCode::SeedInvalid,
            format!("{SEED_FILE} on {source} cannot be read: {error}."),
        ),
    }
    search
}

impl SeedSearch {
    fn warn(&mut self, code: WarningCode, message: String) {
        self.warnings.push(BootWarning { code, message });
    }
}

/// A volume of cloud-init's that holds a seed too. One that does not is none of our business.
fn cloud_init_volume(media: &[Found], loader: &mut Loader) -> Option<(String, io::Result<String>)> {
    with_label(media, CLOUD_INIT_LABEL)
        .into_iter()
        .find_map(|volume| {
            let text = read_volume(volume, loader);
            let absent = matches!(&text, Err(error) if error.kind() == io::ErrorKind::NotFound);
            (!absent).then(|| (describe(volume), text))
        })
}

/// What a hypervisor or a management processor hands over.
fn from_below() -> Option<(String, io::Result<String>)> {
    if Path::new(FW_CFG).exists() {
        return Some(("fw_cfg".to_owned(), read_text(Path::new(FW_CFG))));
    }
    oem_string::seed().map(|text| ("the SMBIOS tables".to_owned(), Ok(text)))
}

fn describe(volume: &Found) -> String {
    format!(
        "{} ({}, label {})",
        volume.device.path().display(),
        volume.filesystem.kind.name(),
        volume.filesystem.label
    )
}

/// Mounts the volume read-only for as long as reading takes: it may be pulled out at any time after.
fn read_volume(volume: &Found, loader: &mut Loader) -> io::Result<String> {
    loader.load_filesystem(volume.filesystem.kind);
    let target = Path::new(MOUNT_POINT);
    let source = volume.device.path();
    let options = match volume.filesystem.kind {
        // Of a stick that was pulled out of a running machine not even the journal is written.
        FilesystemKind::Ext4 => "noload",
        FilesystemKind::Xfs => "norecovery",
        FilesystemKind::Vfat => "utf8",
        FilesystemKind::Iso9660 => "",
    };
    let flags = MountFlags::MS_RDONLY
        | MountFlags::MS_NOSUID
        | MountFlags::MS_NODEV
        | MountFlags::MS_NOEXEC;
    mount(
        &source.to_string_lossy(),
        target,
        volume.filesystem.kind.name(),
        flags,
        options,
    )?;
    let text = read_text(&target.join(SEED_FILE));
    let unmounted = unmount(target).and_then(|()| fs::remove_dir(target));
    if let Err(error) = unmounted {
        tracing::warn!("{} stays mounted: {error}", source.display());
    }
    text
}

/// Reads a file of bounded size as text.
fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SEED_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SEED_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {SEED_LIMIT} bytes"),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_encoding_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SEED_FILE);
        fs::write(&path, vec![b'#'; SEED_LIMIT as usize]).unwrap();
        assert!(read_text(&path).is_ok());
        fs::write(&path, vec![b'#'; SEED_LIMIT as usize + 1]).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("longer"));
        fs::write(&path, b"hostname = '\xff'").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("UTF-8"));
    }
}
