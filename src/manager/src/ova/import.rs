//! Guests out of OVA archives.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::vm::{DiskBus, Firmware, Vm, VmBoot, VmCdrom, VmCpu, VmDisk, VmImport, VmImported};
use lodge_api::vm::{VmNic, VmSpec};
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_block::NewFile;
use lodge_block::copy::{CopyError, CopyProgress};
use lodge_block::datastore::{Datastore, set_disk_size};
use lodge_block::foreign::{self, ConvertError};
use lodge_store::Batch;
use uuid::Uuid;

use super::ovf::Machine;
use super::{DiskFile, Opened};
use crate::catalogue::{self, Object};
use crate::content::image_problem;
use crate::convert::threads;
use crate::core::{Core, blocking};
use crate::datastores;
use crate::disks::DiskRecord;
use crate::fetch::{Fetch, Fetched, in_body};
use crate::images::{checksum, datastore_problem, file_name, wrong_checksum};
use crate::operations::{OperationHandle, cancelled};
use crate::upload::{Expected, Receiver, require_room};
use crate::vms::VmRecord;
use crate::{Caller, Manager};

/// Sizes of disks are multiples of that.
const UNIT: u64 = 1 << 20;

/// Disks and CD-ROM drives that a SATA controller takes.
const SATA_PORTS: usize = 6;
const MOST_DRIVES: usize = 4;

/// A guest to be, whose name is free.
struct Wanted {
    import: VmImport,
    /// Where its disks are to be.
    datastore: Option<Uuid>,
    disks: Arc<Datastore>,
    /// The checksum that the archive has to have.
    sha256: Option<String>,
}

impl Wanted {
    fn target(&self) -> String {
        catalogue::target::<VmRecord>(&self.import.name)
    }
}

/// A guest that is about to be.
struct Plan {
    spec: VmSpec,
    disks: Vec<DiskRecord>,
    /// Where their files are to be.
    folder: Arc<Datastore>,
    files: Vec<Option<DiskFile>>,
    warnings: Vec<String>,
}

