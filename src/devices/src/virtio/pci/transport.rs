//! One virtio device on the PCI bus: what it is made of, its BAR, and starting and stopping the device.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use nix::sys::eventfd::{EfdFlags, EventFd as NixEventFd};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::capability::{self, Window};
use super::common::Registers;
use super::doorbell::Doorbells;
use super::events::{Events, QueueVector};
use super::status::{self, DRIVER_OK, FEATURES_OK, NEEDS_RESET, Step};
use super::{
    BAR, BAR_BYTES, COMMON, DEVICE, ISR, MAX_QUEUES, MSIX_PENDING, MSIX_TABLE, NOTIFY,
    NOTIFY_STRIDE, PAGE,
};
use crate::GuestMemory;
use crate::bus::{Bus, BusDevice};
use crate::interrupt::Platform;
use crate::pci::{BarKind, Bars, ConfigSpace, Header, Msix};
use crate::virtio::{Activation, ActiveQueue, Complain, DeviceEvents, VirtioDevice};

/// Virtio's PCI vendor.
const VENDOR: u16 = 0x1af4;
/// PCI device ID of virtio device type 0; modern devices add their type.
const DEVICE_BASE: u16 = 0x1040;
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const INDIRECT: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What a virtio PCI function is built from.
pub struct VirtioPciOptions {
    /// Unique name in the machine, e.g. `disk0`.
    pub name: String,
    /// The device behind the transport.
    pub device: Box<dyn VirtioDevice>,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Interrupts and doorbells.
    pub platform: Arc<dyn Platform>,
    /// Where the BAR answers.
    pub memory_bus: Arc<Bus>,
    /// Who hears what goes wrong.
    pub complain: Complain,
}

/// A virtio device with its PCI transport.
pub struct VirtioPci {
    pub(super) name: String,
    pub(super) device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    pub(super) config: ConfigSpace,
    pub(super) bars: Bars,
    pub(super) window: Window,
    pub(super) msix_capability: usize,
    pub(super) events: Arc<Events>,
    pub(super) offered: u64,
    pub(super) max_sizes: Vec<u16>,
    pub(super) registers: Registers,
    kicks: Vec<EventFd>,
    nowhere: Arc<NixEventFd>,
    doorbells: Doorbells,
    /// The driver is set up and the device took it.
    pub(super) active: bool,
    /// The device has the queues: active and not paused.
    serving: bool,
    pub(super) paused: bool,
}

impl VirtioPci {
    /// Builds the function. It goes on the bus by [`PciRoot::add`](crate::pci::PciRoot::add).
    ///
    /// # Errors
    /// When the platform has no more interrupts, the process no more descriptors, or the
    /// device has more queues than fit.
    pub fn new(options: VirtioPciOptions) -> io::Result<Arc<Mutex<Self>>> {
        let VirtioPciOptions {
            name,
            device,
            memory,
            platform,
            memory_bus,
            complain,
        } = options;
        let max_sizes = device.queue_sizes().to_vec();
        if max_sizes.len() > MAX_QUEUES {
            return Err(io::Error::other(format!("{} queues", max_sizes.len())));
        }
        // One for each queue and one for configuration changes.
        let msix = Msix::new(&*platform, max_sizes.len() as u16 + 1)?;
        let mut config = header(&*device);
        let msix_capability =
            msix.add_capability(&mut config, BAR, MSIX_TABLE as u32, MSIX_PENDING as u32);
        let window = capability::add_all(&mut config);
        let kick = |_: &u16| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let kicks = max_sizes.iter().map(kick).collect::<io::Result<_>>()?;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let function = Self {
            offered: device.features() | VERSION_1 | EVENT_IDX | INDIRECT,
            registers: Registers::new(&max_sizes),
            events: Arc::new(Events::new(name.clone(), msix, complain)),
            doorbells: Doorbells::new(platform),
            nowhere: Arc::new(NixEventFd::from_value_and_flags(0, flags)?),
            bars: Bars::new(&memory_bus),
            active: false,
            serving: false,
            paused: false,
            name,
            device,
            memory,
            config,
            window,
            msix_capability,
            max_sizes,
            kicks,
        };
        let function = Arc::new(Mutex::new(function));
        let weak = Arc::downgrade(&function);
        function.lock().unwrap().attach_bar(weak)?;
        Ok(function)
    }

    fn attach_bar(&mut self, myself: Weak<Mutex<Self>>) -> io::Result<()> {
        self.bars
            .add(
                &mut self.config,
                BAR.into(),
                BAR_BYTES,
                BarKind::Memory64,
                myself,
            )
            .map_err(io::Error::other)
    }

    pub(super) fn status(&self) -> u8 {
        self.events.status.load(Ordering::SeqCst)
    }

    pub(super) fn write_status(&mut self, value: u8) {
        match status::judge(self.status(), value) {
            Step::Reset => self.reset_device(),
            Step::Add(added) => self.add_status(added),
            Step::Ignore => {
                tracing::debug!(
                    device = self.name,
                    current = self.status(),
                    value,
                    "driver breaks the order of initialisation; ignored"
                );
            }
        }
    }

