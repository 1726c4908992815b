//! From the kernel's hand-over to a machine on which the manager can start.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lodge_host::boot::{
    BOOT_REPORT, BootMedium, BootReport, BootStage, BootWarning, DataStorage, ModuleReport,
    WarningCode,
};
use lodge_host::disk::{FilesystemKind, Found, with_label};
use lodge_host::hostname;
use lodge_host::kvm::{self, CpuVendor, KvmState, KvmStatus};
use lodge_host::seed::SEED_LABEL;
use lodge_host::system::Firmware;

use crate::media::Media;
use crate::modules::Loader;
use crate::seed::SeedSearch;
use crate::uevent::UeventSocket;
use crate::{clock, console, data, log, mounts, random, seed, settings, settle};

/// Modules that are loaded whatever hardware there is, one name a line.
const MODULE_LIST: &str = "/etc/modules-load.list";
/// The program by the name the kernel calls it by when it wants a module.
const MODPROBE: &str = "/sbin/modprobe";
/// Where the manager keeps what it is told, such as a name for the host: that one is worth more than the seed's.
const DATA_DIR: &str = "/data/lodge";
/// The name of a host nobody has named.
const HOSTNAME: &str = "lodge";
/// Label of our own boot media.
const BOOT_LABEL: &str = "LODGE";

/// What is still needed when the machine is up.
pub(crate) struct Booted {
    pub(crate) loader: Loader,
    pub(crate) uevents: Option<UeventSocket>,
}

/// Takes the time of each stage and survives its failure.
#[derive(Default)]
struct Stages {
    done: Vec<BootStage>,
}

impl Stages {
    /// Runs one stage. A bug in it costs its result and not the machine.
    fn run<T>(&mut self, name: &str, stage: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(stage));
        let done_at_ms = uptime_ms();
        tracing::debug!("{name} done at {done_at_ms} ms");
        self.done.push(BootStage {
            name: name.to_owned(),
            done_at_ms,
        });
        if result.is_err() {
            tracing::error!("stage '{name}' of the boot failed; going on without it");
        }
        result.ok()
    }
}

