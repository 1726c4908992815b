//! A virtio device behind its transport, with a driver that an input takes over from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lodge_devices::GuestMemory;
use lodge_devices::bus::{Bus, BusDevice as _};
use lodge_devices::event_loop::EventLoop;
use lodge_devices::fuzzing::TestPlatform;
use lodge_devices::lifecycle::Device as _;
use lodge_devices::pci::PciFunction as _;
use lodge_devices::state::DeviceState;
use lodge_devices::virtio::VirtioDevice;
use lodge_devices::virtio::pci::{BAR_BYTES, VirtioPci, VirtioPciOptions};
use vm_memory::{Bytes, GuestAddress};

use super::driver::{Driver, Function, NOTIFY, STATUS};
use crate::board::{Host, ram};
use crate::input::Input;
use crate::operation::{Offer, Rig, run};

/// Turns of the event loop after each operation.
const TURNS: usize = 64;
const NEEDS_RESET: u8 = 0x40;
/// What the transport adds to a device's features: indirect tables and event indices.
const EVERY_FEATURE: u64 = u64::MAX;
/// Offsets of registers in their page that mean something.
const LENGTHS: [u16; 6] = [0x40, 4, 0x48, 0x20, 0x80, 0x10];

/// The device.
pub struct VirtioRig {
    function: Function,
    driver: Driver,
    ram: GuestMemory,
    events: EventLoop,
    host: Host,
    /// What the device always serves, if there is such a thing.
    honest: Option<Offer>,
    threads: bool,
    complained: Arc<AtomicBool>,
    power_on: DeviceState,
}

/// What a rig is made of, beside its device.
pub struct Surroundings {
    /// What the device is given to read and write.
    pub ram: GuestMemory,
    /// Serves devices without threads of their own.
    pub events: EventLoop,
    /// What happens on the host's side.
    pub host: Host,
    /// What the device always serves, if there is such a thing.
    pub honest: Option<Offer>,
    /// The device's queues have threads, or would have.
    pub threads: bool,
}

impl Surroundings {
    /// Nothing special.
    ///
    /// # Panics
    /// When the process is out of descriptors.
    pub fn new() -> Self {
        lodge_devices::fuzzing::drive_by_hand();
        Self {
            ram: ram(),
            events: EventLoop::new().expect("an event loop"),
            host: Box::new(|_, _| {}),
            honest: None,
            threads: false,
        }
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtioRig {
    fn new(device: Box<dyn VirtioDevice>, surroundings: Surroundings) -> Self {
        let Surroundings {
            ram,
            events,
            host,
            honest,
            threads,
        } = surroundings;
        let complained = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&complained);
        let function = VirtioPci::new(VirtioPciOptions {
            name: "fuzzed".to_owned(),
            device,
            memory: ram.clone(),
            platform: TestPlatform::new(),
            memory_bus: Arc::new(Bus::new()),
            complain: Arc::new(move |_, _| hears.store(true, Ordering::Relaxed)),
        })
        .expect("the process has descriptors");
        let power_on = function.lock().expect("nobody else has it").save();
        Self {
            driver: Driver::new(&function, &ram),
            function,
            ram,
            events,
            host,
            honest,
            threads,
            complained,
            power_on,
        }
    }

    /// Has the device look at its queues: a turn of a thread that is not there is a pause and a resumption.
    fn settle(&mut self) {
        if self.threads {
            let mut function = self.function.lock().expect("nobody else has it");
            function.pause();
            function.resume();
        }
        self.events.turn(TURNS).expect("the event loop works");
        self.check();
    }

    /// A device that has broken off says so to the driver, until it is reset. Those that have not may have complained
    /// of the host.
    fn check(&self) {
        let [status] = self.driver.read(STATUS);
        if status & NEEDS_RESET != 0 {
            assert!(
                self.complained.load(Ordering::Relaxed),
                "a device broke off and nobody heard of it"
            );
        }
    }
}

/// No queue has returned more chains than it has taken, or holds more than there can be.
fn check_queues(state: &DeviceState) {
    let number = |queue: &serde_json::Value, name: &str| queue[name].as_u64().unwrap_or(0) as u16;
    let queues = state.body["registers"]["queues"].as_array();
    for queue in queues.into_iter().flatten() {
        let taken = number(queue, "next_available");
        let returned = number(queue, "next_used");
        let held = taken.wrapping_sub(returned);
        assert!(
            held <= number(queue, "size"),
            "{taken} chains taken and {returned} returned"
        );
    }
}

impl Drop for VirtioRig {
    fn drop(&mut self) {
        // The bus holds the function as long as its BAR is mapped. A rig that failed stays as it is.
        if let Ok(mut function) = self.function.lock() {
            function.config_write(4, &[0, 0]);
        }
    }
}

impl Rig for VirtioRig {
    /// Ranges are the pages of the BAR, and then configuration space.
    fn read(&mut self, range: u8, offset: u16, data: &mut [u8]) {
        let page = usize::from(range) % 7;
        {
            let mut function = self.function.lock().expect("nobody else has it");
            match LENGTHS.get(page) {
                Some(length) => {
                    let offset = 0x1000 * page as u64 + u64::from(offset % length);
                    function.read(offset, data);
                }
                None => {
                    // As the bus splits it.
                    let width = data.len().min(4);
                    function.config_read(usize::from(offset % 0x1000) & !3, &mut data[..width]);
                }
            }
        }
        self.check();
    }

