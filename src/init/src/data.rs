//! `/data`: the filesystem labelled `lodge-data`, or memory. Nothing is ever formatted or repaired here.

use std::io;
use std::path::Path;

use lodge_host::boot::{BootWarning, DATA, DATA_FLAGS, DATA_LABEL, DataStorage, WarningCode};
use lodge_host::disk::{FilesystemKind, Found, mount, space, with_label};
use lodge_host::kmsg::{KmsgItem, KmsgReader};
use lodge_host::seed::SeedStorage;

use crate::modules::Loader;

/// What `/data` became, and what a person should know about it.
#[derive(Debug)]
pub(crate) struct DataMount {
    pub(crate) storage: DataStorage,
    pub(crate) warnings: Vec<BootWarning>,
}

/// Mounts `/data`.
pub(crate) fn mount_data(media: &[Found], wanted: SeedStorage, loader: &mut Loader) -> DataMount {
    let mut warnings = Vec::new();
    if wanted == SeedStorage::Ram {
        let reason = "the seed asks for memory".to_owned();
        let advice = "To keep it, remove data.storage = \"ram\" from the seed and restart.";
        return in_memory(reason, advice, warnings);
    }
    let found = candidates(media);
    let Some(volume) = found.first() else {
        let reason = format!("no filesystem is labelled {DATA_LABEL}");
        let advice = format!(
            "To keep it, install Lodge on a disk (lodge system install), or label an XFS filesystem {DATA_LABEL} and restart."
        );
        return in_memory(reason, &advice, warnings);
    };
    if found.len() > 1 {
        let names: Vec<String> = found
            .iter()
            .map(|f| f.device.path().display().to_string())
            .collect();
        warnings.push(BootWarning {
            code: WarningCode::DataAmbiguous,
            message: format!(
                "Several filesystems are labelled {DATA_LABEL} ({}); {} is used. Relabel or remove the others.",
                names.join(", "),
                names[0]
            ),
        });
    }
    loader.load_filesystem(volume.filesystem.kind);
    match mount_disk(volume) {
        Ok(storage) => DataMount { storage, warnings },
        Err(reason) => {
            warnings.push(BootWarning {
                code: WarningCode::DataDamaged,
                message: reason,
            });
            let reason = format!("{} cannot be mounted", volume.device.path().display());
            in_memory(reason, "Repair the disk and restart.", warnings)
        }
    }
}

/// Labelled filesystems of the kinds that can hold data.
pub(crate) fn candidates(media: &[Found]) -> Vec<&Found> {
    let mut found = with_label(media, DATA_LABEL);
    found.retain(|f| {
        matches!(
            f.filesystem.kind,
            FilesystemKind::Xfs | FilesystemKind::Ext4
        )
    });
    found
}

/// Mounts the disk; after a power cut this replays its journal. Errors come with the kernel's own words.
fn mount_disk(volume: &Found) -> Result<DataStorage, String> {
    let device = volume.device.path().display().to_string();
    let filesystem = volume.filesystem.kind.name();
    // An ext4 with an error must stop at once, not go on writing.
    let options = match volume.filesystem.kind {
        FilesystemKind::Ext4 => "errors=remount-ro",
        _ => "",
    };
    let mut log = KmsgReader::open().ok();
    skip_to_end(&mut log);
    match mount(&device, Path::new(DATA), filesystem, DATA_FLAGS, options) {
        Ok(()) => Ok(DataStorage::Disk {
            device,
            filesystem: filesystem.to_owned(),
        }),
        Err(error) => Err(damaged(&device, filesystem, &error, &last_words(&mut log))),
    }
}

fn damaged(device: &str, filesystem: &str, error: &io::Error, words: &[String]) -> String {
    let mut text =
        format!("The data filesystem on {device} ({filesystem}) cannot be mounted: {error}.");
    if let Some(last) = words.last() {
        text += &format!(" The kernel says: {last}.");
    }
    text += " Nothing on it was changed. ";
    text += match filesystem {
        "xfs" => "Repair it with xfs_repair, or remove the disk to stop this message.",
        _ => "Repair it on another machine with e2fsck, or remove the disk to stop this message.",
    };
    text
}

fn in_memory(reason: String, advice: &str, mut warnings: Vec<BootWarning>) -> DataMount {
    // Half of memory, as tmpfs has it by default: guests need the other half.
    let mounted = mount(
        "tmpfs",
        Path::new(DATA),
        "tmpfs",
        DATA_FLAGS,
        "mode=0755,size=50%",
    );
    if let Err(error) = mounted {
        tracing::error!("{DATA}: {error}");
    }
    let size = space(Path::new(DATA)).map_or(0, |space| space.total);
    warnings.push(BootWarning {
        code: WarningCode::DataInRam,
        message: format!("Data is in memory only and is lost at power-off: {reason}. {advice}"),
    });
    DataMount {
        storage: DataStorage::Ram { reason, size },
        warnings,
    }
}

fn skip_to_end(log: &mut Option<KmsgReader>) {
    if let Some(log) = log {
        while let Ok(Some(_)) = log.read() {}
    }
}

/// What the kernel itself has said since.
fn last_words(log: &mut Option<KmsgReader>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(log) = log {
        while let Ok(Some(item)) = log.read() {
            if let KmsgItem::Record(record) = item
                && record.facility == 0
                && !record.message.trim().is_empty()
            {
                lines.push(record.message.trim().trim_end_matches('.').to_owned());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_disk_is_described() {
        let error = io::Error::from_raw_os_error(libc::EUCLEAN);
        let text = damaged(
            "/dev/sda4",
            "xfs",
            &error,
            &["XFS (sda4): log mount failed".into()],
        );
        assert!(
            text.contains("/dev/sda4 (xfs) cannot be mounted: Structure needs cleaning"),
            "{text}"
        );
        assert!(
            text.contains("The kernel says: XFS (sda4): log mount failed."),
            "{text}"
        );
        assert!(text.contains("xfs_repair"), "{text}");
    }
}
