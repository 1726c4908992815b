//! Disks for other machines. They get a partition, and not the whole disk: what they write there is none of this host's, which tells it
//! by the partition's name whatever is in it, and its id is what the export is known by.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use gptman::{GPT, GPTPartitionEntry};
use uuid::{Uuid, uuid};

use crate::disk::{BlockDevice, EXPORT_PARTITION, ExclusiveDisk, block_devices};

/// Where the partition begins, and what is left behind it for the table, in bytes.
const MARGIN: u64 = 1 << 20;

/// Number of the partition.
const NUMBER: u32 = 1;

/// Partition type: Linux data.
const LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// The id of the export that a disk is, if it is one.
///
/// # Errors
/// When devices cannot be listed or the disk cannot be read.
pub fn export_of(disk: &BlockDevice) -> io::Result<Option<Uuid>> {
    match partition_on(&block_devices()?, &disk.name) {
        Some(_) => identity(&disk.path()).map(Some),
        None => Ok(None),
    }
}

/// The partition of the export with that id.
///
/// # Errors
/// When devices cannot be listed.
pub fn find_export(id: Uuid) -> io::Result<Option<BlockDevice>> {
    let devices = block_devices()?;
    let disks = devices.iter().filter(|device| device.parent.is_none());
    // One that cannot be read is not the one.
    let is = |disk: &&BlockDevice| identity(&disk.path()).is_ok_and(|found| found == id);
    let with_export = disks.filter(|disk| partition_on(&devices, &disk.name).is_some());
    let disk = with_export.filter(is).map(|disk| &disk.name).next();
    Ok(disk.and_then(|disk| partition_on(&devices, disk)))
}

/// Makes a disk an export with that id. All that was on it is lost. Durable on return.
///
/// # Errors
/// `EBUSY` where something uses the disk, and when it cannot be written.
pub fn make_export(disk: &BlockDevice, id: Uuid) -> io::Result<BlockDevice> {
    {
        let mut open = ExclusiveDisk::open(disk)?;
        let last = disk.size.saturating_sub(2 * MARGIN);
        // Both ends of the partition, too: whoever gets it finds it blank.
        open.wipe([MARGIN, last])?;
        write_table(&mut open.file, disk.size, disk.logical_block.into(), id)?;
        open.file.sync_all()?;
        open.reread_partitions()?;
    }
    partition_on(&block_devices()?, &disk.name)
        .ok_or_else(|| io::Error::other("the kernel does not show the partition"))
}

fn partition_on(devices: &[BlockDevice], disk: &str) -> Option<BlockDevice> {
    let of_it = |device: &&BlockDevice| device.parent.as_deref() == Some(disk);
    let mut exports = devices.iter().filter(of_it).filter(|d| d.is_export());
    let first = exports.next().filter(|d| d.partition == Some(NUMBER))?;
    exports.next().is_none().then(|| first.clone())
}

fn identity(disk: &Path) -> io::Result<Uuid> {
    identity_in(&mut File::open(disk)?)
}

fn identity_in<D: Read + Seek>(disk: &mut D) -> io::Result<Uuid> {
    let table = GPT::find_from(disk).map_err(io::Error::other)?;
    let entry = table
        .iter()
        .find(|(number, entry)| *number == NUMBER && entry.is_used());
    let entry = entry.ok_or_else(|| io::Error::other("there is no such partition"))?;
    Ok(Uuid::from_bytes_le(entry.1.unique_partition_guid))
}

fn write_table<D: Read + Write + Seek>(
    disk: &mut D,
    size: u64,
    block: u64,
    id: Uuid,
) -> io::Result<()> {
    let failed = |error: gptman::Error| io::Error::other(error);
    let mut table = GPT::new_from(disk, block, Uuid::new_v4().to_bytes_le()).map_err(failed)?;
    let end = size.saturating_sub(MARGIN) / MARGIN * MARGIN;
    if end <= MARGIN {
        return Err(io::Error::other("the disk is too small"));
    }
    table[NUMBER] = GPTPartitionEntry {
        partition_type_guid: LINUX.to_bytes_le(),
        unique_partition_guid: id.to_bytes_le(),
        starting_lba: MARGIN / block,
        ending_lba: end / block - 1,
        attribute_bits: 0,
        partition_name: EXPORT_PARTITION.into(),
    };
    GPT::write_protective_mbr_into(disk, block).map_err(failed)?;
    table.write_into(disk).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn other_programs_read_the_table() {
        let id = Uuid::new_v4();
        for size in [8 << 20, (1 << 30) + 512] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(size).unwrap();
            write_table(file.as_file_mut(), size, 512, id).unwrap();
            assert_eq!(identity_in(file.as_file_mut()).unwrap(), id);
            let shown = Command::new("sfdisk")
                .arg("--dump")
                .arg(file.path())
                .output()
                .expect("sfdisk, of the package fdisk");
            let text = String::from_utf8(shown.stdout).unwrap();
            assert!(text.contains("name=\"lodge-export\""), "{text}");
            assert!(text.contains("start=        2048"), "{text}");
        }
    }

    #[test]
    fn what_is_no_export() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert!(identity_in(file.as_file_mut()).is_err());
        let id = Uuid::new_v4();
        assert!(write_table(file.as_file_mut(), 1 << 20, 512, id).is_err());
        assert_eq!(find_export(id).unwrap(), None);
    }

    #[test]
    fn the_partition_is_the_only_one_of_its_name() {
        let device = |name: &str, partition: Option<u32>, label: &str| BlockDevice {
            name: name.to_owned(),
            parent: partition.map(|_| "sda".to_owned()),
            partition,
            partition_name: Some(label.to_owned()),
            size: 1 << 30,
            logical_block: 512,
            model: None,
            serial: None,
            transport: None,
            removable: false,
            read_only: false,
            rotational: false,
        };
        let own = device("sda1", Some(1), EXPORT_PARTITION);
        let found = partition_on(&[device("sda", None, ""), own.clone()], "sda");
        assert_eq!(found.as_ref(), Some(&own));
        let twice = [own.clone(), device("sda2", Some(2), EXPORT_PARTITION)];
        assert_eq!(partition_on(&twice, "sda"), None);
        assert_eq!(partition_on(&[own], "sdb"), None);
    }
}