    fn write(&mut self, range: u8, offset: u16, data: &[u8]) {
        let page = usize::from(range) % 7;
        {
            let mut function = self.function.lock().expect("nobody else has it");
            match LENGTHS.get(page) {
                Some(length) => {
                    let offset = 0x1000 * page as u64 + u64::from(offset % length);
                    assert!(offset < BAR_BYTES);
                    function.write(offset, data);
                }
                None => {
                    // As the bus splits it.
                    let offset = usize::from(offset % 0x1000) & !3;
                    function.config_write(offset, &data[..data.len().min(4)]);
                }
            }
        }
        self.settle();
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        // What does not fit is not written.
        let _ = self.ram.write_slice(bytes, GuestAddress(address));
    }

    fn offer(&mut self, offer: &Offer) {
        self.driver.offer(offer);
    }

    fn ring(&mut self, queue: u8) {
        self.driver
            .write(NOTIFY + 4 * u64::from(queue % 8), &[queue % 8, 0]);
        self.settle();
    }

    fn save_restore(&mut self) {
        {
            let mut function = self.function.lock().expect("nobody else has it");
            function.pause();
            let saved = function.save();
            check_queues(&saved);
            function.restore(&saved).expect("own state is taken");
            assert_eq!(function.save(), saved);
            function.resume();
        }
        self.settle();
    }

    fn power_cycle(&mut self) {
        {
            let mut function = self.function.lock().expect("nobody else has it");
            function.reset();
            let registers = |state: &DeviceState| state.body["registers"].clone();
            let (now, then) = (function.save(), &self.power_on);
            assert_eq!(registers(&now), registers(then), "left over from before");
        }
        self.settle();
    }

    fn host(&mut self, what: u8, bytes: &[u8]) {
        (self.host)(what, bytes);
        self.settle();
    }

    /// The next driver finds a device that works.
    fn finish(&mut self) {
        self.save_restore();
        self.driver.start(EVERY_FEATURE, 16);
        self.settle();
        let [status] = self.driver.read(STATUS);
        assert_eq!(status, 15, "the device takes no driver any more");
        let Some(honest) = self.honest.take() else {
            return;
        };
        for piece in &honest.pieces {
            self.put(piece.address, &piece.content);
        }
        let queue = usize::from(honest.queue);
        let before = self.driver.used(queue);
        self.driver.offer(&honest);
        self.ring(honest.queue);
        let after = self.driver.used(queue);
        assert_eq!(after.wrapping_sub(before), 1, "a request got no answer");
    }
}

/// Has a driver set up a device as the first bytes of the input say, and does the rest of it.
pub fn drive(device: Box<dyn VirtioDevice>, surroundings: Surroundings, data: &[u8]) {
    let mut rig = VirtioRig::new(device, surroundings);
    let mut input = Input::new(data);
    let (Some(features), Some(shape)) = (input.u32(), input.u8()) else {
        return;
    };
    // The first bit leaves the device as it is after power-on.
    if shape & 0x80 == 0 {
        rig.driver.start(features.into(), 1 << (shape % 9));
        rig.settle();
    }
    run(&mut rig, input);
}
