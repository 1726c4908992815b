//! `lodge vm`: virtual machines.

use clap::{Args, Subcommand};
use http::Method;
use lodge_api::operation::Operation;
use lodge_api::vm::{
    BootDevice, DiskBus, NicModel, OnCrash, Vm, VmAction, VmBoot, VmCpu, VmDiscChange,
    VmStopOptions,
};
use lodge_api::{Name, Size};
use lodge_client::{Client, ClientError, age};
use serde_json::{Map, Value, json};

use super::export::{ExportVm, export_vm};
use super::vm_backup::{self, BackupVm, ListBackups, RestoreVm};
use super::vm_import::{Import, import};
use super::vm_settings::Settings;
use super::{
    all, console, path, screen, vm_backup_schedule, vm_balloon, vm_cloud_init, vm_limits, vm_nvram,
    vm_plug, vm_schedule, vnc,
};
use crate::context::{Context, ask};
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a VM of an OVA, which VMware, VirtualBox and others export
    Import(Import),
    /// Write a stopped VM with its disks as an OVA, for other hypervisors and hosts
    Export(ExportVm),
    /// Write a VM's disks to a folder, also while it runs; from the second time on, what changed
    #[command(after_help = "Example: lodge vm backup web /backups/web
The files are qcow2, which qemu-img reads, too; `lodge vm restore` makes a VM of them. docs/backup.md says more.")]
    Backup(BackupVm),
    /// List the backups in a folder
    Backups(ListBackups),
    /// Make a VM of its backups in a folder
    #[command(after_help = "Example: lodge vm restore /backups/web web-restored --number 3")]
    Restore(RestoreVm),
    /// Create a virtual machine
    Create {
        /// [REMOTE:]NAME
        name: Target,
        #[command(flatten)]
        settings: Settings,
        /// Start it at once
        #[arg(long)]
        start: bool,
        /// Start it and open its console
        #[arg(long, conflicts_with = "start")]
        console: bool,
    },
    /// List virtual machines
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Only those for which this holds, e.g. 'state eq running'
        #[arg(long)]
        filter: Option<String>,
    },
    /// Show one in full
    Show {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Change the configuration; most of it takes effect at the next start
    Set {
        /// [REMOTE:]NAME
        name: Target,
        /// A new name
        #[arg(long)]
        rename: Option<Name>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Start
    Start {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
        #[command(flatten)]
        background: Background,
    },
    /// Press the power button and wait for the guest to power off
    Stop {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
        /// Seconds to wait
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
        timeout: u32,
        /// End it when the time is over
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        background: Background,
    },
    /// End at once, as if the power was cut
    Kill {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
        #[command(flatten)]
        background: Background,
    },
    /// Press the reset button
    Reset {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
    /// Hold; the memory stays
    Pause {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
    /// Continue after a pause
    Resume {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
    /// Delete; its disks stay
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Put a disc into a CD-ROM drive; one that is in is replaced
    Insert {
        /// [REMOTE:]NAME
        name: Target,
        /// Image of the disc
        image: Name,
        #[command(flatten)]
        drive: Drive,
    },
    /// Take a disc out of a CD-ROM drive
    Eject {
        /// [REMOTE:]NAME
        name: Target,
        #[command(flatten)]
        drive: Drive,
    },
    /// Add, remove and limit disks, also while the VM runs
    #[command(subcommand)]
    Disk(vm_plug::DiskVerb),
    /// Add, remove and limit network interfaces, also while the VM runs
    #[command(subcommand)]
    Nic(vm_plug::NicVerb),
    /// Ask a running VM to keep only so much of its memory; it has all again when it is started anew
    Balloon {
        /// [REMOTE:]NAME
        name: Target,
        /// Memory to keep, like 256MiB
        size: Size,
    },
    /// UEFI variables of a VM that does not run
    #[command(subcommand)]
    Nvram(vm_nvram::Verb),
    /// Show what its cloud-init is given, as `lodge vm set --user-data` and the like say
    CloudInit {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Open the serial console; Ctrl-] leaves it
    Console {
        /// [REMOTE:]NAME
        name: Target,
        /// Bytes of history to show first
        #[arg(long, default_value_t = 65536)]
        scrollback: u32,
        /// Open the virtio console instead of the serial port
        #[arg(long)]
        virtio: bool,
    },
    /// Connect standard input and output to a vsock port of a running VM; no network is needed
    #[command(
        after_help = "The connection is made by the host (AF_VSOCK), to a program that listens in the VM.
The end of the input is passed on; the command ends when the VM closes the connection.

Example: echo status | lodge vm connect web 1024"
    )]
    Connect {
        /// [REMOTE:]NAME
        name: Target,
        /// Port on which the VM listens
        port: u32,
    },
    /// Save what is on the screen as a PNG file
    Screenshot(screen::Screenshot),
    /// Type on the keyboard
    Type(screen::Type),
    /// Move the pointer, and click
    Pointer(screen::Point),
    /// Show screen, keyboard and mouse to VNC viewers on this machine, until Ctrl-C
    #[command(
        after_help = "Viewers connect to the port that the command listens on; what they see and do travels over the same
HTTPS connection as everything else, so the VM's host has no VNC port. There is no password: keep to 127.0.0.1, the
default, where others can reach this machine.

Example: lodge vm vnc web &
         vncviewer 127.0.0.1:0"
    )]
    Vnc(vnc::Vnc),
}

