//! One guest's machine: built, started, held, reset, taken apart.

mod balloon;
mod barrier;
mod boot_source;
mod chipset;
mod disks;
mod display;
mod failure;
mod generation;
mod hardware;
mod nics;
mod nvme;
mod pirq;
mod plug;
mod sata;
mod saved;
mod slots;
mod vsock;
mod watchdog;
mod workshop;

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::{Kvm, VmFd};
use lodge_block::engine::IoError;
use lodge_block::raw::RawDisk;
use lodge_devices::GuestMemory;
use lodge_devices::ahci::CdromHandle;
use lodge_devices::console::Console;
use lodge_devices::event_loop::{EventLoop, LoopHandle};
use lodge_devices::pvpanic::{OnPanic, Panic};
use lodge_devices::virtio::Complain;
use lodge_vmm_proto::{
    CpuConfig, DeviceKey, DiskProblem, DiskStuck, LaunchError, OnReset, WatchdogAction,
};
use uuid::Uuid;
use vm_memory::GuestMemoryBackend;

use crate::boot::{DirectBoot, Loaded};
use crate::complaints::Complaints;
use crate::firmware::FirmwareBoot;
use crate::interrupt::Interrupts;
use crate::kvm::{self, ChipsetState};
use crate::memory;
use crate::power::Power;
use crate::saved::{Pagemap, SavedMachine};
use crate::vcpu::{self, CpuidTemplate, Gate, Vcpu};
use boot_source::{BootSource, Content, Identity, Prepared};
pub use chipset::Chipset;
pub use disks::{Disk, DiskUse};
pub use display::{Display, PointError, ScreenError};
pub use failure::Failure;
pub use hardware::Prologue;
use hardware::{Hardware, OnStuck, SetUpBy, Surroundings};
pub use nics::Nic;
pub use plug::{Refusal, open_image};
pub use vsock::Vsock;
use workshop::Workshop;

/// How long vCPUs may take to come to the gate. A device that finishes a request to
/// slow storage can hold one up.
const PARK_LIMIT: Duration = Duration::from_secs(30);

/// How long the device loop may take to get to the guest's last output. On a busy host it waits for its turn.
const CONSOLE_LIMIT: Duration = Duration::from_secs(10);

/// The window for 64-bit PCI BARs is this long, and aligned so.
const HIGH_WINDOW: u64 = 32 << 30;

/// What a guest starts with.
pub enum Boot {
    /// A kernel and its companions.
    Direct(DirectBoot),
    /// Firmware, which finds the rest by itself.
    Firmware(FirmwareBoot),
}

/// What a machine is built from.
pub struct Parts {
    /// Checked by [`kvm::open`].
    pub kvm: Kvm,
    /// SMBIOS system UUID.
    pub id: Uuid,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// What they are.
    pub cpu: CpuConfig,
    /// Guest memory in bytes.
    pub memory: u64,
    /// What it starts with.
    pub boot: Boot,
    /// Disks in slot order.
    pub disks: Vec<Disk>,
    /// CD-ROM drives, with the discs in them.
    pub cdroms: Vec<Option<RawDisk>>,
    /// Network interfaces in slot order.
    pub nics: Vec<Nic>,
    /// Sockets between guest and host.
    pub vsock: Option<Vsock>,
    /// What comes of the guest's wish for a reset.
    pub on_reset: OnReset,
    /// A watchdog, and what comes of its expiry.
    pub watchdog: Option<WatchdogAction>,
    /// The state to begin with, instead of power-on.
    pub saved: Option<Saved>,
    /// Which pages of this process were touched.
    pub pagemap: Pagemap,
    /// Run first on each kind of thread.
    pub prologues: Prologues,
}

/// A machine's state and memory, of [`crate::saved`].
pub struct Saved {
    /// All but the memory.
    pub state: SavedMachine,
    /// The memory, opened for reading.
    pub memory: File,
}

