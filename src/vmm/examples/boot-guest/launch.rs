//! The message that makes a monitor, and the descriptors behind it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use lodge_vmm_proto::{
    Boot, BootDevice, CdromConfig, CpuConfig, DiskConfig, DiskLimits, FdIndex, GuestConfig, Launch,
    NicConfig, NicModel, OnDiskError, PROTOCOL_VERSION, Restore,
};

use crate::options::Options;
use crate::{save, tap};

/// Descriptors that travel with the message.
#[derive(Default)]
pub struct Descriptors(pub Vec<OwnedFd>);

impl Descriptors {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> FdIndex {
        self.0.push(fd.into());
        FdIndex(self.0.len() as u16 - 1)
    }

    fn open(&mut self, path: &str, write: bool) -> Result<FdIndex> {
        let file = OpenOptions::new().read(true).write(write).open(path);
        Ok(self.add(file.with_context(|| path.to_owned())?))
    }
}

pub fn launch(
    options: &Options,
    fds: &mut Descriptors,
    listener: OwnedFd,
    record: File,
) -> Result<Launch> {
    let mut disks = Vec::new();
    for disk in &options.disks {
        disks.push(DiskConfig {
            file: fds.open(&disk.path, !disk.read_only)?,
            bus: options.disk_bus,
            read_only: disk.read_only,
            serial: format!("boot{}", disks.len()),
            limits: DiskLimits::default(),
            on_error: OnDiskError::default(),
        });
    }
    let mut cdroms = Vec::new();
    for path in &options.cdroms {
        let disc = Some(fds.open(path, false)?);
        cdroms.push(CdromConfig { disc });
    }
    let mut nics = Vec::new();
    for (number, name) in options.taps.iter().enumerate() {
        nics.push(nic(name, u8::try_from(number)?, fds)?);
    }
    let guest = GuestConfig {
        id: uuid::Uuid::from_u128(u128::from(std::process::id())),
        name: "boot".to_owned(),
        vcpus: options.cpus,
        cpu: CpuConfig::default(),
        memory: options.memory,
        boot: boot(options, fds)?,
        disks,
        cdroms,
        nics,
        vsock: None,
        on_reset: options.on_reset,
        watchdog: None,
    };
    Ok(Launch {
        version: PROTOCOL_VERSION,
        guest,
        kvm: fds.open("/dev/kvm", true)?,
        control: fds.add(listener),
        exit_record: fds.add(record),
        uid_gid: options.user.map(|user| (user, user)),
        restore: restore(options, fds)?,
        jail: options.jail,
    })
}

fn nic(name: &str, number: u8, fds: &mut Descriptors) -> Result<NicConfig> {
    let tap = tap::open(name).with_context(|| name.to_owned())?;
    // Two guests on one network are told apart by their taps' names.
    let last = name.bytes().fold(number, u8::wrapping_add);
    Ok(NicConfig {
        link_up: true,
        tap: fds.add(tap),
        model: NicModel::Virtio,
        vhost: fds.open("/dev/vhost-net", true).ok(),
        further_pairs: Vec::new(),
        mac: [0x52, 0x54, 0, 0, 0, last],
        mtu: 1500,
    })
}

fn restore(options: &Options, fds: &mut Descriptors) -> Result<Option<Restore>> {
    let Some(folder) = &options.restore else {
        return Ok(None);
    };
    let (state, memory) = save::paths(folder);
    Ok(Some(Restore {
        state: fds.open(&state, false)?,
        memory: fds.open(&memory, false)?,
    }))
}

fn boot(options: &Options, fds: &mut Descriptors) -> Result<Boot> {
    let mut open =
        |path: &Option<String>, write| path.as_ref().map(|path| fds.open(path, write)).transpose();
    if let Some(code) = open(&options.firmware, false)? {
        let disks = 0..u8::try_from(options.disks.len())?;
        let cdroms = 0..u8::try_from(options.cdroms.len())?;
        return Ok(Boot::Firmware {
            code,
            variables: open(&options.variables, true)?,
            order: disks
                .map(BootDevice::Disk)
                .chain(cdroms.map(BootDevice::Cdrom))
                .collect(),
            display_rom: open(&options.display_rom, false)?,
            network_roms: Vec::new(),
        });
    }
    ensure!(
        options.cmdline.is_ascii(),
        "--cmdline: a kernel takes ASCII"
    );
    Ok(Boot::Direct {
        kernel: open(&options.kernel, false)?.context("--kernel")?,
        initrd: open(&options.initrd, false)?,
        cmdline: options.cmdline.clone(),
    })
}