/// Milliseconds since the kernel started.
fn uptime_ms() -> u64 {
    lodge_host::system::uptime().map_or(0, |uptime| {
        u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Boots the machine and writes the report.
pub(crate) fn boot() -> Booted {
    let mut stages = Stages::default();
    let mut warnings = Vec::new();
    stages.run("mounts", early);
    let mut loader = Loader::new();
    for problem in loader.make_static_nodes() {
        tracing::warn!("device node: {problem}");
    }
    let mut media = Media::default();
    let uevents = UeventSocket::open()
        .inspect_err(|error| {
            tracing::warn!("devices that are plugged in later will not be noticed: {error}");
        })
        .ok();
    let list = fs::read_to_string(MODULE_LIST).unwrap_or_default();
    stages.run("devices", || {
        let names = listed(&list);
        settle::devices(&mut loader, &names, uevents.as_ref(), || {
            found_everything(&mut media)
        });
    });
    stages.run("late mounts", mounts::efi_variables);
    warnings.extend(stages.run("clock", clock::check).flatten());
    media.refresh();
    let SeedSearch {
        found: seed,
        warnings: more,
    } = stages
        .run("seed", || seed::search(media.found(), &mut loader))
        .unwrap_or_default();
    warnings.extend(more);
    let wanted = seed
        .as_ref()
        .map(|found| found.seed.data.storage)
        .unwrap_or_default();
    let data = stages.run("data", || {
        data::mount_data(media.found(), wanted, &mut loader)
    });
    let data = match data {
        Some(data) => {
            warnings.extend(data.warnings);
            data.storage
        }
        None => DataStorage::Ram {
            reason: "mounting the data volume failed in an unexpected way".to_owned(),
            size: 0,
        },
    };
    stages.run("random seed", random::load);
    let seed_name = seed.as_ref().and_then(|found| found.seed.hostname.clone());
    let hostname = hostname::stored(Path::new(DATA_DIR))
        .or(seed_name)
        .unwrap_or_else(|| HOSTNAME.to_owned());
    settings::hostname(&hostname);
    let kvm = stages
        .run("kvm", kvm::diagnose)
        .unwrap_or_else(no_diagnosis);
    warnings.extend(kvm_warning(&kvm));
    let report = BootReport {
        hostname,
        seed,
        data,
        kvm,
        modules: finish_modules(&loader),
        boot_medium: boot_medium(media.found()),
        firmware: Firmware::detect(),
        warnings,
        stages: stages.done,
    };
    settings::console_level(settings::CONSOLE_BOOT);
    announce(&report);
    if let Err(error) = report.write(Path::new(BOOT_REPORT)) {
        tracing::error!("{BOOT_REPORT}: {error}");
    }
    Booted { loader, uevents }
}

/// Mounts, log, settings: from here on messages are seen.
fn early() {
    let first = mounts::first();
    console::attach();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    log::install(log::detail(&command_line));
    settings::console_level(settings::CONSOLE_BOOT);
    let second = mounts::second();
    settings::apply();
    settings::hostname(HOSTNAME);
    tracing::info!(
        "Lodge {} on Linux {}",
        env!("CARGO_PKG_VERSION"),
        lodge_host::system::kernel_release()
    );
    // The kernel's words about its devices are in the log; the screen is for what a person must know.
    settings::console_level(settings::CONSOLE_WARNINGS);
    for problem in first.iter().chain(&second) {
        tracing::warn!("mount failed: {problem}");
    }
    answer_module_requests();
}

/// Makes this program what the kernel runs when it wants a module.
fn answer_module_requests() {
    let own = std::env::current_exe().unwrap_or_else(|_| "/init".into());
    let _ = fs::create_dir_all("/sbin");
    match std::os::unix::fs::symlink(&own, MODPROBE) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            tracing::warn!("{MODPROBE}: {e}");
        }
        _ => settings::module_requests_to(MODPROBE),
    }
}

/// The names in the list, and the one KVM module that fits.
fn listed(list: &str) -> Vec<&str> {
    let kvm = match kvm::cpu_vendor() {
        CpuVendor::Intel => "kvm_intel",
        CpuVendor::Amd => "kvm_amd",
        CpuVendor::Other => "kvm",
    };
    let names = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    [kvm]
        .into_iter()
        .chain(names)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Seed and data are both there: no disk needs to be waited for.
fn found_everything(media: &mut Media) -> bool {
    media.refresh();
    !data::candidates(media.found()).is_empty() && !with_label(media.found(), SEED_LABEL).is_empty()
}

fn no_diagnosis() -> KvmStatus {
    KvmStatus {
        state: KvmState::Broken,
        message: "Looking for KVM failed in an unexpected way.".to_owned(),
        vendor: kvm::cpu_vendor(),
        hypervisor: None,
        api_version: None,
        nested_paging: None,
    }
}

fn kvm_warning(kvm: &KvmStatus) -> Option<BootWarning> {
    (!kvm.usable()).then(|| BootWarning {
        code: WarningCode::NoKvm,
        message: format!("Guests cannot run: {}", kvm.message),
    })
}

/// What the loader has to report. Drivers whose hardware is not there are no failure, and why KVM did not load the
/// diagnosis says better.
fn finish_modules(loader: &Loader) -> ModuleReport {
    let mut report = loader.report();
    report.failed.retain(|failure| {
        !failure.name.starts_with("kvm") && failure.reason != crate::modules::NO_HARDWARE
    });
    report
}

/// A disk or CD with our label. When it was pulled out, or the kernel came over the network, there is none.
fn boot_medium(media: &[Found]) -> Option<BootMedium> {
    let found = with_label(media, BOOT_LABEL);
    let medium = found
        .iter()
        .find(|f| f.filesystem.kind == FilesystemKind::Iso9660)?;
    Some(BootMedium {
        device: medium.device.path().display().to_string(),
        filesystem: medium.filesystem.kind.name().to_owned(),
    })
}

/// Says on the consoles what a person must know.
fn announce(report: &BootReport) {
    match &report.data {
        DataStorage::Disk { device, filesystem } => {
            tracing::info!("data is on {device} ({filesystem})");
        }
        DataStorage::Ram { .. } => {}
    }
    if let Some(found) = &report.seed {
        tracing::info!("seed read from {}", found.source);
    }
    for failure in &report.modules.failed {
        tracing::warn!("module {}: {}", failure.name, failure.reason);
    }
    for warning in &report.warnings {
        tracing::warn!("{}", warning.message);
    }
    tracing::info!(
        "{} is up after {} ms; {} modules loaded",
        report.hostname,
        uptime_ms(),
        report.modules.loaded
    );
    if report.kvm.usable() {
        tracing::info!("{}", report.kvm.message);
    }
}