/// Which CD-ROM drive.
#[derive(Debug, Args)]
pub(crate) struct Drive {
    /// Its number, from 0
    #[arg(long, default_value_t = 0)]
    drive: u8,
    /// Even if the guest has locked the disc in
    #[arg(long)]
    force: bool,
}

/// Do not wait for the end of the operation.
#[derive(Debug, Args)]
pub(crate) struct Background {
    /// Print the operation and return at once
    #[arg(long)]
    background: bool,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Import(arguments) => import(context, arguments).await,
        Verb::Export(arguments) => export_vm(context, arguments).await,
        Verb::Backup(arguments) => vm_backup::backup(context, arguments).await,
        Verb::Backups(arguments) => vm_backup::list(context, &arguments),
        Verb::Restore(arguments) => vm_backup::restore(context, arguments).await,
        Verb::Create {
            name,
            settings,
            start,
            console,
        } => {
            create(context, &name, &settings.json()?, start || console).await?;
            if console {
                console::open(context, &name, 0, false).await
            } else {
                Ok(())
            }
        }
        Verb::List { remote, filter } => list(context, remote, filter.as_deref()).await,
        Verb::Show { name } => show(context, &name).await,
        Verb::Set {
            name,
            rename,
            settings,
        } => {
            let mut fields = settings.json()?;
            fields.extend(settings.forgotten(fields.get("boot").cloned()));
            if let Some(rename) = rename {
                fields.insert("name".to_owned(), json!(rename));
            }
            set(context, &name, &fields).await
        }
        Verb::Insert { name, image, drive } => {
            change_disc(context, &name, Some(image), &drive).await
        }
        Verb::Eject { name, drive } => change_disc(context, &name, None, &drive).await,
        Verb::Disk(verb) => vm_plug::run_disk(context, verb).await,
        Verb::Nic(verb) => vm_plug::run_nic(context, verb).await,
        Verb::Balloon { name, size } => vm_balloon::set(context, &name, size).await,
        Verb::Nvram(verb) => vm_nvram::run(context, verb).await,
        Verb::CloudInit { name } => vm_cloud_init::show(context, &name).await,
        Verb::Start { names, background } => {
            act(
                context,
                &names,
                VmAction::Start,
                None,
                background.background,
            )
            .await
        }
        Verb::Stop {
            names,
            timeout,
            force,
            background,
        } => {
            let options = VmStopOptions {
                timeout_s: Some(timeout),
                force,
            };
            act(
                context,
                &names,
                VmAction::Stop,
                Some(options),
                background.background,
            )
            .await
        }
        Verb::Kill { names, background } => {
            act(context, &names, VmAction::Kill, None, background.background).await
        }
        Verb::Reset { names } => act(context, &names, VmAction::Reset, None, false).await,
        Verb::Pause { names } => act(context, &names, VmAction::Pause, None, false).await,
        Verb::Resume { names } => act(context, &names, VmAction::Resume, None, false).await,
        Verb::Delete { names, yes } => delete(context, &names, yes).await,
        Verb::Console {
            name,
            scrollback,
            virtio,
        } => console::open(context, &name, scrollback, virtio).await,
        Verb::Connect { name, port } => console::connect(context, &name, port).await,
        Verb::Screenshot(options) => screen::screenshot(context, options).await,
        Verb::Type(options) => screen::type_in(context, options).await,
        Verb::Pointer(options) => screen::point(context, options).await,
        Verb::Vnc(options) => vnc::serve(context, options).await,
    }
}

async fn create(
    context: &Context,
    target: &Target,
    settings: &Map<String, Value>,
    start: bool,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let mut body = settings.clone();
    body.insert("name".to_owned(), json!(target.name));
    let vm: Vm = client.send(Method::POST, "/v1/vms", &body, None).await?;
    output::done(context.format, &format!("VM {} created", vm.spec.name));
    if start {
        request(
            context,
            &client,
            vm.spec.name.as_str(),
            VmAction::Start,
            None,
            false,
        )
        .await?;
    } else if context.format != output::Format::Table {
        output::structured(context.format, &vm)?;
    }
    Ok(())
}