/// What the machine's threads do before anything else: lock themselves in.
#[derive(Clone)]
pub struct Prologues {
    /// vCPU threads.
    pub vcpu: Prologue,
    /// The thread of slow devices.
    pub event_loop: Prologue,
    /// Threads of device queues.
    pub queue: Prologue,
    /// The thread that shows the screen to viewers.
    pub viewers: Prologue,
    /// The thread that builds devices while the guest runs.
    pub workshop: Prologue,
}

/// A machine. Built with its vCPUs held at the entry point.
pub struct Machine {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    chipset: ChipsetState,
    vcpus: Vec<Arc<Mutex<Vcpu>>>,
    threads: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
    power: Arc<Power>,
    complaints: Arc<Complaints>,
    hardware: Hardware,
    workshop: Workshop,
    events: LoopHandle,
    event_thread: Option<JoinHandle<std::io::Result<()>>>,
    boot: BootSource,
    id: Uuid,
    cpuid: CpuidTemplate,
    /// Guest memory that is a view of files until it is written to.
    mapped: Vec<Range<u64>>,
    pagemap: Pagemap,
}

impl Machine {
    /// Builds a machine and loads its kernel. Nothing runs yet but the machine's own threads.
    ///
    /// # Errors
    /// [`Failure`] with what is wrong.
    pub fn build(parts: Parts) -> Result<Self, Failure> {
        let memory = match &parts.saved {
            Some(saved) => memory::map_saved(parts.memory, &saved.memory)?,
            None => memory::reserve(parts.memory)?,
        };
        let content = if parts.saved.is_some() {
            Content::Saved
        } else {
            Content::Fresh
        };
        let template = saved::cpuid(&parts)?;
        let high_window = high_window(&memory, template.physical_address_bits());
        let identity = Identity {
            id: parts.id,
            apic_ids: template.apic_ids(),
            high_window: high_window.clone(),
        };
        let set_up_by = match parts.boot {
            Boot::Direct(_) => SetUpBy::Monitor,
            Boot::Firmware(_) => SetUpBy::Firmware,
        };
        let prepared = Prepared::new(parts.boot, &identity, &memory, content)?;

        let vm = Arc::new(create_vm(&parts.kvm, &memory)?);
        let interrupts = Interrupts::new(Arc::clone(&vm))?;
        let vcpus = Vcpu::create_all(&parts.kvm, &vm, &template)?;
        let chipset = ChipsetState::save(&vm)?;
        let gate = Arc::new(Gate::new());
        let power = Arc::new(Power::new(Arc::clone(&gate), parts.on_reset)?);
        let complaints = Arc::new(Complaints::new()?);
        let event_loop = EventLoop::new()?;
        let events = event_loop.handle();
        let mut hardware = Hardware::new(Surroundings {
            memory: memory.clone(),
            interrupts,
            power: Arc::clone(&power),
            events: events.clone(),
            complain: complain_to(&complaints),
            on_panic: panics_to(&complaints),
            on_stuck: stuck_to(&complaints, &power),
            queue_prologue: Arc::clone(&parts.prologues.queue),
            viewers_prologue: Arc::clone(&parts.prologues.viewers),
            high_window,
            set_up_by,
        })?;
        let saved = parts.saved.as_ref().map(|saved| &saved.state.devices);
        if let Some(vsock) = vsock::wanted(parts.vsock, saved)? {
            hardware.add_vsock(vsock)?;
        }
        if let Some(action) = parts.watchdog {
            hardware.add_watchdog(watchdog::expires_to(action, &power, &complaints))?;
        }
        let layout = parts.saved.as_ref().map(|saved| saved.state.layout.clone());
        let layout = layout.unwrap_or_default();
        let [disks, nics] = layout.places(parts.disks.len(), parts.nics.len());
        for (disk, place) in parts.disks.into_iter().zip(&disks) {
            hardware.add_disk(disk, u16::from(parts.vcpus), place.as_ref())?;
        }
        for disc in parts.cdroms {
            hardware.add_cdrom(disc)?;
        }
        hardware.finish_sata()?;
        for (nic, place) in parts.nics.into_iter().zip(&nics) {
            hardware.add_nic(nic, place.as_ref(), parts.saved.is_some())?;
        }
        hardware.add_tablet()?;
        hardware.add_generation_id(&vm)?;
        hardware.assign_addresses()?;
        hardware.lay_in_rings();
        let (boot, loaded) = prepared.finish(&identity, &vm, &memory, content, &mut hardware)?;
        let prologue = parts.prologues.event_loop;
        let event_thread = event_loop.spawn("devices", move || prologue())?;
        let mut machine = Self {
            vm,
            memory,
            chipset,
            vcpus: vcpus
                .into_iter()
                .map(|vcpu| Arc::new(Mutex::new(vcpu)))
                .collect(),
            threads: Vec::new(),
            gate,
            power,
            complaints,
            hardware,
            workshop: Workshop::open(parts.prologues.workshop)?,
            events,
            event_thread: Some(event_thread),
            boot,
            id: parts.id,
            cpuid: template,
            mapped: Vec::new(),
            pagemap: parts.pagemap,
        };
        match parts.saved {
            Some(saved) => machine.restore(saved.state)?,
            None => machine.begin(loaded)?,
        }
        machine.start_threads(&parts.prologues.vcpu)?;
        Ok(machine)
    }

