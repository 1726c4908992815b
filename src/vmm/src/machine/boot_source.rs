//! What a machine starts with, at its birth and after every reset.

use std::ops::Range;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use lodge_devices::GuestMemory;
use lodge_vmm_proto::LaunchError;
use uuid::Uuid;
use vm_memory::{Bytes, GuestAddress};

use super::display::Display;
use super::hardware::Hardware;
use super::{Boot, Failure};
use crate::boot::{self, DirectBoot, Entry, Loaded};
use crate::firmware::{self, Configuration, Firmware, FirmwareBoot, FirmwareError};
use crate::layout::{
    ACPI_BASE, ECAM_BASE, ECAM_LENGTH, PCI_WINDOW_BASE, PCI_WINDOW_END, PM_BASE, SMBIOS_BASE,
};
use crate::{acpi, smbios};

/// Everything that goes into fresh memory.
pub enum BootSource {
    /// A kernel, and the tables that firmware would have made.
    Direct {
        /// Kernel and its companions.
        boot: DirectBoot,
        /// Belongs at [`ACPI_BASE`].
        acpi: Vec<u8>,
        /// Belongs at [`SMBIOS_BASE`].
        smbios: Vec<u8>,
    },
    /// Firmware in its place.
    Firmware(Firmware),
}

/// Who the guest is and how large: what tables tell.
#[derive(Debug, Clone)]
pub struct Identity {
    /// SMBIOS UUID.
    pub id: Uuid,
    /// APIC IDs of the vCPUs.
    pub apic_ids: Vec<u8>,
    /// Window for 64-bit PCI memory BARs.
    pub high_window: Range<u64>,
}

/// What guest memory holds when the machine is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing: what the guest starts with is to be loaded.
    Fresh,
    /// What was saved. It is left alone until the first reset.
    Saved,
}

/// What can be had before there is hardware.
pub enum Prepared {
    /// A kernel. It is in fresh memory already: it is what most likely is wrong.
    Direct(BootSource, Option<Loaded>),
    /// Firmware, which needs the machine.
    Firmware(FirmwareBoot),
}

impl Prepared {
    /// Loads a kernel, or puts firmware off.
    ///
    /// # Errors
    /// When the kernel cannot be booted.
    pub fn new(
        boot: Boot,
        identity: &Identity,
        memory: &GuestMemory,
        content: Content,
    ) -> Result<Self, Failure> {
        match boot {
            Boot::Firmware(boot) => Ok(Self::Firmware(boot)),
            Boot::Direct(boot) => {
                let source = BootSource::direct(boot, identity)?;
                let loaded = source.load_if(content, memory)?;
                Ok(Self::Direct(source, loaded))
            }
        }
    }

    /// Puts firmware in its place on the finished machine. Returns how a guest in fresh memory begins.
    ///
    /// # Errors
    /// When its files are not what they should be, or KVM refuses.
    pub fn finish(
        self,
        identity: &Identity,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        content: Content,
        hardware: &mut Hardware,
    ) -> Result<(BootSource, Option<Loaded>), Failure> {
        match self {
            Self::Direct(source, loaded) => Ok((source, loaded)),
            Self::Firmware(boot) => {
                let source = BootSource::firmware(boot, identity, vm, memory, hardware)?;
                let loaded = source.load_if(content, memory)?;
                Ok((source, loaded))
            }
        }
    }
}

impl BootSource {
    fn direct(boot: DirectBoot, identity: &Identity) -> Result<Self, Failure> {
        let window = PCI_WINDOW_BASE..PCI_WINDOW_END;
        let acpi = acpi::build(&acpi::Machine {
            apic_ids: identity.apic_ids.clone(),
            pm_base: PM_BASE,
            ecam: Some(ECAM_BASE..ECAM_BASE + ECAM_LENGTH),
            low_windows: vec![window],
            high_window: identity.high_window.clone(),
            keyboard: false,
        });
        let (Some(acpi), Some(smbios)) = (acpi, smbios::build(identity.id)) else {
            return Err(Failure::new(LaunchError::Internal, "tables do not fit"));
        };
        Ok(Self::Direct { boot, acpi, smbios })
    }

    fn firmware(
        boot: FirmwareBoot,
        identity: &Identity,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        hardware: &mut Hardware,
    ) -> Result<Self, Failure> {
        let boot_order = firmware::boot_order(&boot.order, &hardware.place);
        let option_roms = boot.option_roms.iter();
        let option_roms = option_roms
            .map(|(rom, file)| Ok((*rom, rom.read(file)?)))
            .collect::<Result<_, FirmwareError>>()?;
        let firmware = Firmware::place(vm, boot)?;
        if let Some(flash) = &firmware.variables {
            hardware.add_flash(flash)?;
        }
        // 64 at most.
        let vcpus = identity.apic_ids.len() as u8;
        firmware::fill_cmos(&mut hardware.cmos.lock().unwrap(), memory, vcpus);
        let device = firmware::fw_cfg(
            memory,
            Configuration {
                id: identity.id,
                boot_order,
                screen: hardware.display.as_ref().map(Display::file),
                option_roms,
                chipset: hardware.chipset(identity.apic_ids.clone()),
            },
        );
        hardware.add_fw_cfg(device)?;
        Ok(Self::Firmware(firmware))
    }

    /// Fills fresh memory; returns where the first vCPU enters.
    ///
    /// # Errors
    /// When a file is not what it was, or does not fit.
    pub fn load(&self, memory: &GuestMemory) -> Result<Loaded, Failure> {
        match self {
            Self::Direct { boot, acpi, smbios } => {
                let loaded = boot::load(memory, boot, ACPI_BASE)?;
                for (table, address) in [(acpi, ACPI_BASE), (smbios, SMBIOS_BASE)] {
                    memory
                        .write_slice(table, GuestAddress(address))
                        .map_err(Failure::doing(LaunchError::Internal, "tables"))?;
                }
                Ok(loaded)
            }
            Self::Firmware(firmware) => {
                firmware.shadow(memory)?;
                Ok(Loaded {
                    entry: Entry::ResetVector,
                    mapped: None,
                })
            }
        }
    }

    fn load_if(&self, content: Content, memory: &GuestMemory) -> Result<Option<Loaded>, Failure> {
        (content == Content::Fresh)
            .then(|| self.load(memory))
            .transpose()
    }
}