async fn change_disc(
    context: &Context,
    target: &Target,
    image: Option<Name>,
    Drive { drive, force }: &Drive,
) -> Result<(), ClientError> {
    let what = match &image {
        Some(image) => format!("{image} is in CD-ROM drive {drive}"),
        None => format!("CD-ROM drive {drive} is empty"),
    };
    let change = VmDiscChange {
        drive: *drive,
        image,
        force: *force,
    };
    let client = context.client(target.remote.as_deref())?;
    let path = format!("{}:disc", path("vms", &target.name));
    let vm: Vm = client.send(Method::POST, &path, &change, None).await?;
    output::done(context.format, &format!("VM {}: {what}", vm.spec.name));
    Ok(())
}

async fn set(
    context: &Context,
    target: &Target,
    fields: &Map<String, Value>,
) -> Result<(), ClientError> {
    if fields.is_empty() {
        return Err(ClientError::Usage(
            "nothing to change: give at least one option, see --help".to_owned(),
        ));
    }
    let client = context.client(target.remote.as_deref())?;
    let vm: Vm = client
        .send(Method::PATCH, &path("vms", &target.name), fields, None)
        .await?;
    let later = if vm.status.restart_pending {
        "; it takes effect at the next start"
    } else {
        ""
    };
    output::done(
        context.format,
        &format!("VM {} changed{later}", vm.spec.name),
    );
    Ok(())
}

async fn act(
    context: &Context,
    targets: &[Target],
    action: VmAction,
    options: Option<VmStopOptions>,
    background: bool,
) -> Result<(), ClientError> {
    for target in targets {
        let client = context.client(target.remote.as_deref())?;
        request(
            context,
            &client,
            &target.name,
            action,
            options.as_ref(),
            background,
        )
        .await?;
    }
    Ok(())
}

async fn request(
    context: &Context,
    client: &Client,
    name: &str,
    action: VmAction,
    options: Option<&VmStopOptions>,
    background: bool,
) -> Result<(), ClientError> {
    let url = format!("{}:{}", path("vms", name), action.as_str());
    let operation: Operation = match options {
        Some(options) => client.send(Method::POST, &url, options, None).await?,
        None => client.post(&url).await?,
    };
    let past = match action {
        VmAction::Start => "started",
        VmAction::Stop => "stopped",
        VmAction::Kill => "killed",
        VmAction::Reset => "reset",
        VmAction::Pause => "paused",
        VmAction::Resume => "resumed",
    };
    context
        .finish(client, operation, background, &format!("VM {name} {past}"))
        .await
}

async fn delete(context: &Context, targets: &[Target], yes: bool) -> Result<(), ClientError> {
    for target in targets {
        let client = context.client(target.remote.as_deref())?;
        let url = path("vms", &target.name);
        let vm: Vm = client.get(&url).await?;
        if !yes
            && ask(&format!(
                "Delete VM {}? Its disks stay. [y/N] ",
                vm.spec.name
            ))? != "y"
        {
            return Err(ClientError::Usage("nothing was deleted".to_owned()));
        }
        client.delete(&url).await?;
        output::done(context.format, &format!("VM {} deleted", vm.spec.name));
    }
    Ok(())
}

async fn list(
    context: &Context,
    remote: Option<RemoteName>,
    filter: Option<&str>,
) -> Result<(), ClientError> {
    let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
    let vms: Vec<Vm> = all(&client, "vms", filter).await?;
    let head = [
        "NAME", "STATE", "SINCE", "CPUS", "MEMORY", "DISKS", "NICS", "REASON",
    ];
    output::list(context.format, &vms, &head, |vm| {
        vec![
            vm.spec.name.to_string(),
            vm.status.state.as_str().to_owned(),
            age(vm.status.since),
            vm.spec.vcpus.to_string(),
            vm.spec.memory.to_string(),
            vm.spec.disks.len().to_string(),
            vm.spec.nics.len().to_string(),
            vm.status.reason.clone().unwrap_or_default(),
        ]
    })
}

async fn show(context: &Context, target: &Target) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let vm: Vm = client.get(&path("vms", &target.name)).await?;
    output::object(context.format, &vm, rows)
}

