//! A VM's configuration as options of `lodge vm create` and `lodge vm set`.

use clap::Args;
use lodge_api::vm::BootDevice;
use lodge_api::{Name, Size};
use lodge_client::ClientError;
use serde_json::{Map, Value, json};

use super::vm_backup_schedule::BackupPlan;
use super::vm_cloud_init::CloudInit;
use super::vm_limits::{self, CpuLimits};
use super::vm_schedule::Schedule;

/// Configuration as options; what is not given stays (or has its default).
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Free text
    #[arg(long)]
    description: Option<String>,
    /// Virtual CPUs
    #[arg(long, visible_alias = "vcpus")]
    cpus: Option<u8>,
    /// What they can do; on any but host the VM goes on on other hosts that have as much [a new VM's: host]
    #[arg(long, value_parser = ["host", "x86-64-v2", "x86-64-v3", "x86-64-v4"])]
    cpu_model: Option<String>,
    /// Features beyond the model's or less, like +aes,-rdrand
    #[arg(
        long,
        value_name = "FEATURE",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    cpu_features: Option<Vec<String>>,
    /// Sockets [what cores and threads leave, or 1]
    #[arg(long)]
    sockets: Option<u8>,
    /// Cores of a socket [what sockets and threads leave]
    #[arg(long)]
    cores: Option<u8>,
    /// Threads of a core: 1 or 2
    #[arg(long)]
    threads: Option<u8>,
    /// Hyper-V's paravirtual features beside KVM's, for Windows
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    hyperv: Option<bool>,
    #[command(flatten)]
    cpu_limits: CpuLimits,
    /// Memory, like 512MiB
    #[arg(long)]
    memory: Option<Size>,
    /// Firmware: uefi (a new VM's, unless it has a kernel) or bios
    #[arg(long, value_parser = ["uefi", "bios"], conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    firmware: Option<String>,
    /// What the firmware tries, the first first, like cdrom0,disk1 [all disks, CD-ROM drives, NICs]
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    boot_order: Vec<BootDevice>,
    /// Image with a kernel, which starts without firmware
    #[arg(long)]
    kernel: Option<Name>,
    /// Image with the initial RAM disk
    #[arg(long)]
    initrd: Option<Name>,
    /// Kernel command line [a new VM's: console=ttyS0]
    #[arg(long, allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A disk, like data, data:ro (read-only), data:nvme or data:sata (not on virtio), data:iops=500 or data:bandwidth=50MiB (at most so much in a
    /// second); repeat for more
    #[arg(
        long = "disk",
        value_name = "NAME[:ro][:nvme|:sata][:iops=COUNT][:bandwidth=SIZE][:on_error=report]"
    )]
    disks: Vec<String>,
    /// A CD-ROM drive with that disc in it, or - for an empty one; repeat for more
    #[arg(long = "cdrom", value_name = "IMAGE", allow_hyphen_values = true)]
    cdroms: Vec<String>,
    /// A network interface, like lan, lan,52:54:00:12:34:56, lan,e1000e (an Intel card, not virtio), lan,receive=100,transmit=100 (at most so many
    /// Mbit/s), lan,queues=4 (so many pairs of queues, at most one for each virtual CPU) or lan,link=down (with its cable pulled); repeat for more
    #[arg(
        long = "nic",
        value_name = "NETWORK[,MAC][,e1000e][,receive=MBPS][,transmit=MBPS][,queues=COUNT][,link=down]"
    )]
    nics: Vec<String>,
    /// Start it when the host starts
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    autostart: Option<bool>,
    /// What to do when it crashes
    #[arg(long, value_parser = ["stop", "restart"])]
    on_crash: Option<String>,
    /// A watchdog (Intel 6300ESB), and what to do when it expires
    #[arg(long, value_parser = ["none", "reset", "power_off", "pause"])]
    watchdog: Option<String>,
    #[command(flatten)]
    schedule: Schedule,
    #[command(flatten)]
    backups: BackupPlan,
    #[command(flatten)]
    cloud_init: CloudInit,
}