impl Manager {
    /// Makes a stopped guest and its disks of an OVA. Whatever goes wrong leaves nothing.
    ///
    /// # Errors
    /// As of an image's upload; `InvalidContent` where the archive is no machine that can be made here.
    pub async fn vm_import(
        &self,
        caller: &Caller,
        import: VmImport,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<VmImported, Problem> {
        let wanted = self.wanted_machine(import)?;
        self.require_room_for(&wanted.disks, declared_len)?;
        let running = self
            .upload_operation(caller, "vm_import", wanted.target())
            .await?;
        let result = self
            .take_archive(caller, wanted, declared_len, body, &running.handle)
            .await;
        running.end(&result);
        result
    }

    /// As [`Manager::vm_import`], of an OVA that the host fetches, whether or not anybody waits for it. Warnings are in the
    /// operation's log.
    ///
    /// # Errors
    /// `AlreadyExists`; others are the operation's.
    pub async fn vm_fetch(
        &self,
        caller: &Caller,
        import: VmImport,
        fetch: Fetch,
    ) -> Result<Operation, Problem> {
        let wanted = self.wanted_machine(import).map_err(in_body)?;
        let (manager, who, target) = (self.clone(), caller.clone(), wanted.target());
        self.core
            .start_operation(caller, "vm_fetch", target, true, |handle| async move {
                let fetched = manager.begin_fetch(&wanted.disks, fetch, &handle);
                let Fetched { length, body } = fetched.await?;
                let taken = manager.take_archive(&who, wanted, length, body, &handle);
                taken.await.map(drop).map_err(in_body)
            })
            .await
    }

    /// Refuses a guest that could not be made whatever the archive is.
    fn wanted_machine(&self, import: VmImport) -> Result<Wanted, Problem> {
        self.core.require_changeable()?;
        let sha256 = import.sha256.as_deref().map(checksum).transpose()?;
        catalogue::require_free::<VmRecord>(&self.core.snapshot(), &import.name)
            .map_err(|problem| problem.with_pointer("?name"))?;
        let datastore = import.datastore.as_ref();
        let datastore = datastores::require(&self.core.snapshot(), datastore, "?datastore")?;
        let folders = self.core.datastores.folders(datastore);
        Ok(Wanted {
            import,
            datastore,
            disks: folders
                .map_err(|problem| problem.with_pointer("?datastore"))?
                .disks,
            sha256,
        })
    }

    async fn take_archive(
        &self,
        caller: &Caller,
        mut wanted: Wanted,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
        handle: &OperationHandle,
    ) -> Result<VmImported, Problem> {
        let receiver = Receiver::start(wanted.disks.clone(), Expected::Archive);
        let received = self.receive(receiver, declared_len, body, handle).await?;
        let sha256 = wanted.sha256.take();
        if sha256.is_some_and(|expected| expected != received.sha256) {
            return Err(wrong_checksum(&received.sha256));
        }
        self.make_imported(caller, wanted, received.file, handle)
            .await
    }

    async fn make_imported(
        &self,
        caller: &Caller,
        wanted: Wanted,
        archive: NewFile,
        handle: &OperationHandle,
    ) -> Result<VmImported, Problem> {
        let archive = Arc::new(archive);
        let (opening, looking) = (archive.clone(), handle.clone());
        let opened = blocking(move || {
            let checking = |entry: &super::archive::Entry| {
                looking.progress("checking", 0, entry.length());
            };
            super::open(opening.file(), checking).map_err(|(problem, remedy)| {
                let problem = Problem::new(ErrorCode::InvalidContent, problem);
                match remedy.as_str() {
                    "" => problem,
                    remedy => problem.with_hint(remedy),
                }
            })
        })
        .await?;
        let mut plan = self.core.plan_import(wanted, opened)?;
        for warning in &plan.warnings {
            handle.log(warning);
        }
        let files = self.convert_disks(&plan, archive, handle).await?;
        handle.commit_to_finish()?;
        let caller = caller.clone();
        let warnings = std::mem::take(&mut plan.warnings);
        let vm = self
            .to_the_end(move |manager| async move {
                manager.core.add_imported(&caller, plan, files).await
            })
            .await?;
        Ok(VmImported { vm, warnings })
    }

    /// Raw files of all disks, without names yet.
    async fn convert_disks(
        &self,
        plan: &Plan,
        archive: Arc<NewFile>,
        handle: &OperationHandle,
    ) -> Result<Vec<NewFile>, Problem> {
        let disks = plan.folder.clone();
        let handle = handle.clone();
        let total: u64 = plan.disks.iter().map(DiskRecord::size).sum();
        let work: Vec<_> = plan
            .disks
            .iter()
            .zip(&plan.files)
            .map(|(disk, file)| {
                (
                    disk.size(),
                    file.as_ref().map(|file| (file.entry.clone(), file.format)),
                )
            })
            .collect();
        blocking(move || {
            let failed = |error| datastore_problem(&error);
            let (mut files, mut before) = (Vec::new(), 0);
            for (size, source) in work {
                let new = disks.new_file().map_err(failed)?;
                if let Some((entry, format)) = source {
                    let part = entry.part(archive.file());
                    let mut image =
                        foreign::open(part, format).map_err(|error| image_problem(&error))?;
                    let mut full = None;
                    let mut go_on = |now: CopyProgress| {
                        if let Err(problem) = require_room(&disks) {
                            full = Some(problem);
                            return std::ops::ControlFlow::Break(());
                        }
                        let position = before + now.position;
                        handle.copying(
                            "converting",
                            CopyProgress {
                                position,
                                size: total,
                                ..now
                            },
                        )
                    };
                    let done =
                        foreign::convert(image.as_mut(), part, new.file(), threads(), &mut go_on);
                    match done {
                        Ok(_) => {}
                        Err(ConvertError::Image(error)) => return Err(image_problem(&error)),
                        Err(ConvertError::Copy(CopyError::Cancelled)) => {
                            return Err(full.unwrap_or_else(cancelled));
                        }
                        Err(ConvertError::Copy(error)) => return Err(failed(error.into())),
                    }
                }
                set_disk_size(new.file(), size).map_err(failed)?;
                before += size;
                files.push(new);
            }
            Ok(files)
        })
        .await
    }
}

impl Core {
    /// What is to be made, with names that are free.
    fn plan_import(&self, wanted: Wanted, opened: Opened) -> Result<Plan, Problem> {
        let Opened { machine, files } = opened;
        let import = &wanted.import;
        let mut warnings = machine.warnings.clone();
        let mut disks = Vec::new();
        for (number, (disk, file)) in machine.disks.iter().zip(&files).enumerate() {
            let size = file.as_ref().map_or(disk.capacity, |file| file.size);
            let size = size.max(UNIT).next_multiple_of(UNIT);
            if size > foreign::MAX_SIZE {
                return Err(invalid("a disk of the machine is larger than 64 TiB"));
            }
            let disk = DiskRecord::new(disk_name(&import.name, number)?, size);
            disks.push(disk.on(wanted.datastore));
        }
        let mut spec = spec(import, &machine, &disks, &mut warnings)?;
        self.settle_addresses(&mut spec, &mut warnings);
        let snapshot = self.snapshot();
        for disk in &disks {
            catalogue::require_free::<DiskRecord>(&snapshot, disk.name())?;
        }
        // Finds out before the long work what cannot be.
        let mut without_disks = VmSpec {
            disks: Vec::new(),
            ..spec.clone()
        };
        without_disks.boot.order.clear();
        self.check_spec(&mut without_disks, &snapshot, None)
            .map_err(|problem| Problem {
                pointer: None,
                detail: format!(
                    "the machine of the OVA cannot be made here: {}",
                    problem.detail
                ),
                ..problem
            })?;
        Ok(Plan {
            spec,
            disks,
            folder: wanted.disks,
            files,
            warnings,
        })
    }

