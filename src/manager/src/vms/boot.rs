//! What a guest starts with: checking it, and opening it for the monitor.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use lodge_api::image::ImageKind;
use lodge_api::vm::{BootDevice, Firmware, NicModel, VmBoot, VmSpec};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_block::datastore::{Access, DatastoreError};
use lodge_store::Snapshot;
use lodge_vmm_proto::{Boot, GuestConfig, NetworkRom};
use uuid::Uuid;

use super::launch::{self, Descriptors};
use super::{VmRecord, spec_check};
use crate::core::{Core, internal};
use crate::images::{datastore_problem, file_name};

/// Where Debian's packages put firmware; the appliance has it in the same places.
const UEFI_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const UEFI_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const BIOS: &str = "/usr/share/seabios/bios-256k.bin";
/// Lets the BIOS show its text on the screen; UEFI brings its own driver.
const BIOS_DISPLAY: &str = "/usr/share/seabios/vgabios-ramfb.bin";
const BIOS_VIRTIO_NETWORK: &str = "/usr/lib/ipxe/qemu/pxe-virtio.rom";
const BIOS_INTEL_NETWORK: &str = "/usr/lib/ipxe/qemu/pxe-e1000e.rom";

/// What starts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method<'a> {
    Kernel(&'a Name),
    Firmware(Firmware),
}

/// How `boot` starts a guest. A kernel comes before firmware; [`check`] does not let both be.
pub(crate) fn method(boot: &VmBoot) -> Method<'_> {
    match &boot.kernel {
        Some(kernel) => Method::Kernel(kernel),
        None => Method::Firmware(boot.firmware.unwrap_or(Firmware::Uefi)),
    }
}

/// Checks how a guest starts, and fills in what was left out.
pub(crate) fn check(spec: &mut VmSpec, snapshot: &Snapshot) -> Result<(), Problem> {
    match method(&spec.boot) {
        Method::Kernel(kernel) => {
            spec_check::image(snapshot, kernel, ImageKind::Kernel, "/boot/kernel")?;
            check_direct(&mut spec.boot, snapshot)
        }
        Method::Firmware(firmware) => {
            spec.boot.firmware = Some(firmware);
            check_firmware(spec)
        }
    }
}

fn check_direct(boot: &mut VmBoot, snapshot: &Snapshot) -> Result<(), Problem> {
    const MAX_CMDLINE: usize = GuestConfig::MAX_CMDLINE;
    if boot.firmware.is_some() {
        return Err(Problem::invalid(
            "/boot/firmware",
            "a guest that starts from a kernel runs no firmware",
        )
        .with_hint("leave out one of firmware and kernel"));
    }
    if !boot.order.is_empty() {
        return Err(Problem::invalid(
            "/boot/order",
            "a guest that starts from a kernel starts from nothing else",
        )
        .with_hint("leave out one of order and kernel"));
    }
    if let Some(initrd) = &boot.initrd {
        spec_check::image(snapshot, initrd, ImageKind::Initrd, "/boot/initrd")?;
    }
    let cmdline = boot
        .cmdline
        .get_or_insert_with(|| VmBoot::DEFAULT_CMDLINE.to_owned());
    if cmdline.len() > MAX_CMDLINE {
        return Err(
            Problem::invalid("/boot/cmdline", "the command line is too long")
                .with_hint(format!("use at most {MAX_CMDLINE} bytes")),
        );
    }
    if !cmdline.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Problem::invalid(
            "/boot/cmdline",
            "the command line has characters that are not printable ASCII",
        )
        .with_hint("use one line of plain ASCII"));
    }
    Ok(())
}

fn check_firmware(spec: &VmSpec) -> Result<(), Problem> {
    let boot = &spec.boot;
    let given = [
        ("initrd", boot.initrd.is_some()),
        ("cmdline", boot.cmdline.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Problem::invalid(
            format!("/boot/{field}"),
            format!("{field} is for a kernel, and none is given"),
        )
        .with_hint("give a kernel image as well, or leave it out"));
    }
    for (number, device) in boot.order.iter().enumerate() {
        let pointer = format!("/boot/order/{number}");
        let exists = match *device {
            BootDevice::Disk(index) => usize::from(index) < spec.disks.len(),
            BootDevice::Cdrom(index) => usize::from(index) < spec.cdroms.len(),
            BootDevice::Nic(index) => usize::from(index) < spec.nics.len(),
        };
        if !exists {
            return Err(
                Problem::invalid(pointer, format!("the guest has no {device}")).with_hint(format!(
                    "it has {} disks, {} CD-ROM drives and {} network interfaces; the first is number 0",
                    spec.disks.len(),
                    spec.cdroms.len(),
                    spec.nics.len()
                )),
            );
        }
        if boot.order[..number].contains(device) {
            return Err(
                Problem::invalid(pointer, format!("{device} is listed twice"))
                    .with_hint("list each device once"),
            );
        }
    }
    Ok(())
}