impl Settings {
    /// The fields given, as the API's JSON.
    ///
    /// # Errors
    /// When a file for cloud-init cannot be read.
    pub(super) fn json(&self) -> Result<Map<String, Value>, ClientError> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        set(
            "description",
            self.description.as_ref().map(|text| json!(text)),
        );
        set("vcpus", self.cpus.map(|count| json!(count)));
        set("memory", self.memory.map(|size| json!(size)));
        set("autostart", self.autostart.map(|on| json!(on)));
        set("on_crash", self.on_crash.as_ref().map(|word| json!(word)));
        set("watchdog", self.watchdog.as_ref().map(|word| json!(word)));
        set("disks", non_empty(&self.disks, disk));
        set("cdroms", non_empty(&self.cdroms, cdrom));
        set("nics", non_empty(&self.nics, nic));
        let cpu = self.cpu_json();
        set("cpu", (!cpu.is_empty()).then_some(Value::Object(cpu)));
        let boot = self.boot_json();
        set("boot", (!boot.is_empty()).then_some(Value::Object(boot)));
        set("snapshot_schedule", self.schedule.json());
        set("backup_schedule", self.backups.json());
        set("cloud_init", self.cloud_init.json()?);
        Ok(fields)
    }

    /// For a change of a VM: as `boot`, with nothing of a kernel left where firmware is wanted, nor the other way round.
    pub(super) fn forgotten(&self, boot: Option<Value>) -> Option<(String, Value)> {
        let others: &[&str] = match (&self.firmware, &self.kernel) {
            (Some(_), _) => &["kernel", "initrd", "cmdline"],
            (None, Some(_)) => &["firmware", "order"],
            (None, None) => &[],
        };
        let mut boot = boot?;
        for field in others {
            boot[field] = Value::Null;
        }
        Some(("boot".to_owned(), boot))
    }

    /// What its processors are. Empty features are none.
    fn cpu_json(&self) -> Map<String, Value> {
        let features = self.cpu_features.as_ref().map(|features| {
            let features = features.iter().filter(|feature| !feature.is_empty());
            json!(features.collect::<Vec<_>>())
        });
        let fields = [
            ("model", self.cpu_model.as_ref().map(|model| json!(model))),
            ("features", features),
            ("sockets", self.sockets.map(|count| json!(count))),
            ("cores", self.cores.map(|count| json!(count))),
            ("threads", self.threads.map(|count| json!(count))),
            ("hyperv", self.hyperv.map(|on| json!(on))),
        ];
        let given = fields.into_iter();
        let mut cpu = given
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        self.cpu_limits.add_to(&mut cpu);
        cpu
    }

    /// How it starts.
    fn boot_json(&self) -> Map<String, Value> {
        let mut boot = Map::new();
        let mut set = |name: &str, value: Value| boot.insert(name.to_owned(), value);
        if let Some(firmware) = &self.firmware {
            set("firmware", json!(firmware));
        }
        if !self.boot_order.is_empty() {
            set("order", json!(self.boot_order));
        }
        if let Some(kernel) = &self.kernel {
            set("kernel", json!(kernel));
        }
        if let Some(initrd) = &self.initrd {
            set("initrd", json!(initrd));
        }
        if let Some(cmdline) = &self.cmdline {
            set("cmdline", json!(cmdline));
        }
        boot
    }
}

fn non_empty(items: &[String], convert: fn(&str) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| items.iter().map(|item| convert(item)).collect())
}