    /// Addresses that guests here have already are made anew.
    fn settle_addresses(&self, spec: &mut VmSpec, warnings: &mut Vec<String>) {
        let guests = catalogue::list::<VmRecord>(&self.snapshot());
        for nic in &mut spec.nics {
            let Some(mac) = &nic.mac else { continue };
            let taken = |other: &VmNic| other.mac.as_ref() == Some(mac);
            if guests.iter().any(|vm| vm.value.spec.nics.iter().any(taken)) {
                warnings.push(format!(
                    "{mac} is another guest's; a new address is made up"
                ));
                nic.mac = None;
            }
        }
    }

    async fn add_imported(
        self: &Arc<Self>,
        caller: &Caller,
        plan: Plan,
        files: Vec<NewFile>,
    ) -> Result<Vm, Problem> {
        let ids: Vec<Uuid> = plan.disks.iter().map(DiskRecord::id).collect();
        let made = match self.name_files(&ids, files).await {
            Ok(()) => self.record_imported(caller, &plan).await,
            Err(problem) => Err(problem),
        };
        if made.is_err() {
            self.drop_imported(plan.folder, &ids).await?;
        }
        made
    }

    async fn name_files(&self, ids: &[Uuid], files: Vec<NewFile>) -> Result<(), Problem> {
        let ids = ids.to_vec();
        blocking(move || {
            for (id, file) in ids.into_iter().zip(files) {
                file.commit(&file_name(id)?)
                    .map_err(|error| datastore_problem(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn record_imported(
        self: &Arc<Self>,
        caller: &Caller,
        plan: &Plan,
    ) -> Result<Vm, Problem> {
        let _changing = self.catalogue.lock().await;
        let now = self.snapshot();
        catalogue::require_free::<VmRecord>(&now, &plan.spec.name)?;
        let mut batch = Batch::new();
        for disk in &plan.disks {
            datastores::require_known(&now, disk.datastore)?;
            catalogue::require_free::<DiskRecord>(&now, disk.name())?;
            catalogue::insert(&mut batch, disk)?;
        }
        self.commit(batch).await?;
        let mut spec = plan.spec.clone();
        self.check_spec(&mut spec, &self.snapshot(), None)?;
        let record = VmRecord::new(spec);
        let made = self.add_vm(&record).await?;
        for disk in &plan.disks {
            self.events
                .object(&caller.user, disk.target(), Change::Created);
        }
        self.make_known(caller, "vm_import", record.target(), Change::Created);
        Ok(self.vm_of(&made))
    }

    /// Undoes what was made of an import that failed.
    async fn drop_imported(&self, disks: Arc<Datastore>, ids: &[Uuid]) -> Result<(), Problem> {
        let now = self.snapshot();
        let mut batch = Batch::new();
        for id in ids {
            if let Some(found) = catalogue::find_optional::<DiskRecord>(&now, &id.to_string())? {
                catalogue::remove(&mut batch, &found)?;
            }
        }
        self.commit(batch).await?;
        let ids = ids.to_vec();
        blocking(move || {
            for id in ids {
                // Those that were never there are not missed.
                let _ = disks.remove_file(&file_name(id)?);
            }
            Ok(())
        })
        .await
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidContent, detail)
}

fn disk_name(vm: &Name, number: usize) -> Result<Name, Problem> {
    format!("{vm}-disk{number}").parse().map_err(|error| {
        Problem::invalid(
            "?name",
            format!("the names of its disks would be wrong: {error}"),
        )
        .with_hint("choose a shorter name")
    })
}

/// The machine as a guest of this host.
fn spec(
    import: &VmImport,
    machine: &Machine,
    disks: &[DiskRecord],
    warnings: &mut Vec<String>,
) -> Result<VmSpec, Problem> {
    let vcpus = u8::try_from(machine.vcpus.unwrap_or(1))
        .map_err(|_| invalid("the machine has more than 64 processors"))?;
    let cores = machine
        .cores_per_socket
        .and_then(|cores| u8::try_from(cores).ok());
    let memory = machine.memory.unwrap_or(512 << 20);
    let mut buses: Vec<DiskBus> = machine.disks.iter().map(|disk| disk.bus).collect();
    let drives = drives(&mut buses, machine.cdroms, warnings);
    let network = import.network.clone();
    let mut nics = Vec::new();
    for nic in &machine.nics {
        if let Some(from) = &nic.network {
            let from: String = from.chars().take(60).collect();
            warnings.push(format!("the network \"{from}\" becomes \"{network}\""));
        }
        nics.push(VmNic {
            network: network.clone(),
            mac: nic.mac.clone(),
            model: nic.model,
            link: Default::default(),
            queues: None,
            limits: Default::default(),
        });
    }
    let pairs = disks.iter().zip(buses);
    Ok(VmSpec {
        name: import.name.clone(),
        description: machine.description.clone(),
        vcpus,
        cpu: VmCpu {
            cores: cores.filter(|cores| *cores > 0 && vcpus.is_multiple_of(*cores)),
            ..VmCpu::default()
        },
        memory: Size(memory.next_multiple_of(1 << 20)),
        boot: VmBoot {
            // Machines of VMware and VirtualBox that say nothing have a BIOS.
            firmware: Some(machine.firmware.unwrap_or(Firmware::Bios)),
            ..VmBoot::default()
        },
        disks: pairs
            .map(|(disk, bus)| VmDisk {
                disk: disk.name().clone(),
                read_only: false,
                bus,
                limits: Default::default(),
                on_error: Default::default(),
            })
            .collect(),
        cdroms: vec![VmCdrom::default(); drives],
        nics,
        cloud_init: None,
        snapshot_schedule: None,
        backup_schedule: None,
        autostart: false,
        on_crash: Default::default(),
        watchdog: Default::default(),
    })
}

/// Finds room for everything on SATA; returns how many drives there are.
fn drives(buses: &mut [DiskBus], cdroms: usize, warnings: &mut Vec<String>) -> usize {
    let mut used = 0;
    for (number, bus) in buses.iter_mut().enumerate() {
        if *bus != DiskBus::Sata {
            continue;
        }
        if used == SATA_PORTS {
            warnings.push(format!(
                "disk {number} is on NVMe: SATA has {SATA_PORTS} ports"
            ));
            *bus = DiskBus::Nvme;
        } else {
            used += 1;
        }
    }
    let drives = cdroms.min(MOST_DRIVES).min(SATA_PORTS - used);
    if drives < cdroms {
        warnings.push(format!("{} CD-ROM drives are left out", cdroms - drives));
    }
    drives
}
