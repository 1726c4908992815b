//! Guests as OVA archives. What goes out is made twice, first to be measured: the archive says lengths and checksums before what
//! they are of, and this way it needs no room on the datastore.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use lodge_api::vm::VmSpec;
use lodge_api::{ErrorCode, Problem};
use lodge_block::copy::CopyError;
use lodge_block::foreign::{self, Export, ExportFormat};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::archive::{BLOCK, header};
use super::descriptor;
use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::disks::DiskRecord;
use crate::export::{Hold, Opened, Source, Stored, copy_problem, hold};
use crate::operations::{OperationHandle, cancelled};
use crate::sessions::hex;
use crate::vms::{DiskClaim, VmRecord};
use crate::{Caller, Download, Manager};

/// A guest that goes out.
pub(crate) struct Outgoing {
    spec: VmSpec,
    disks: Vec<Stored>,
}

impl Outgoing {
    /// # Errors
    /// `InvalidRequest` for one that starts a kernel without firmware, which no OVA can say.
    pub(crate) fn new(spec: VmSpec, disks: Vec<Stored>) -> Result<Self, Problem> {
        let Some(kernel) = &spec.boot.kernel else {
            return Ok(Self { spec, disks });
        };
        let detail = format!(
            "{} starts the kernel {kernel} without firmware, which an OVA cannot say",
            spec.name
        );
        Err(Problem::new(ErrorCode::InvalidRequest, detail)
            .with_hint("export its disks one by one, or give it firmware and a disk that starts"))
    }
}

impl Manager {
    /// Sends a stopped guest with its disks as an OVA.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while it runs; `InvalidRequest` for one that starts a kernel without firmware, which no OVA can say.
    pub async fn vm_export(&self, caller: &Caller, key: &str) -> Result<Download, Problem> {
        let snapshot = self.core.snapshot();
        let record = catalogue::find::<VmRecord>(&snapshot, key)?.value;
        let target = record.target();
        let spec = record.spec;
        let ids = spec.disks.iter().map(|disk| {
            let found = catalogue::find::<DiskRecord>(&snapshot, disk.disk.as_str())?;
            Ok(Stored::Disk(found.value.id))
        });
        let disks = ids.collect::<Result<Vec<Stored>, Problem>>()?;
        let file_name = format!("{}.ova", spec.name);
        let source = Source::Machine(Outgoing::new(spec, disks)?.into());
        self.export(caller, "vm_export", target, file_name, source)
            .await
    }
}

/// Holds the disks of a guest that does not run, and measures its archive.
pub(crate) fn open(
    core: &Core,
    outgoing: &Outgoing,
    handle: &OperationHandle,
) -> Result<Opened, Problem> {
    let held = hold_all(core, outgoing)?;
    let sizes = held
        .iter()
        .map(|hold| hold.file().metadata().map_or(0, |metadata| metadata.len()));
    let sizes: Vec<u64> = sizes.collect();
    let total: u64 = sizes.iter().sum();
    let (mut disks, mut before) = (Vec::new(), 0);
    for (number, (hold, size)) in held.iter().zip(sizes).enumerate() {
        let mut disk = Disk {
            name: format!("{}-disk{number}.vmdk", outgoing.spec.name),
            file: copy_of(hold.file())?,
            size,
            length: 0,
            sha256: String::new(),
        };
        disk.measure(|position| {
            handle.progress("measuring", before + position, total);
            handle.is_cancelled()
        })?;
        before += size;
        disks.push(disk);
    }
    let archive = Archive::new(&outgoing.spec, disks)?;
    Ok(Opened {
        holds: held,
        size: archive.length,
        export: Box::new(archive),
    })
}

/// All disks at one moment: nobody writes to them until every one is held.
fn hold_all(core: &Core, outgoing: &Outgoing) -> Result<Vec<Hold>, Problem> {
    let all: Vec<_> = outgoing
        .disks
        .iter()
        .filter_map(|disk| match disk {
            Stored::Disk(id) => Some((*id, true)),
            Stored::Image(_) | Stored::Saved(..) => None,
        })
        .collect();
    let _claim = DiskClaim::new(&core.vms.claims, Uuid::now_v7(), &all).map_err(|conflict| {
        let disk = outgoing.spec.disks.get(conflict.number);
        let disk = disk.map_or("", |disk| disk.disk.as_str());
        Problem::new(
            ErrorCode::InUse,
            format!("a running guest writes to the disk {disk}"),
        )
        .with_hint("stop the guest first, or export one that was made of a snapshot of it")
    })?;
    outgoing
        .disks
        .iter()
        .map(|disk| hold(core, *disk))
        .collect()
}

