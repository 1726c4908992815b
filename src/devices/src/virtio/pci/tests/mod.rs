mod any_order;
mod bar;
mod queues;
mod saved;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::*;
use crate::GuestMemory;
use crate::bus::Bus;
use crate::pci::PciFunction;
use crate::state::{DeviceState, RestoreError};
use crate::test_machine::TestPlatform;
use crate::virtio::{ActivateError, Activation, VirtioDevice};

const BASE: u64 = 0xd000_0000;
const FEATURE: u64 = 1 << 5;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// What a test sees of the device behind the transport.
#[derive(Default)]
struct Record {
    activation: Mutex<Option<Activation>>,
    activations: AtomicU32,
    fail: AtomicBool,
    unfinished: Mutex<Vec<Vec<u16>>>,
}

struct TestDevice {
    record: Arc<Record>,
    config: [u8; 8],
}

impl VirtioDevice for TestDevice {
    fn device_type(&self) -> u16 {
        2
    }

    fn pci_class(&self) -> u32 {
        0x01_80_00
    }

    fn features(&self) -> u64 {
        FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 16]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..8).zip(data) {
            *byte = self.config[at as usize];
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..8).zip(data) {
            self.config[at as usize] = *byte;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if self.record.fail.load(Ordering::SeqCst) {
            return Err(ActivateError::Setup("as told"));
        }
        let mut slot = self.record.activation.lock().unwrap();
        assert!(slot.is_none(), "activated twice");
        *slot = Some(activation);
        self.record.activations.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let activation = self.record.activation.lock().unwrap().take();
        let queues = activation.expect("deactivated while not active").queues;
        queues.into_iter().map(|queue| queue.queue).collect()
    }

    fn take_unfinished(&mut self) -> Vec<Vec<u16>> {
        std::mem::take(&mut self.record.unfinished.lock().unwrap())
    }

    fn save(&self) -> DeviceState {
        assert!(
            self.record.activation.lock().unwrap().is_none(),
            "saved while active"
        );
        DeviceState::new("test", 1, &self.config)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        assert!(
            self.record.activation.lock().unwrap().is_none(),
            "restored while active"
        );
        self.config = state.decode("test", 1)?;
        Ok(())
    }
}

struct Rig {
    record: Arc<Record>,
    platform: Arc<TestPlatform>,
    bus: Arc<Bus>,
    function: Arc<Mutex<VirtioPci>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

fn rig_with(platform: TestPlatform) -> Rig {
    let record: Arc<Record> = Arc::default();
    let platform = Arc::new(platform);
    let bus = Arc::new(Bus::new());
    let device = TestDevice {
        record: Arc::clone(&record),
        config: [1, 2, 3, 4, 5, 6, 7, 8],
    };
    let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
    let complain = Arc::clone(&complaints);
    let function = VirtioPci::new(VirtioPciOptions {
        name: "test0".to_owned(),
        device: Box::new(device),
        memory: GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap(),
        platform: platform.clone(),
        memory_bus: bus.clone(),
        complain: Arc::new(move |device, what| {
            complain.lock().unwrap().push(format!("{device} {what}"));
        }),
    })
    .unwrap();
    let rig = Rig {
        record,
        platform,
        bus,
        function,
        complaints,
    };
    rig.function.lock().unwrap().set_bar(0, BASE);
    rig.config_write(0x04, &[0x06, 0x00]);
    rig
}

fn rig() -> Rig {
    rig_with(TestPlatform::default())
}

impl Rig {
    fn config_write(&self, offset: usize, data: &[u8]) {
        self.function.lock().unwrap().config_write(offset, data);
    }