pub(super) fn disk(text: &str) -> Value {
    let mut disk = Map::new();
    let mut limits = Map::new();
    let mut name = text;
    // No name has a colon: a word that is none of these is left for the host to refuse.
    while let Some((rest, word)) = name.rsplit_once(':') {
        match (word, vm_limits::disk_word(word)) {
            (_, Some((field, value))) => limits.insert(field.to_owned(), value),
            ("ro", _) => disk.insert("read_only".to_owned(), json!(true)),
            ("on_error=report" | "on_error=pause", _) => {
                let on_error = word.trim_start_matches("on_error=");
                disk.insert("on_error".to_owned(), json!(on_error))
            }
            ("nvme" | "sata" | "virtio", _) => disk.insert("bus".to_owned(), json!(word)),
            _ => break,
        };
        name = rest;
    }
    if !limits.is_empty() {
        disk.insert("limits".to_owned(), Value::Object(limits));
    }
    disk.insert("disk".to_owned(), json!(name));
    Value::Object(disk)
}

fn cdrom(text: &str) -> Value {
    match text {
        "-" => json!({}),
        image => json!({"image": image}),
    }
}

pub(super) fn nic(text: &str) -> Value {
    let mut words = text.split(',');
    let mut nic = Map::new();
    let mut limits = Map::new();
    nic.insert("network".to_owned(), json!(words.next()));
    for word in words {
        if let Some((field, value)) = vm_limits::nic_word(word) {
            limits.insert(field.to_owned(), value);
            continue;
        }
        if let Some(count) = word.strip_prefix("queues=") {
            let count = count
                .parse::<u32>()
                .map_or_else(|_| json!(count), |count| json!(count));
            nic.insert("queues".to_owned(), count);
            continue;
        }
        // What is no model is an address, or left for the host to refuse.
        let (field, value) = match word {
            "e1000e" | "virtio" => ("model", word),
            _ => word
                .split_once('=')
                .filter(|word| word.0 == "link")
                .unwrap_or(("mac", word)),
        };
        nic.insert(field.to_owned(), json!(value));
    }
    if !limits.is_empty() {
        nic.insert("limits".to_owned(), Value::Object(limits));
    }
    Value::Object(nic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_name_and_words_in_any_order() {
        assert_eq!(disk("data"), json!({"disk": "data"}));
        let all = json!({"disk": "data", "read_only": true, "bus": "nvme",
            "limits": {"iops": 500, "bandwidth": "50MiB"}});
        assert_eq!(disk("data:ro:nvme:iops=500:bandwidth=50MiB"), all);
        assert_eq!(disk("data:bandwidth=50MiB:iops=500:nvme:ro"), all);
        assert_eq!(
            disk("data:iops=x"),
            json!({"disk": "data", "limits": {"iops": "x"}})
        );
        assert_eq!(
            disk("data:fast=1"),
            json!({"disk": "data:fast=1"}),
            "for the host to refuse"
        );
    }

    #[test]
    fn a_card_has_an_address_and_a_model_in_any_order() {
        assert_eq!(nic("lan"), json!({"network": "lan"}));
        let all = json!({"network": "lan", "mac": "52:54:00:12:34:56", "model": "e1000e"});
        assert_eq!(nic("lan,52:54:00:12:34:56,e1000e"), all);
        assert_eq!(nic("lan,e1000e,52:54:00:12:34:56"), all);
        let limited = json!({"network": "lan", "limits": {"receive_mbps": 100}, "model": "e1000e"});
        assert_eq!(nic("lan,receive=100,e1000e"), limited);
        let pulled = json!({"network": "lan", "link": "down", "limits": {"transmit_mbps": 1}});
        assert_eq!(nic("lan,link=down,transmit=1"), pulled);
        let several = json!({"network": "lan", "queues": 4, "mac": "52:54:00:12:34:56"});
        assert_eq!(nic("lan,queues=4,52:54:00:12:34:56"), several);
        let wrong = json!({"network": "lan", "queues": "many"});
        assert_eq!(nic("lan,queues=many"), wrong, "for the host to refuse");
        let wrong = json!({"network": "lan", "mac": "ne2000"});
        assert_eq!(nic("lan,ne2000"), wrong, "for the host to refuse");
    }
}