    fn add_status(&mut self, mut added: u8) {
        if added & FEATURES_OK != 0 && !self.features_acceptable() {
            added &= !FEATURES_OK;
        }
        self.events.status.fetch_or(added, Ordering::SeqCst);
        if added & DRIVER_OK != 0 {
            // A device that broke off must first be reset.
            if self.status() & NEEDS_RESET == 0 {
                self.active = self.start();
            }
            self.place_doorbells();
        }
    }

    fn features_acceptable(&self) -> bool {
        let accepted = self.registers.driver_features;
        accepted & !self.offered == 0 && accepted & VERSION_1 != 0
    }

    /// Hands the queues to the device; tells whether it took them.
    fn start(&mut self) -> bool {
        let activation = match self.activation() {
            Ok(activation) => activation,
            Err(why) => {
                self.events.needs_reset(&why);
                return false;
            }
        };
        if let Err(error) = self.device.activate(activation) {
            self.events.needs_reset(&error.to_string());
            return false;
        }
        self.serving = true;
        // The driver may have filled a queue before the device could hear of it.
        for (kick, queue) in self.kicks.iter().zip(&self.registers.queues) {
            if queue.enabled {
                // A full counter rings just as well.
                let _ = kick.write(1);
            }
        }
        true
    }

    fn activation(&self) -> Result<Activation, String> {
        let features = self.registers.driver_features;
        let mut queues = Vec::with_capacity(self.kicks.len());
        let each = self
            .registers
            .queues
            .iter()
            .zip(&self.max_sizes)
            .zip(&self.kicks);
        for (number, ((registers, &max_size), kick)) in each.enumerate() {
            let queue = registers
                .build(max_size, features & EVENT_IDX != 0, &self.memory)
                .map_err(|problem| format!("queue {number}: {problem}"))?;
            let interrupt = QueueVector {
                events: Arc::clone(&self.events),
                vector: registers.vector,
                nowhere: Arc::clone(&self.nowhere),
            };
            queues.push(ActiveQueue {
                queue,
                unfinished: registers.unfinished.clone(),
                kick: kick.try_clone().map_err(|error| error.to_string())?,
                interrupt: Arc::new(interrupt),
            });
        }
        Ok(Activation {
            memory: self.memory.clone(),
            features,
            queues,
            events: Arc::clone(&self.events) as _,
        })
    }

    /// Takes the queues back, if the device has them.
    fn stop(&mut self) {
        if !std::mem::take(&mut self.serving) {
            return;
        }
        let queues = self.device.deactivate();
        let mut unfinished = self.device.take_unfinished().into_iter();
        for (registers, queue) in self.registers.queues.iter_mut().zip(&queues) {
            registers.came_to_rest(queue, unfinished.next().unwrap_or_default());
        }
    }

    pub(super) fn reset_device(&mut self) {
        self.stop();
        self.device.reset();
        self.active = false;
        self.place_doorbells();
        for kick in &self.kicks {
            // Empties the counter; it may be empty already.
            let _ = kick.read();
        }
        self.events.reset();
        self.registers = Registers::new(&self.max_sizes);
    }

    pub(super) fn pause_device(&mut self) {
        self.paused = true;
        self.stop();
    }

    pub(super) fn resume_device(&mut self) {
        self.paused = false;
        // A device that broke off must first be reset.
        let broken = self.status() & NEEDS_RESET != 0;
        if self.active && !self.serving && !broken {
            self.active = self.start();
            self.place_doorbells();
        }
    }

    /// Doorbells ring only for a device that listens.
    pub(super) fn place_doorbells(&mut self) {
        let base = self.bars.mapped(BAR.into()).filter(|_| self.active);
        self.doorbells.place(base, &self.kicks);
    }

    fn ring(&self, offset: u64) {
        let queue = usize::try_from(offset / NOTIFY_STRIDE).unwrap_or(usize::MAX);
        if let Some(kick) = self.kicks.get(queue).filter(|_| self.active) {
            let _ = kick.write(1);
        }
    }

    pub(super) fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let within = offset % PAGE;
        match offset - within {
            COMMON => self.read_common(within, data),
            ISR if within == 0 => data[0] = self.events.isr.swap(0, Ordering::SeqCst),
            DEVICE => self.device.read_config(within, data),
            MSIX_TABLE => self.events.msix.read_table(within, data),
            MSIX_PENDING => self.events.msix.read_pending(within, data),
            _ => {}
        }
    }

    pub(super) fn bar_write(&mut self, offset: u64, data: &[u8]) {
        let within = offset % PAGE;
        match offset - within {
            COMMON => self.write_common(within, data),
            DEVICE => self.device.write_config(within, data),
            NOTIFY => self.ring(within),
            MSIX_TABLE => self.events.msix.write_table(within, data),
            _ => {}
        }
    }
}

fn header(device: &dyn VirtioDevice) -> ConfigSpace {
    let kind = device.device_type();
    ConfigSpace::new(&Header {
        vendor: VENDOR,
        device: DEVICE_BASE + kind,
        // 1 or higher says that there is no legacy interface (virtio 1.2, 4.1.2.1).
        revision: 1,
        class: device.pci_class(),
        subsystem_vendor: VENDOR,
        subsystem: DEVICE_BASE + kind,
        multifunction: false,
    })
}

impl BusDevice for VirtioPci {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.bar_read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.bar_write(offset, data);
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        self.reset_device();
    }
}