    fn config_read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        self.function.lock().unwrap().config_read(offset, &mut data);
        data
    }

    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.bus.read(BASE + offset, &mut data);
        data
    }

    fn get16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }

    fn put(&self, offset: u64, data: &[u8]) {
        self.bus.write(BASE + offset, data);
    }

    fn put16(&self, offset: u64, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put32(&self, offset: u64, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    fn status(&self) -> u8 {
        self.get::<1>(0x14)[0]
    }

    fn set_status(&self, value: u8) -> u8 {
        self.put(0x14, &[value]);
        self.status()
    }

    fn features(&self, features: u64) {
        for half in 0..2 {
            self.put32(0x08, half);
            self.put32(0x0c, (features >> (32 * half)) as u32);
        }
    }

    fn negotiate(&self, features: u64) -> u8 {
        self.set_status(1);
        self.set_status(3);
        self.features(features);
        self.set_status(11)
    }

    fn queue(&self, number: u16, size: u16, vector: u16, rings: [u64; 3]) {
        self.put16(0x16, number);
        self.put16(0x18, size);
        for (offset, ring) in [0x20, 0x28, 0x30].into_iter().zip(rings) {
            self.put32(offset, ring as u32);
            self.put32(offset + 4, (ring >> 32) as u32);
        }
        self.put16(0x1a, vector);
        self.put16(0x1c, 1);
    }

    /// As Linux does it, with one queue.
    fn start(&self) {
        assert_eq!(self.negotiate(VERSION_1 | EVENT_IDX | FEATURE), 11);
        self.queue(0, 128, 1, [0x1000, 0x2000, 0x3000]);
        assert_eq!(self.set_status(15), 15);
    }

    fn active(&self) -> bool {
        self.record.activation.lock().unwrap().is_some()
    }

    /// Opens MSI-X with all vectors set up.
    fn open_msix(&self) {
        for vector in 0..3_u64 {
            self.put32(MSIX_TABLE + vector * 16, 0xfee0_0000);
            self.put32(MSIX_TABLE + vector * 16 + 8, 0x40 + vector as u32);
            self.put32(MSIX_TABLE + vector * 16 + 12, 0);
        }
        let capability = self.function.lock().unwrap().msix_capability;
        self.config_write(capability + 2, &[0, 0x80]);
    }

    fn sent(&self) -> Vec<u32> {
        (0..3)
            .map(|vector| self.platform.vector(vector).sent)
            .collect()
    }

    fn queue_state(&self, number: usize) -> (bool, u16, u64, bool) {
        let activation = self.record.activation.lock().unwrap();
        let queue = &activation.as_ref().unwrap().queues[number].queue;
        (
            queue.ready(),
            queue.size(),
            queue.desc_table(),
            queue.event_idx_enabled(),
        )
    }

    fn kicked(&self, number: usize) -> bool {
        let activation = self.record.activation.lock().unwrap();
        activation.as_ref().unwrap().queues[number]
            .kick
            .read()
            .is_ok()
    }
}

#[test]
fn describes_itself() {
    let rig = rig();
    assert_eq!(rig.config_read(0), [0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(rig.config_read(8), [1, 0, 0x80, 0x01]);
    assert_eq!(rig.config_read(0x3d), [0], "no wired interrupt");
    let mut found = Vec::new();
    let mut offset = usize::from(rig.config_read::<1>(0x34)[0]);
    while offset != 0 {
        let [id, next, length, kind] = rig.config_read(offset);
        if id == 9 {
            let [bar, _, _, _] = rig.config_read(offset + 4);
            let at = u32::from_le_bytes(rig.config_read(offset + 8));
            let size = u32::from_le_bytes(rig.config_read(offset + 12));
            assert!(bar == 0 && u64::from(at) + u64::from(size) <= BAR_BYTES);
            found.push((kind, length, at, size));
        } else {
            assert_eq!(id, 0x11);
        }
        offset = usize::from(next);
    }
    let expected = [
        (1, 16, 0x0000, 0x38),
        (2, 20, 0x3000, 0x1000),
        (3, 16, 0x1000, 1),
        (4, 16, 0x2000, 0x1000),
        (5, 20, 0, 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn follows_a_proper_driver() {
    let rig = rig();
    rig.open_msix();
    assert_eq!(rig.get16(0x12), 2);
    rig.put32(0x00, 0);
    assert_eq!(
        u32::from_le_bytes(rig.get(0x04)),
        (FEATURE | EVENT_IDX | 1 << 28) as u32
    );
    rig.put32(0x00, 1);
    assert_eq!(u32::from_le_bytes(rig.get(0x04)), 1);
    rig.put32(0x00, 2);
    assert_eq!(u32::from_le_bytes(rig.get(0x04)), 0);
    rig.put16(0x10, 0);
    rig.start();
    assert!(rig.active());
    assert_eq!(rig.queue_state(0), (true, 128, 0x1000, true));
    assert!(!rig.queue_state(1).0, "left disabled");
    assert!(rig.kicked(0), "rung once at the start");
    assert!(!rig.kicked(1));
    assert_eq!(rig.get16(0x1e), 0);
    assert_eq!(
        rig.platform.doorbell_addresses(),
        [BASE + 0x3000, BASE + 0x3004]
    );

    let activation = rig.record.activation.lock().unwrap();
    let activation_ref = activation.as_ref().unwrap();
    assert_eq!(activation_ref.features, VERSION_1 | EVENT_IDX | FEATURE);
    activation_ref.queues[0].interrupt.notify();
    assert_eq!(rig.sent(), [0, 1, 0]);
    assert_eq!(rig.get(ISR), [1]);
    assert_eq!(rig.get(ISR), [0], "reading acknowledges");
    let generation = rig.get::<1>(0x15);
    activation_ref.events.config_changed();
    assert_ne!(rig.get::<1>(0x15), generation);
    assert_eq!((rig.sent(), rig.get(ISR)), (vec![1, 1, 0], [2]));
    // The queue without a vector interrupts nobody but says so.
    activation_ref.queues[1].interrupt.notify();
    activation_ref.queues[1].interrupt.irqfd();
    assert_eq!((rig.sent(), rig.get(ISR)), (vec![1, 1, 0], [1]));
    drop(activation);

    assert_eq!(rig.set_status(0), 0);
    assert!(!rig.active());
    assert!(rig.platform.doorbell_addresses().is_empty());
    rig.put16(0x16, 0);
    assert_eq!(
        (rig.get16(0x18), rig.get16(0x1c), rig.get16(0x1a)),
        (256, 0, 0xffff)
    );
    rig.start();
    assert_eq!(rig.record.activations.load(Ordering::SeqCst), 2);
}

#[test]
fn refuses_features_it_did_not_offer() {
    let rig = rig();
    for features in [
        0,
        FEATURE,
        VERSION_1 | 1 << 6,
        VERSION_1 | 1 << 40,
        u64::MAX,
    ] {
        assert_eq!(rig.negotiate(features), 3, "{features:#x}");
        assert_eq!(rig.set_status(15), 3);
        rig.set_status(0);
    }
    assert_eq!(rig.negotiate(VERSION_1), 11);
    rig.features(VERSION_1 | FEATURE);
    rig.put32(0x08, 0);
    assert_eq!(rig.get::<4>(0x0c), [0; 4], "agreed features are final");
}

#[test]
fn a_device_that_fails_to_start_needs_a_reset() {
    let rig = rig();
    rig.record.fail.store(true, Ordering::SeqCst);
    rig.negotiate(VERSION_1);
    assert_eq!(rig.set_status(15), 0x4f);
    assert_eq!(rig.set_status(0x4f), 0x4f);
    assert_eq!(rig.set_status(0), 0);
    rig.record.fail.store(false, Ordering::SeqCst);
    rig.start();
    let events = Arc::clone(
        &rig.record
            .activation
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .events,
    );
    events.needs_reset("broken ring");
    assert_eq!(rig.status(), 0x4f);
    events.needs_reset("again");
    events.host_failed("no space");
    let complaints = std::mem::take(&mut *rig.complaints.lock().unwrap());
    let broken = "test0 needs a reset by its driver: broken ring";
    assert_eq!(
        complaints[complaints.len() - 2..],
        [broken, "test0 no space"]
    );
    assert_eq!(rig.set_status(0), 0);
}
