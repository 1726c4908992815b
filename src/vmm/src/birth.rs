//! A monitor's life from the birth socket to its last words.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use lodge_block::raw::RawDisk;
use lodge_vmm_proto::{
    BIRTH_FD, Boot, Channel, ConfigError, ExitReason, ExitRecord, FdIndex, GuestConfig, Launch,
    LaunchError, LaunchReply, NetworkRom, PROTOCOL_VERSION,
};
use nix::unistd::{Uid, getuid};

use crate::boot::DirectBoot;
use crate::control::Server;
use crate::descriptors::Descriptors;
use crate::firmware::{FirmwareBoot, OptionRom};
use crate::jail;
use crate::machine::{self, Disk, Failure, Machine, Nic, Parts, Saved, Vsock};
use crate::run_control::RunControl;
use crate::saved::{self, Pagemap};
use crate::{exit, footprint, kvm, log, vcpu};

/// Oldest protocol still understood.
const OLDEST_VERSION: u32 = PROTOCOL_VERSION - 1;

/// Runs a monitor whose manager holds the other end of [`BIRTH_FD`]. Returns when
/// its guest has ended, and at once in the process that only gives birth.
pub fn main_from_birth_socket() -> ExitCode {
    log::start();
    let channel = match birth_socket() {
        Ok(channel) => channel,
        Err(error) => {
            eprintln!(
                "lodge vmm is started by `lodge serve`, which passes it a socket as descriptor {BIRTH_FD}: {error}"
            );
            return ExitCode::from(2);
        }
    };
    let (launch, fds) = match channel.receive::<Launch>() {
        Ok(message) => message,
        Err(error) => {
            tracing::error!("birth socket: {error}");
            return ExitCode::FAILURE;
        }
    };
    match bear(&channel, &launch, fds) {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{failure}");
            exit::write(&ExitRecord {
                reason: ExitReason::LaunchFailed,
                message: failure.message.clone(),
                uptime_ms: 0,
            });
            let reply = LaunchReply::Failed {
                error: failure.kind,
                message: failure.message,
            };
            if let Err(error) = channel.send(&reply, &[]) {
                tracing::error!("birth socket: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn bear(channel: &Channel, launch: &Launch, fds: Vec<OwnedFd>) -> Result<ExitCode, Failure> {
    if !(OLDEST_VERSION..=PROTOCOL_VERSION).contains(&launch.version) {
        return Err(Failure::new(
            LaunchError::Internal,
            format!(
                "the manager speaks version {} of the monitor's protocol, this monitor {PROTOCOL_VERSION}",
                launch.version
            ),
        ));
    }
    launch.validate(fds.len()).map_err(|error| refuse(&error))?;
    let owner = getuid();
    let mut keep: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    keep.push(channel.as_raw_fd());
    match jail::enter(launch, &keep)? {
        jail::Side::Outside => Ok(ExitCode::SUCCESS),
        jail::Side::Inside(pagemap) => live(channel, launch, Descriptors::new(fds), pagemap, owner),
    }
}

/// Everything from here on happens in the jail.
fn live(
    channel: &Channel,
    launch: &Launch,
    mut descriptors: Descriptors,
    pagemap: Pagemap,
    owner: Uid,
) -> Result<ExitCode, Failure> {
    exit::prepare(descriptors.take(launch.exit_record)?.into());
    vcpu::install_kick_signal()?;
    let listener = descriptors.take(launch.control)?;
    let mut server = Server::new(listener, owner.as_raw())
        .map_err(Failure::doing(LaunchError::Internal, "control socket"))?;
    let filters = jail::Filters::compile(launch.jail)?;
    let machine = Machine::build(parts(launch, descriptors, pagemap, &filters)?)?;
    filters.lock_main_thread()?;
    let mut control = RunControl::start(machine);
    footprint::let_go_of_code();
    let greeting = channel.send(&LaunchReply::Launched, &[]);
    if let Err(error) = greeting {
        // Nobody waits for this guest: its manager has given up on it.
        let record = control.abandon(&format!("the manager went away: {error}"));
        exit::write(&record);
        return Ok(ExitCode::FAILURE);
    }
    let record = server.serve(&mut control);
    // Connections close only after: who sees the end finds the reason.
    exit::write(&record);
    drop(server);
    tracing::info!(reason = ?record.reason, message = record.message, "guest ended");
    Ok(match record.reason {
        ExitReason::GuestPoweroff | ExitReason::GuestReset | ExitReason::Killed => {
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    })
}

fn parts(
    launch: &Launch,
    mut descriptors: Descriptors,
    pagemap: Pagemap,
    filters: &jail::Filters,
) -> Result<Parts, Failure> {
    let guest = &launch.guest;
    let kvm_file: File = descriptors.take(launch.kvm)?.into();
    let boot = boot(&guest.boot, &mut descriptors)?;
    Ok(Parts {
        kvm: kvm::open(kvm_file, guest.vcpus)?,
        id: guest.id,
        vcpus: guest.vcpus,
        cpu: guest.cpu.clone(),
        memory: guest.memory,
        boot,
        disks: disks(guest, &mut descriptors)?,
        cdroms: cdroms(guest, &mut descriptors)?,
        nics: nics(guest, &mut descriptors)?,
        vsock: match &guest.vsock {
            Some(config) => Some(Vsock {
                vhost: descriptors.take(config.vhost)?,
                cid: config.cid,
            }),
            None => None,
        },
        on_reset: guest.on_reset,
        watchdog: guest.watchdog,
        saved: saved(launch, &mut descriptors)?,
        pagemap,
        prologues: filters.prologues(),
    })
}

fn saved(launch: &Launch, descriptors: &mut Descriptors) -> Result<Option<Saved>, Failure> {
    let Some(restore) = &launch.restore else {
        return Ok(None);
    };
    let state: File = descriptors.take(restore.state)?.into();
    Ok(Some(Saved {
        state: saved::read(&state)?,
        memory: descriptors.take(restore.memory)?.into(),
    }))
}

fn boot(config: &Boot, descriptors: &mut Descriptors) -> Result<machine::Boot, Failure> {
    Ok(match config {
        Boot::Direct {
            kernel,
            initrd,
            cmdline,
        } => machine::Boot::Direct(DirectBoot {
            kernel: descriptors.take(*kernel)?.into(),
            initrd: match initrd {
                Some(initrd) => Some(descriptors.take(*initrd)?.into()),
                None => None,
            },
            cmdline: cmdline.clone(),
        }),
        Boot::Firmware {
            code,
            variables,
            order,
            display_rom,
            network_roms,
        } => machine::Boot::Firmware(FirmwareBoot {
            code: descriptors.take(*code)?.into(),
            variables: match variables {
                Some(variables) => Some(descriptors.take(*variables)?.into()),
                None => None,
            },
            order: order.clone(),
            option_roms: option_roms(*display_rom, network_roms, descriptors)?,
        }),
    })
}

fn option_roms(
    display: Option<FdIndex>,
    networks: &[NetworkRom],
    descriptors: &mut Descriptors,
) -> Result<Vec<(OptionRom, File)>, Failure> {
    let display = display.map(|rom| (OptionRom::Display, rom));
    let networks = networks.iter();
    let networks = networks.map(|network| (OptionRom::Network(network.model), network.rom));
    let all = display.into_iter().chain(networks);
    all.map(|(rom, index)| Ok((rom, descriptors.take(index)?.into())))
        .collect()
}

fn disks(guest: &GuestConfig, descriptors: &mut Descriptors) -> Result<Vec<Disk>, Failure> {
    let mut disks = Vec::with_capacity(guest.disks.len());
    for (slot, config) in guest.disks.iter().enumerate() {
        let disk = RawDisk::open(descriptors.take(config.file)?)
            .map_err(Failure::doing(LaunchError::Disk, format!("disks.{slot}")))?;
        disk.claim()
            .map_err(Failure::doing(LaunchError::Disk, format!("disks.{slot}")))?;
        disks.push(Disk {
            disk,
            bus: config.bus,
            read_only: config.read_only,
            serial: config.serial.clone(),
            limits: config.limits,
            on_error: config.on_error,
        });
    }
    Ok(disks)
}

fn cdroms(
    guest: &GuestConfig,
    descriptors: &mut Descriptors,
) -> Result<Vec<Option<RawDisk>>, Failure> {
    let mut cdroms = Vec::with_capacity(guest.cdroms.len());
    for (number, config) in guest.cdroms.iter().enumerate() {
        let doing = Failure::doing(LaunchError::Disk, format!("cdroms.{number}"));
        cdroms.push(match config.disc {
            Some(disc) => Some(RawDisk::open_for_reading(descriptors.take(disc)?).map_err(doing)?),
            None => None,
        });
    }
    Ok(cdroms)
}

fn nics(guest: &GuestConfig, descriptors: &mut Descriptors) -> Result<Vec<Nic>, Failure> {
    let nics = guest.nics.iter();
    nics.map(|config| Nic::new(config, descriptors)).collect()
}

/// Points at the launch message's field that is out of its range.
fn refuse(error: &ConfigError) -> Failure {
    let kind = match error.field.split('.').next() {
        Some("memory") => LaunchError::Memory,
        Some("cpu") => LaunchError::Cpu,
        Some("disks" | "cdroms") => LaunchError::Disk,
        Some("nics") => LaunchError::Nic,
        Some("vsock") => LaunchError::Vsock,
        _ if error.field == "boot.cmdline" => LaunchError::Cmdline,
        _ => LaunchError::Internal,
    };
    Failure::new(kind, error.to_string())
}

#[allow(unsafe_code)]
fn birth_socket() -> io::Result<Channel> {
    use nix::sys::socket::{SockType, getsockopt, sockopt};
    // SAFETY: by the contract with the manager the descriptor is ours. If
    // it is not open, the check below says so and nothing closes it.
    let socket = unsafe { OwnedFd::from_raw_fd(BIRTH_FD) };
    match getsockopt(&socket, sockopt::SockType) {
        Ok(SockType::SeqPacket) => Ok(Channel::new(socket)),
        Ok(other) => Err(io::Error::other(format!("it is a {other:?} socket"))),
        Err(errno) => {
            // Not a socket: not ours to close.
            std::mem::forget(socket);
            Err(errno.into())
        }
    }
}