    /// Lets the vCPUs run.
    pub fn run(&self) {
        self.gate.open();
    }

    /// Holds all vCPUs.
    ///
    /// # Errors
    /// When they do not come; the machine is then beyond help.
    pub fn hold(&self) -> Result<(), vcpu::Stuck> {
        self.gate.close();
        self.gate.wait_parked(self.vcpus.len(), PARK_LIMIT)
    }

    /// Brings the devices to rest. vCPUs are held.
    pub fn pause_devices(&mut self) {
        self.hardware.devices.pause();
    }

    /// Starts the devices again. vCPUs are held.
    pub fn resume_devices(&mut self) {
        for vcpu in &self.vcpus {
            vcpu.lock().unwrap().excuse_lost_time();
        }
        self.hardware.devices.resume();
    }

    /// Puts everything back to power-on, with fresh memory and the kernel loaded
    /// again. vCPUs are held, and stay so. Consoles and disks keep what they have; devices that the guest was asked
    /// to give up are gone, and returned.
    ///
    /// # Errors
    /// When the host takes back what it gave before; the machine is then beyond help.
    pub fn reset(&mut self) -> Result<Vec<DeviceKey>, Failure> {
        let gone = self.take_leaving();
        self.hardware.devices.reset();
        self.hardware.buses.memory.forget_ghosts();
        self.forget_memory()?;
        let loaded = self.boot.load(&self.memory)?;
        self.chipset.restore(&self.vm)?;
        self.begin(Some(loaded))?;
        self.hardware.assign_addresses()?;
        Ok(gone)
    }

    /// Presses and releases the power button.
    pub fn press_power_button(&self) {
        self.hardware.pm.lock().unwrap().press_power_button();
    }

    /// Where wishes of the guest arrive.
    pub fn power(&self) -> &Arc<Power> {
        &self.power
    }

    /// Where devices' complaints arrive.
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// The serial console.
    pub fn com1(&self) -> &Arc<Console> {
        &self.hardware.com1
    }

    /// The virtio console.
    pub fn virtio_console(&self) -> &Arc<Console> {
        &self.hardware.console
    }

    /// Screen and keyboard, if it has them.
    pub fn display(&self) -> Option<&Display> {
        self.hardware.display.as_ref()
    }

    /// CPU time of all vCPUs.
    pub fn cpu_time(&self) -> Duration {
        self.gate.cpu_time()
    }

