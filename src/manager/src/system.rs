//! The host as the API shows it, and its power.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use lodge_api::operation::Operation;
use lodge_api::system::{
    BlockDevice, Hardware, KvmState, Link, System, SystemAction, Usage, Versions,
};
use lodge_api::{ErrorCode, Problem, Size};
use lodge_host::boot::BootReport;
use lodge_host::disk;
use lodge_host::kvm::{CpuVendor, KvmStatus};
use lodge_host::net::HostNetwork;
use lodge_host::power::{InitLink, InitNotice, InitRequest, PowerAction};
use lodge_host::system::{Cpu, CpuTimes, Dmi, Firmware, Load, Memory};
use tokio::sync::watch;

use crate::catalogue::HOST;
use crate::core::{Core, internal};
use crate::vms::VmRecord;
use crate::{Caller, Manager, update};

/// Where the server listens, for `System::urls` and its fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// TCP port.
    pub port: u16,
    /// The one address listened on; `None` for all.
    pub address: Option<IpAddr>,
    /// SHA-256 fingerprint of the certificate: upper-case pairs joined by colons.
    pub certificate_fingerprint: String,
}

/// What is known of the machine, and what does not change while it runs.
#[derive(Debug)]
pub(crate) struct HostView {
    pub(crate) kvm: KvmStatus,
    pub(crate) booted_at: Timestamp,
    cpu: Cpu,
    dmi: Dmi,
    endpoint: RwLock<Endpoint>,
    load: Mutex<CpuSample>,
}

#[derive(Debug, Default)]
struct CpuSample {
    times: CpuTimes,
    percent: f64,
}

impl HostView {
    pub(crate) fn read(boot: Option<&BootReport>) -> Self {
        let now = Timestamp::now();
        let uptime = lodge_host::system::uptime().unwrap_or_default();
        let uptime = SignedDuration::try_from(uptime).unwrap_or_default();
        Self {
            kvm: boot.map_or_else(lodge_host::kvm::diagnose, |boot| boot.kvm.clone()),
            booted_at: now.checked_sub(uptime).unwrap_or(now),
            cpu: Cpu::read().unwrap_or_default(),
            dmi: Dmi::read(),
            endpoint: RwLock::default(),
            load: Mutex::default(),
        }
    }

    /// Measures processor time since the last call; to be called every second or so.
    pub(crate) fn sample_cpu(&self) {
        let Ok(times) = CpuTimes::read() else { return };
        let mut sample = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        let busy =
            |times: &CpuTimes| times.user_ms + times.system_ms + times.guest_ms + times.steal_ms;
        let used = busy(&times).saturating_sub(busy(&sample.times));
        let idle = times.idle_ms.saturating_sub(sample.times.idle_ms);
        if used + idle > 0 {
            // Milliseconds of a second or so: exact in a double.
            sample.percent = used as f64 * 100.0 / (used + idle) as f64;
        }
        sample.times = times;
    }