/// What firmware tries, the first first.
pub(crate) fn order(spec: &VmSpec) -> Vec<BootDevice> {
    if !spec.boot.order.is_empty() {
        return spec.boot.order.clone();
    }
    let disks = (0..).take(spec.disks.len()).map(BootDevice::Disk);
    let nics = (0..).take(spec.nics.len()).map(BootDevice::Nic);
    let cdroms = (0..).take(spec.cdroms.len()).map(BootDevice::Cdrom);
    disks.chain(cdroms).chain(nics).collect()
}

/// Opens everything the guest starts with.
pub(super) fn open(core: &Core, record: &VmRecord, fds: &mut Descriptors) -> Result<Boot, Problem> {
    let boot = &record.spec.boot;
    match method(boot) {
        Method::Kernel(kernel) => open_direct(core, boot, kernel, fds),
        Method::Firmware(firmware) => open_firmware(core, record, firmware, fds),
    }
}

fn open_direct(
    core: &Core,
    boot: &VmBoot,
    kernel: &Name,
    fds: &mut Descriptors,
) -> Result<Boot, Problem> {
    let snapshot = core.snapshot();
    let kernel = spec_check::image(&snapshot, kernel, ImageKind::Kernel, "/boot/kernel")?;
    let kernel = fds.add(core.open_image(kernel.id)?);
    let initrd = match &boot.initrd {
        None => None,
        Some(name) => {
            let image = spec_check::image(&snapshot, name, ImageKind::Initrd, "/boot/initrd")?;
            Some(fds.add(core.open_image(image.id)?))
        }
    };
    Ok(Boot::Direct {
        kernel,
        initrd,
        cmdline: boot.cmdline.clone().unwrap_or_default(),
    })
}

fn open_firmware(
    core: &Core,
    record: &VmRecord,
    firmware: Firmware,
    fds: &mut Descriptors,
) -> Result<Boot, Problem> {
    let order = order(&record.spec).into_iter().map(|device| match device {
        BootDevice::Disk(number) => lodge_vmm_proto::BootDevice::Disk(number),
        BootDevice::Cdrom(number) => lodge_vmm_proto::BootDevice::Cdrom(number),
        BootDevice::Nic(number) => lodge_vmm_proto::BootDevice::Nic(number),
    });
    let order = order.collect();
    match firmware {
        Firmware::Bios => Ok(Boot::Firmware {
            code: fds.add(open_file(BIOS, "seabios")?),
            variables: None,
            order,
            display_rom: Some(fds.add(open_file(BIOS_DISPLAY, "seabios")?)),
            network_roms: network_roms(record, fds)?,
        }),
        Firmware::Uefi => Ok(Boot::Firmware {
            code: fds.add(open_file(UEFI_CODE, "ovmf")?),
            variables: Some(fds.add(open_variables(core, record.id)?)),
            order,
            display_rom: None,
            network_roms: Vec::new(),
        }),
    }
}

/// What a BIOS needs for the models of network cards that the guest has.
fn network_roms(record: &VmRecord, fds: &mut Descriptors) -> Result<Vec<NetworkRom>, Problem> {
    let mut roms = Vec::new();
    for (model, path) in [
        (NicModel::Virtio, BIOS_VIRTIO_NETWORK),
        (NicModel::E1000e, BIOS_INTEL_NETWORK),
    ] {
        if record.spec.nics.iter().any(|nic| nic.model == model) {
            let model = launch::model(model);
            let rom = fds.add(open_file(path, "ipxe-qemu")?);
            roms.push(NetworkRom { model, rom });
        }
    }
    Ok(roms)
}

fn open_file(path: &str, package: &str) -> Result<File, Problem> {
    File::open(Path::new(path)).map_err(|error| {
        let problem = Problem::new(
            ErrorCode::InsufficientResources,
            format!("this host's firmware {path}: {error}"),
        )
        .with_pointer("/boot/firmware");
        if error.kind() == io::ErrorKind::NotFound {
            problem.with_hint(format!("install the package {package} on the host"))
        } else {
            problem
        }
    })
}

/// The UEFI variables that a guest begins with.
pub(super) fn fresh_variables() -> Result<File, Problem> {
    open_file(UEFI_VARIABLES, "ovmf")
}

/// The guest's UEFI variables; fresh ones the first time.
fn open_variables(core: &Core, id: Uuid) -> Result<File, Problem> {
    let name = file_name(id)?;
    let access = Access {
        write: true,
        direct: false,
    };
    match core.variables.open_file(&name, access) {
        Err(DatastoreError::NotFound { .. }) => {
            let fresh = fresh_variables()?;
            core.variables
                .clone_file(&fresh, &name, &mut |_| ControlFlow::Continue(()))
                .map_err(|error| datastore_problem(&error))?;
            core.variables.open_file(&name, access)
        }
        opened => opened,
    }
    .map_err(|error| datastore_problem(&error))
}

/// Removes the UEFI variables of a guest that is deleted. A guest that never ran has none.
pub(super) fn remove_variables(core: &Core, id: Uuid) {
    let removed = file_name(id).and_then(|name| match core.variables.remove_file(&name) {
        Ok(()) | Err(DatastoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(internal(error.to_string())),
    });
    if let Err(problem) = removed {
        // The next start of the manager removes what no guest has.
        tracing::warn!(%problem, %id, "a guest's UEFI variables stay for now");
    }
}