    /// What was done with all disks, those that are out included.
    pub fn disk_use(&self) -> DiskUse {
        self.hardware.disk_use()
    }

    /// A CD-ROM drive, by its number.
    pub fn cdrom(&self, number: u8) -> Option<&CdromHandle> {
        self.hardware.sata.cdroms.get(usize::from(number))
    }

    /// Ends all vCPUs and brings the devices to rest, so that what the guest has
    /// written is with the host.
    ///
    /// # Errors
    /// When the vCPUs do not end. Devices are left alone then.
    pub fn dismantle(&mut self) -> Result<(), vcpu::Stuck> {
        self.gate.dismiss(PARK_LIMIT)?;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU thread panicked");
            }
        }
        self.hardware.devices.pause();
        // What the guest said last still goes to whoever listens.
        barrier::wait(&self.events, CONSOLE_LIMIT);
        self.events.stop();
        if let Some(thread) = self.event_thread.take() {
            let _ = thread.join();
        }
        Ok(())
    }

    /// Puts all vCPUs to where a guest begins that was loaded so.
    fn begin(&mut self, loaded: Option<Loaded>) -> Result<(), Failure> {
        let Some(Loaded { entry, mapped }) = loaded else {
            return Err(Failure::new(LaunchError::Internal, "nothing to begin with"));
        };
        self.mapped = mapped.into_iter().collect();
        for vcpu in &self.vcpus {
            vcpu.lock().unwrap().reset(entry)?;
        }
        Ok(())
    }

    fn start_threads(&mut self, prologue: &Prologue) -> Result<(), Failure> {
        for vcpu in &self.vcpus {
            let power = Arc::clone(&self.power);
            let prologue = Arc::clone(prologue);
            self.threads.push(vcpu::spawn(
                vcpu,
                &self.gate,
                &self.hardware.buses,
                move || prologue(),
                Arc::new(move |reason, message| power.end(reason, message)),
            )?);
        }
        self.gate
            .wait_parked(self.vcpus.len(), PARK_LIMIT)
            .map_err(Failure::doing(LaunchError::Internal, "vCPU threads"))
    }
}

fn complain_to(complaints: &Arc<Complaints>) -> Complain {
    let complaints = Arc::clone(complaints);
    Arc::new(move |device, message| complaints.add(device, message))
}

fn stuck_to(complaints: &Arc<Complaints>, power: &Arc<Power>) -> OnStuck {
    let (complaints, power) = (Arc::clone(complaints), Arc::clone(power));
    Arc::new(move |serial, error| {
        complaints.stuck(DiskStuck {
            serial: serial.to_owned(),
            problem: match error {
                IoError::NoSpace => DiskProblem::NoSpace,
                IoError::EndOfFile | IoError::Host(_) => DiskProblem::IoError,
            },
            message: error.to_string(),
        });
        power.pause();
    })
}

fn panics_to(complaints: &Arc<Complaints>) -> OnPanic {
    let complaints = Arc::clone(complaints);
    Arc::new(move |panic| complaints.panicked(panic == Panic::CrashKernel))
}

#[allow(unsafe_code)]
fn create_vm(kvm: &Kvm, memory: &GuestMemory) -> Result<VmFd, Failure> {
    let vm = kvm::create_machine(kvm)?;
    // SAFETY: devices and `Machine` keep `memory` for the life of the process:
    // a monitor ends with its guest.
    unsafe { kvm::set_memory(&vm, memory) }?;
    Ok(vm)
}

/// Above all memory, if the guest can address it at all.
fn high_window(memory: &GuestMemory, address_bits: u32) -> Range<u64> {
    let start = memory.last_addr().0.next_multiple_of(HIGH_WINDOW);
    let limit = 1_u64.checked_shl(address_bits.min(52)).unwrap_or(u64::MAX);
    match start.checked_add(HIGH_WINDOW) {
        Some(end) if end <= limit => start..end,
        _ => 0..0,
    }
}