    pub(crate) fn cpu_percent(&self) -> f64 {
        self.load
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .percent
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn kvm_state(&self) -> KvmState {
        let kvm = &self.kvm;
        KvmState {
            usable: kvm.usable(),
            reason: (!kvm.usable()).then(|| kvm.message.clone()),
            extension: kvm.usable().then_some(()).and_then(|()| {
                Some(match kvm.vendor {
                    CpuVendor::Intel => "vmx".to_owned(),
                    CpuVendor::Amd => "svm".to_owned(),
                    CpuVendor::Other => return None,
                })
            }),
            nested: kvm.hypervisor.is_some(),
        }
    }

    fn hardware(&self, boot: Option<&BootReport>, memory: u64) -> Hardware {
        let firmware = boot.map_or_else(Firmware::detect, |boot| boot.firmware);
        let unknown = || "unknown".to_owned();
        Hardware {
            vendor: self.dmi.vendor.clone().unwrap_or_else(unknown),
            product: self.dmi.product.clone().unwrap_or_else(unknown),
            firmware: match firmware {
                Firmware::Bios => "bios",
                Firmware::Uefi => "uefi",
            }
            .to_owned(),
            cpu_model: self.cpu.model.clone(),
            sockets: self.cpu.sockets,
            cores: self.cpu.cores,
            threads: self.cpu.threads,
            memory: Size(memory),
            block_devices: block_devices(),
        }
    }
}

fn block_devices() -> Vec<BlockDevice> {
    let devices = disk::block_devices().unwrap_or_default();
    devices
        .into_iter()
        .filter(|device| device.parent.is_none())
        .map(|device| BlockDevice {
            name: device.name,
            model: device.model.unwrap_or_default(),
            size: Size(device.size),
            rotational: device.rotational,
            removable: device.removable,
        })
        .collect()
}

impl Core {
    pub(crate) fn links(&self) -> Vec<Link> {
        let Some(network) = &self.network else {
            return own_links();
        };
        let state = network.state();
        let addresses = |ip: &lodge_host::net::state::IpState| {
            let addresses = ip.addresses.iter();
            addresses
                .map(|address| address.address.to_string())
                .collect::<Vec<_>>()
        };
        let bridge_addresses = |name: &Option<String>| {
            let network = name.as_ref().and_then(|name| state.network(name));
            network.map_or_else(Vec::new, |network| addresses(&network.ip))
        };
        state
            .links
            .iter()
            .map(|link| Link {
                mac: link.mac.to_string(),
                name: link.name.clone(),
                driver: link.driver.clone().unwrap_or_default(),
                carrier: link.carrier,
                speed_mbps: link.speed_mbps,
                network: link.network.clone(),
                // Of an uplink they are on its bridge.
                addresses: [addresses(&link.ip), bridge_addresses(&link.network)].concat(),
            })
            .collect()
    }

    /// Addresses under which others can reach this host.
    pub(crate) fn reachable(&self) -> Vec<IpAddr> {
        if let Some(network) = &self.network {
            let addresses = network.state().reachable_addresses();
            if !addresses.is_empty() || self.config.appliance {
                return addresses;
            }
        }
        let links = own_links();
        let addresses = links.iter().flat_map(|link| &link.addresses);
        addresses
            .filter_map(|address| address.split('/').next()?.parse::<IpAddr>().ok())
            .filter(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
            })
            .collect()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.start_warnings.clone();
        if let Some(boot) = &self.boot {
            warnings.extend(boot.warnings.iter().map(|warning| warning.message.clone()));
        } else if !self.host.kvm.usable() {
            warnings.push(format!("Guests cannot run: {}", self.host.kvm.message));
        }
        warnings.extend(self.storage_warning());
        warnings.extend(self.nvme_warnings());
        warnings.extend(self.datastore_warnings());
        warnings.extend(self.disk_warnings.borrow().iter().cloned());
        warnings.extend(self.backups.warnings());
        let network = self.network.as_ref().map(HostNetwork::state);
        for warning in network.iter().flat_map(|state| &state.warnings) {
            warnings.push(format!(
                "{}: {} ({})",
                warning.subject, warning.message, warning.hint
            ));
        }
        warnings
    }
}

/// Addresses of a host whose network is not ours, by link.
fn own_links() -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else {
        return links;
    };
    for entry in addresses {
        let at = match links
            .iter()
            .position(|link| link.name == entry.interface_name)
        {
            Some(at) => at,
            None => {
                links.push(Link {
                    mac: String::new(),
                    name: entry.interface_name.clone(),
                    driver: String::new(),
                    carrier: entry
                        .flags
                        .contains(nix::net::if_::InterfaceFlags::IFF_RUNNING),
                    speed_mbps: None,
                    network: None,
                    addresses: Vec::new(),
                });
                links.len() - 1
            }
        };
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            let pairs: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            links[at].mac = pairs.join(":");
        }
        let ip = address
            .as_sockaddr_in()
            .map(|v4| IpAddr::from(v4.ip()))
            .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())));
        if let Some(ip) = ip {
            let prefix = entry.netmask.as_ref().and_then(prefix_length);
            let full = if ip.is_ipv4() { 32 } else { 128 };
            links[at]
                .addresses
                .push(format!("{ip}/{}", prefix.unwrap_or(full)));
        }
    }
    links.retain(|link| link.name != "lo");
    links
}

fn prefix_length(mask: &nix::sys::socket::SockaddrStorage) -> Option<u32> {
    if let Some(v4) = mask.as_sockaddr_in() {
        return Some(u32::from(v4.ip()).leading_ones());
    }
    mask.as_sockaddr_in6()
        .map(|v6| u128::from(v6.ip()).leading_ones())
}