fn copy_of(file: &File) -> Result<File, Problem> {
    file.try_clone()
        .map_err(|error| internal(format!("opening a disk: {error}")))
}

/// A disk as it is in the archive.
struct Disk {
    name: String,
    file: File,
    /// Of the disk, in bytes.
    size: u64,
    /// Of its VMDK, in bytes.
    length: u64,
    sha256: String,
}

impl Disk {
    fn vmdk(&self) -> Result<Box<dyn Export>, Problem> {
        let file = copy_of(&self.file)?;
        let name = self.name.trim_end_matches(".vmdk");
        foreign::export(file, ExportFormat::Vmdk, name).map_err(copy_problem)
    }

    /// Makes its VMDK and keeps nothing of it but length and checksum. `look` hears how far that is, and says whether to stop.
    fn measure(&mut self, look: impl Fn(u64) -> bool) -> Result<(), Problem> {
        let mut vmdk = self.vmdk()?;
        let mut hash = Sha256::new();
        let mut piece = Vec::new();
        loop {
            if look(vmdk.position().min(self.size)) {
                return Err(cancelled());
            }
            piece.clear();
            vmdk.next_piece(&mut piece).map_err(copy_problem)?;
            if piece.is_empty() {
                break;
            }
            hash.update(&piece);
            self.length += piece.len() as u64;
        }
        self.sha256 = hex(&hash.finalize());
        Ok(())
    }
}

/// What an archive consists of, one behind the other.
enum Piece {
    Bytes(Vec<u8>),
    /// A disk, with as many bytes as were measured.
    Disk(Box<dyn Export>, u64),
}

/// An archive in the making.
struct Archive {
    pieces: VecDeque<Piece>,
    length: u64,
    position: u64,
}

impl Archive {
    /// Descriptor, manifest, disks: the order that DSP0243 wants.
    fn new(spec: &VmSpec, disks: Vec<Disk>) -> Result<Self, Problem> {
        let files: Vec<_> = disks
            .iter()
            .map(|disk| descriptor::File {
                name: disk.name.clone(),
                length: disk.length,
                capacity: disk.size,
            })
            .collect();
        let ovf = descriptor::write(spec, &files);
        let mut sums = format!(
            "SHA256({}.ovf)= {}\n",
            spec.name,
            hex(&Sha256::digest(&ovf))
        );
        for disk in &disks {
            sums += &format!("SHA256({})= {}\n", disk.name, disk.sha256);
        }
        let mut archive = Self {
            pieces: VecDeque::new(),
            length: 0,
            position: 0,
        };
        archive.add_text(&format!("{}.ovf", spec.name), ovf);
        archive.add_text(&format!("{}.mf", spec.name), sums);
        for disk in disks {
            archive.add(Piece::Bytes(header(&disk.name, disk.length)));
            archive.add(Piece::Disk(disk.vmdk()?, disk.length));
            archive.fill_up();
        }
        archive.add(Piece::Bytes(vec![0; 2 * BLOCK as usize]));
        Ok(archive)
    }

    fn add_text(&mut self, name: &str, text: String) {
        self.add(Piece::Bytes(header(name, text.len() as u64)));
        self.add(Piece::Bytes(text.into()));
        self.fill_up();
    }

    fn add(&mut self, piece: Piece) {
        self.length += match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Disk(_, length) => *length,
        };
        self.pieces.push_back(piece);
    }

    /// Fills up the last block.
    fn fill_up(&mut self) {
        let missing = self.length.next_multiple_of(BLOCK) - self.length;
        self.add(Piece::Bytes(vec![0; missing as usize]));
    }
}

impl Export for Archive {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let start = buffer.len();
        while buffer.len() == start {
            match self.pieces.pop_front() {
                None => break,
                Some(Piece::Bytes(bytes)) => buffer.extend(bytes),
                Some(Piece::Disk(mut disk, left)) => {
                    disk.next_piece(buffer)?;
                    let made = (buffer.len() - start) as u64;
                    match left.checked_sub(made) {
                        Some(0) => {}
                        Some(left) if made > 0 => self.pieces.push_front(Piece::Disk(disk, left)),
                        _ => {
                            return Err(CopyError::Host {
                                what: "exporting",
                                source: io::Error::other("the disk is not what was measured"),
                            });
                        }
                    }
                }
            }
        }
        self.position += (buffer.len() - start) as u64;
        Ok(())
    }
}
