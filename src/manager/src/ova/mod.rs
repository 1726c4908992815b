//! Machines as OVA archives: what is in one of another hypervisor, checked before anything is made of it; and guests on their way out.

mod archive;
mod descriptor;
pub(crate) mod export;
mod import;
mod ovf;
mod xml;

use std::fs::File;

use lodge_block::foreign::{self, ImageError};
use lodge_block::format::{Format, HEAD_BYTES, detect};

use archive::Entry;
use ovf::{Machine, MachineDisk};

/// An archive that can be made into a guest.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) machine: Machine,
    /// A file for each of the machine's disks, unless it is empty.
    pub(crate) files: Vec<Option<DiskFile>>,
}

/// The file of a disk in the archive.
#[derive(Debug)]
pub(crate) struct DiskFile {
    pub(crate) entry: Entry,
    pub(crate) format: Format,
    /// Bytes of the disk.
    pub(crate) size: u64,
}

/// Looks an archive over: descriptor, manifest, disks. `checked` hears of each file whose checksum is right.
///
/// # Errors
/// What is wrong, for people, and what to do about it where that is known.
pub(crate) fn open(
    file: &File,
    mut checking: impl FnMut(&Entry),
) -> Result<Opened, (String, String)> {
    let plain = |text: String| (format!("the OVA is damaged: {text}"), AGAIN.to_owned());
    let entries = archive::entries(file).map_err(plain)?;
    let named = |end: &str| {
        let mut entries = entries.iter();
        entries.find(|entry| entry.name.to_ascii_lowercase().ends_with(end))
    };
    let Some(descriptor) = named(".ovf") else {
        let text = "the archive has no descriptor (.ovf): it is no OVA".to_owned();
        return Err((
            text,
            "export the machine as an OVA where it comes from".to_owned(),
        ));
    };
    let text = descriptor.text(file).map_err(plain)?;
    let mut machine = ovf::read(&text).map_err(|problem| {
        (
            format!("the descriptor of the OVA is not taken: {problem}"),
            String::new(),
        )
    })?;
    match named(".mf") {
        Some(manifest) => check_sums(file, &entries, manifest, &mut machine, &mut checking)?,
        None => machine
            .warnings
            .push("the OVA has no manifest: its files are not checked".to_owned()),
    }
    let files = machine
        .disks
        .iter()
        .map(|disk| disk_file(file, &entries, disk))
        .collect::<Result<_, _>>()?;
    Ok(Opened { machine, files })
}

const AGAIN: &str = "copy or download it again";

fn check_sums(
    file: &File,
    entries: &[Entry],
    manifest: &Entry,
    machine: &mut Machine,
    checking: &mut impl FnMut(&Entry),
) -> Result<(), (String, String)> {
    let plain = |text: String| (format!("the OVA is damaged: {text}"), AGAIN.to_owned());
    let text = manifest.text(file).map_err(plain)?;
    for (method, name, expected) in archive::manifest(&text) {
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
            return Err(plain(format!("\"{name}\" of its manifest is missing")));
        };
        checking(entry);
        match entry.checksum(file, method).map_err(plain)? {
            Some(found) if found.eq_ignore_ascii_case(expected) => {}
            Some(found) => {
                return Err(plain(format!(
                    "\"{name}\" has {method} {found}, not {expected}"
                )));
            }
            None => machine.warnings.push(format!(
                "the manifest has sums of kind {method}, which are not checked"
            )),
        }
    }
    machine.warnings.dedup();
    Ok(())
}

fn disk_file(
    file: &File,
    entries: &[Entry],
    disk: &MachineDisk,
) -> Result<Option<DiskFile>, (String, String)> {
    let Some(name) = &disk.file else {
        return Ok(None);
    };
    let Some(entry) = entries.iter().find(|entry| entry.name == *name) else {
        let text = format!("the disk \"{name}\" is not in the OVA");
        return Err((
            text,
            "export the machine with its disks in one archive".to_owned(),
        ));
    };
    let part = entry.part(file);
    let length = entry.length().min(HEAD_BYTES as u64);
    let mut head = vec![0; length as usize];
    part.read(0, &mut head)
        .map_err(|error| (format!("reading the OVA failed: {error}"), String::new()))?;
    let format = detect(&head, &[]).format;
    let image = foreign::open(part, format)
        .map_err(|error: ImageError| (format!("\"{name}\": {error}"), error.remedy().to_owned()))?;
    Ok(Some(DiskFile {
        entry: entry.clone(),
        format,
        size: image.size(),
    }))
}
