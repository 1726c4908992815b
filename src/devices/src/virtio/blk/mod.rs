//! Virtio block device (virtio 1.2, 5.2): a raw disk behind up to four queues.

mod config;
mod handle;
mod patience;
mod request;
mod session;
mod state;
pub(crate) mod statistics;
mod worker;

use std::io;
use std::sync::Arc;

use lodge_block::engine::{Engine, Spares};
use lodge_block::raw::RawDisk;
use virtio_bindings::virtio_blk as abi;
use virtio_queue::{Queue, QueueT as _};

pub use self::handle::Handle;
pub use self::statistics::{Statistics, Totals};
use self::worker::{Rested, Start, Worker};
use super::queue_thread::{Prologue, QueueThread};
use super::{ActivateError, Activation, VirtioDevice};
use crate::state::{DeviceState, RestoreError};
use crate::throttle::Gate;

/// Most queues a disk has.
pub const MAX_QUEUES: u16 = 4;

/// Requests a driver may have under way on one queue, in descriptors.
const QUEUE_SIZE: u16 = 256;

/// Requests one queue has with the host at a time. More wait in the ring. Spare rings are of this depth.
pub const DEPTH: u16 = 128;

/// Device ID (virtio 1.2, 5).
const DEVICE_TYPE: u16 = 2;

/// SCSI-like mass storage controller, as every virtio block device says.
const PCI_CLASS: u32 = 0x01_00_00;

/// How a disk shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Refuse writes even if the file allows them.
    pub read_only: bool,
    /// What the guest reads as the disk's serial number; the first 20 bytes count.
    pub serial: String,
    /// Queues offered, 1 to [`MAX_QUEUES`] (others are brought into the range);
    /// more than the guest's vCPUs are of no use.
    pub queues: u16,
}

/// A virtio block device.
pub struct Block {
    disk: Arc<RawDisk>,
    options: Options,
    queue_sizes: Vec<u16>,
    threads: Vec<QueueThread<Worker>>,
    /// Of queues the driver left disabled while active.
    idle: Vec<Option<Queue>>,
    /// Of each queue, when they were last given back.
    unfinished: Vec<Vec<u16>>,
    handle: Handle,
}

impl Block {
    /// A device on `disk`. Its threads start at once, each running `prologue` first.
    ///
    /// # Errors
    /// When threads or io_urings cannot be made.
    pub fn new(disk: RawDisk, options: Options, prologue: Prologue) -> io::Result<Self> {
        Self::with_spares(disk, options, prologue, &Spares::default())
    }

    /// As [`Block::new`], with `spares` behind the queues, as long as they last. The rings of the disk are spare when it is gone.
    ///
    /// # Errors
    /// When threads or io_urings cannot be made.
    pub fn with_spares(
        disk: RawDisk,
        options: Options,
        prologue: Prologue,
        spares: &Spares,
    ) -> io::Result<Self> {
        let disk = Arc::new(disk);
        let queues = options.queues.clamp(1, MAX_QUEUES);
        let read_only = options.read_only || disk.read_only();
        let handle = Handle::new(Arc::clone(&disk));
        let mut threads = Vec::new();
        let prologues = std::iter::repeat_n(prologue, queues.into());
        for (queue, prologue) in (0..queues).zip(prologues) {
            let statistics = handle.statistics();
            let worker = Worker {
                engine: Engine::with_spares(Arc::clone(&disk), DEPTH, spares)?,
                serial: config::serial(&options.serial),
                gate: Gate::new(handle.throttle(), &statistics)?,
                statistics,
                errors: Arc::clone(handle.errors()),
            };
            let name = format!("disk-queue-{queue}");
            threads.push(QueueThread::spawn(&name, prologue, worker)?);
        }
        Ok(Self {
            disk,
            options: Options {
                read_only,
                queues,
                ..options
            },
            queue_sizes: vec![QUEUE_SIZE; usize::from(queues)],
            threads,
            idle: Vec::new(),
            unfinished: Vec::new(),
            handle,
        })
    }

    /// What the monitor keeps when the device itself is behind its transport.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        PCI_CLASS
    }

    fn features(&self) -> u64 {
        let mut features = 1 << abi::VIRTIO_BLK_F_SEG_MAX
            | 1 << abi::VIRTIO_BLK_F_BLK_SIZE
            | 1 << abi::VIRTIO_BLK_F_TOPOLOGY
            | 1 << abi::VIRTIO_BLK_F_FLUSH;
        if self.options.read_only {
            features |= 1 << abi::VIRTIO_BLK_F_RO;
        } else {
            features |= 1 << abi::VIRTIO_BLK_F_WRITE_ZEROES;
            if self.disk.discard() {
                features |= 1 << abi::VIRTIO_BLK_F_DISCARD;
            }
        }
        if self.options.queues > 1 {
            features |= 1 << abi::VIRTIO_BLK_F_MQ;
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config::read(
            &config::bytes(&self.disk, &self.options, QUEUE_SIZE),
            offset,
            data,
        );
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.queues.len() != self.threads.len() {
            return Err(ActivateError::Setup("another number of queues"));
        }
        self.deactivate();
        for (thread, queue) in self.threads.iter_mut().zip(activation.queues) {
            if !queue.queue.ready() {
                self.idle.push(Some(queue.queue));
                continue;
            }
            self.idle.push(None);
            thread.start(Start {
                memory: activation.memory.clone(),
                features: activation.features,
                read_only: self.options.read_only,
                queue,
                events: Arc::clone(&activation.events),
            });
        }
        self.handle.attach(Some(activation.events));
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.handle.attach(None);
        let idle = std::mem::take(&mut self.idle);
        let mut queues = Vec::with_capacity(idle.len());
        self.unfinished.clear();
        for (thread, idle) in self.threads.iter_mut().zip(idle) {
            let unused = |queue| Rested {
                queue,
                unfinished: Vec::new(),
            };
            if let Some(rested) = idle.map(unused).or_else(|| thread.stop()) {
                queues.push(rested.queue);
                self.unfinished.push(rested.unfinished);
            }
        }
        queues
    }

    fn take_unfinished(&mut self) -> Vec<Vec<u16>> {
        std::mem::take(&mut self.unfinished)
    }

    fn save(&self) -> DeviceState {
        state::save(&self.disk, &self.options)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        state::check(state, &self.disk, &self.options)
    }
}

#[cfg(test)]
mod tests;