fn rows(vm: &Vm) -> Vec<(&'static str, String)> {
    let spec = &vm.spec;
    let join = |items: Vec<String>| {
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(", ")
        }
    };
    let disks = spec.disks.iter().map(|disk| {
        let bus = match disk.bus {
            DiskBus::Virtio => "",
            DiskBus::Sata => " (SATA)",
            DiskBus::Nvme => " (NVMe)",
        };
        let read_only = if disk.read_only { " (read-only)" } else { "" };
        let limits = vm_limits::disk_settings(disk);
        format!("{}{bus}{read_only}{limits}", disk.disk)
    });
    let cdroms = spec.cdroms.iter().map(|drive| {
        drive
            .image
            .as_ref()
            .map_or_else(|| "empty".to_owned(), Name::to_string)
    });
    let nics = spec.nics.iter().map(|nic| {
        let model = match nic.model {
            NicModel::Virtio => "",
            NicModel::E1000e => " (e1000e)",
        };
        let mac = nic.mac.as_deref().unwrap_or_default();
        let limits = vm_limits::nic_settings(nic);
        format!("{} {mac}{model}{limits}", nic.network)
    });
    let mut rows = vec![
        ("Name", spec.name.to_string()),
        ("Id", vm.id.to_string()),
        (
            "State",
            format!("{} for {}", vm.status.state.as_str(), age(vm.status.since)),
        ),
    ];
    rows.extend(vm.status.reason.clone().map(|reason| ("Reason", reason)));
    let ago = |at| format!("{} ago", age(at));
    rows.extend(vm.status.panicked_at.map(|at| ("System crashed", ago(at))));
    rows.extend(
        vm.status
            .watchdog_expired_at
            .map(|at| ("Watchdog expired", ago(at))),
    );
    rows.extend(vm.status.pid.map(|pid| {
        (
            "Monitor",
            format!("process {pid}, {} resets", vm.status.resets),
        )
    }));
    rows.extend([
        ("Description", spec.description.clone()),
        ("CPUs", spec.vcpus.to_string()),
        ("CPU model", cpu(&spec.cpu)),
    ]);
    rows.extend(vm_limits::cpu_rows(&spec.cpu));
    rows.extend([
        ("CPU time", vm_limits::cpu_time(vm)),
        (
            "Memory",
            format!("{}, {} held", spec.memory, vm.status.memory_used),
        ),
    ]);
    rows.extend(vm_balloon::rows(vm));
    rows.extend(boot_rows(&spec.boot));
    rows.extend([("Disks", join(disks.collect()))]);
    rows.extend(vm_limits::held_back(vm));
    rows.extend([
        ("CD-ROM drives", join(cdroms.collect())),
        ("NICs", join(nics.collect())),
    ]);
    rows.extend(vm_cloud_init::row(vm));
    rows.extend(vm_schedule::row(vm));
    rows.extend(vm_backup_schedule::row(vm));
    rows.extend(
        vm.status
            .vsock_cid
            .map(|cid| ("Vsock address", cid.to_string())),
    );
    rows.extend([
        (
            "Autostart",
            if spec.autostart { "yes" } else { "no" }.to_owned(),
        ),
        (
            "On crash",
            if spec.on_crash == OnCrash::Restart {
                "restart"
            } else {
                "stop"
            }
            .to_owned(),
        ),
        ("Watchdog", spec.watchdog.as_str().to_owned()),
        ("Created", vm.created_at.to_string()),
    ]);
    rows
}

/// What its processors are, in one line.
fn cpu(cpu: &VmCpu) -> String {
    let counts = [
        ("sockets", cpu.sockets),
        ("cores", cpu.cores),
        ("threads", cpu.threads),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(what, count)| Some(format!("{} {what}", count?)));
    let model = std::iter::once(cpu.model.as_str().to_owned());
    let parts: Vec<String> = model
        .chain(cpu.features.iter().cloned())
        .chain(counts)
        .chain(cpu.hyperv.then(|| "hyperv".to_owned()))
        .collect();
    parts.join(", ")
}

fn boot_rows(boot: &VmBoot) -> Vec<(&'static str, String)> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    if let Some(kernel) = &boot.kernel {
        return vec![
            ("Kernel", kernel.to_string()),
            ("Initrd", text(boot.initrd.as_ref().map(Name::to_string))),
            ("Command line", text(boot.cmdline.clone())),
        ];
    }
    let firmware = boot.firmware.map(|firmware| firmware.as_str().to_owned());
    let order: Vec<String> = boot.order.iter().map(BootDevice::to_string).collect();
    let order = match order.is_empty() {
        true => "disks, CD-ROM drives, NICs".to_owned(),
        false => order.join(", "),
    };
    vec![("Firmware", text(firmware)), ("Boot order", order)]
}
