//! Discs in the CD-ROM drives of guests.

use std::io;
use std::os::fd::OwnedFd;

use lodge_api::event::Change;
use lodge_api::image::ImageKind;
use lodge_api::vm::{DiskBus, Vm, VmCdrom, VmDiscChange, VmSpec};
use lodge_api::{Name, Problem};
use lodge_store::{Batch, Snapshot};
use lodge_vmm_proto::{CdromConfig, GuestConfig};

use super::actor::Command;
use super::launch::Descriptors;
use super::{VmRecord, command, spec_check};
use crate::catalogue::Object as _;
use crate::cloud_init;
use crate::core::{Core, internal};
use crate::{Caller, IfMatch, Manager};

/// Most drives of one guest.
const MAX_CDROMS: usize = 4;

/// Checks a guest's drives: there are enough ports, and what is in them are discs.
pub(super) fn check(spec: &VmSpec, snapshot: &Snapshot) -> Result<(), Problem> {
    if spec.cdroms.len() > MAX_CDROMS {
        return Err(Problem::invalid("/cdroms", "too many CD-ROM drives")
            .with_hint(format!("a guest may have {MAX_CDROMS}")));
    }
    let sata = spec.disks.iter().filter(|disk| disk.bus == DiskBus::Sata);
    let cloud_init = usize::from(spec.cloud_init.is_some());
    if sata.count() + spec.cdroms.len() + cloud_init > GuestConfig::MAX_SATA {
        let most = GuestConfig::MAX_SATA;
        return Err(
            Problem::invalid("/cdroms", "too many devices on SATA").with_hint(format!(
                "use at most {most} CD-ROM drives and disks with bus `sata` together, the drive of `cloud_init` included"
            )),
        );
    }
    for (number, VmCdrom { image }) in spec.cdroms.iter().enumerate() {
        if let Some(image) = image {
            let pointer = format!("/cdroms/{number}/image");
            spec_check::image(snapshot, image, ImageKind::Iso, &pointer)?;
        }
    }
    Ok(())
}

/// Opens the discs in all drives. The last is that of cloud-init, where the guest has one: no number of a drive of the configuration leads to it.
pub(super) fn open_all(
    core: &Core,
    record: &VmRecord,
    fds: &mut Descriptors,
) -> Result<Vec<CdromConfig>, Problem> {
    let mut configs = Vec::new();
    for (number, VmCdrom { image }) in record.spec.cdroms.iter().enumerate() {
        let pointer = format!("/cdroms/{number}/image");
        let disc = image.as_ref().map(|image| open(core, image, &pointer));
        configs.push(CdromConfig {
            disc: disc.transpose()?.map(|disc| fds.add(disc)),
        });
    }
    let failed = |error: io::Error| internal(format!("the disc of cloud-init: {error}"));
    if let Some(disc) = cloud_init::disc(record).map_err(failed)? {
        let disc = Some(fds.add(disc));
        configs.push(CdromConfig { disc });
    }
    Ok(configs)
}

fn open(core: &Core, image: &Name, pointer: &str) -> Result<OwnedFd, Problem> {
    let image = spec_check::image(&core.snapshot(), image, ImageKind::Iso, pointer)?;
    Ok(core.open_image(image.id)?.into())
}

impl Manager {
    /// Puts a disc into a CD-ROM drive or takes it out, at once if the guest runs.
    ///
    /// # Errors
    /// `WrongState` when the guest has locked the disc in and `force` is not given.
    pub async fn vm_change_disc(
        &self,
        caller: &Caller,
        key: &str,
        change: VmDiscChange,
    ) -> Result<Vm, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<VmRecord>(&key, IfMatch::Any).await?;
            let old = &held.old;
            let mut spec = old.value.spec.clone();
            let Some(drive) = spec.cdroms.get_mut(usize::from(change.drive)) else {
                return Err(Problem::invalid(
                    "/drive",
                    format!("the guest has no CD-ROM drive {}", change.drive),
                )
                .with_hint("add one to `cdroms`; it is there after the next start"));
            };
            drive.image.clone_from(&change.image);
            let disc = match &change.image {
                Some(image) => Some(open(core, image, "/image")?),
                None => None,
            };
            change_now(core, &old.value, change, disc).await?;
            let new = VmRecord {
                spec,
                ..old.value.clone()
            };
            let new = core.exchange(Batch::new(), old, new).await?;
            core.make_known(&caller, "vm_disc", new.value.target(), Change::Changed);
            Ok(core.vm_of(&new))
        })
        .await
    }
}

/// Does it in the running guest, if it runs with that drive.
async fn change_now(
    core: &Core,
    record: &VmRecord,
    change: VmDiscChange,
    disc: Option<OwnedFd>,
) -> Result<(), Problem> {
    let Some(handle) = core.vms.handle(record.id) else {
        return Ok(());
    };
    let has_drive = {
        let observed = handle.observed.borrow();
        let drives = observed
            .launched
            .as_ref()
            .map_or(0, |spec| spec.cdroms.len());
        observed.state.is_active() && usize::from(change.drive) < drives
    };
    if !has_drive {
        return Ok(());
    }
    command(&handle, |reply| Command::ChangeDisc {
        change,
        disc,
        reply,
    })
    .await
}