impl Manager {
    /// Tells where the server listens. Call it whenever that changes.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        let host = &self.core.host;
        *host
            .endpoint
            .write()
            .unwrap_or_else(PoisonError::into_inner) = endpoint;
        self.core.console_changed();
    }

    /// `GET /v1/system`.
    pub fn system(&self) -> System {
        let core = &self.core;
        let memory = Memory::read().unwrap_or_default();
        let load = Load::read().unwrap_or_default();
        System {
            hostname: self.hostname(),
            versions: Versions {
                lodge: env!("CARGO_PKG_VERSION").to_owned(),
                api: lodge_api::ROOT.trim_start_matches('/').to_owned(),
                kernel: lodge_host::system::kernel_release(),
            },
            kvm: core.host.kvm_state(),
            hardware: core.host.hardware(core.boot.as_ref(), memory.total),
            controls: core.controls(),
            usage: Usage {
                cpu_percent: core.host.cpu_percent(),
                load: [load.one, load.five, load.fifteen],
                memory_used: Size(memory.total.saturating_sub(memory.available)),
                vms_running: core.vms.active(),
                vms_total: u32::try_from(core.snapshot().count::<VmRecord>()).unwrap_or(u32::MAX),
            },
            storage: core.storage(),
            links: core.links(),
            urls: self.urls(),
            certificate_fingerprint: core.host.endpoint().certificate_fingerprint,
            update_keys: update::keys::trusted(&core.snapshot()),
            nvme_nqn: core.nvme_nqn(),
            warnings: core.warnings(),
            started_at: core.host.booted_at,
            now: Timestamp::now(),
        }
    }

    /// What an administrator should know, most important first.
    pub fn warnings(&self) -> Vec<String> {
        self.core.warnings()
    }

    /// Where the API is reached, by [`Endpoint`] and the host's addresses.
    pub fn urls(&self) -> Vec<String> {
        let endpoint = self.core.host.endpoint();
        let addresses = match endpoint.address {
            Some(address) => vec![address],
            None => self.core.reachable(),
        };
        let port = match endpoint.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        addresses
            .into_iter()
            .map(|address| match address {
                IpAddr::V4(v4) => format!("https://{v4}{port}"),
                IpAddr::V6(v6) => format!("https://[{v6}]{port}"),
            })
            .collect()
    }

    /// Changes whenever `hostname`, `warnings`, `urls`, `addresses` or `initial_password` may have changed.
    pub fn watch_console(&self) -> watch::Receiver<u64> {
        self.core.console.subscribe()
    }

    /// The random administrator's password of the first boot, while it is in force.
    pub fn initial_password(&self) -> Option<String> {
        self.core.initial_password.get()
    }

    /// Powers the host off or restarts it; guests are asked to power off first.
    ///
    /// # Errors
    /// `WrongState` when hosted: the host's power is not ours.
    pub async fn system_action(
        &self,
        caller: &Caller,
        action: SystemAction,
    ) -> Result<Operation, Problem> {
        let core = &self.core;
        if !core.config.appliance {
            return Err(Problem::new(
                ErrorCode::WrongState,
                "this server runs on an ordinary Linux host, whose power it does not control",
            )
            .with_hint("use the host's own commands"));
        }
        // Not where only the restart of an update is awaited: this is it, or does no harm to it.
        if core.restarting.load(Ordering::SeqCst) {
            core.require_up()?;
        } else {
            core.require_settled()?;
        }
        let (kind, action) = match action {
            SystemAction::Shutdown => ("system_shutdown", PowerAction::Off),
            SystemAction::Reboot => ("system_reboot", PowerAction::Reboot),
        };
        caller.audit(kind, HOST);
        let socket = core.config.run_dir.join("init.sock");
        core.start_operation(
            caller,
            kind,
            HOST.to_owned(),
            false,
            move |handle| async move {
                let failed = |error| internal(format!("init cannot be told: {error}"));
                let mut link = InitLink::connect(&socket).await.map_err(failed)?;
                let request = InitRequest::Power { action };
                link.sender.send(&request).await.map_err(failed)?;
                match link.receiver.next().await.map_err(failed)? {
                    Some(InitNotice::Refused { message }) => {
                        Err(internal(format!("init refused: {message}")))
                    }
                    _ => {
                        handle.log("init powers the guests off, then the host");
                        Ok(())
                    }
                }
            },
        )
        .await
    }
}
