//! A driver with several pairs of queues and a control queue.

use std::fs::OpenOptions;

use super::*;
use crate::event_loop::{EventLoop, LoopHandle};
use crate::test_wire::wire_of_queues;
use crate::virtio::test_driver::Piece;

/// Entries of each queue.
const ENTRIES: u16 = 64;
/// Bytes of a receive buffer.
const BUFFER: u32 = 2048;
/// Where commands and their acknowledgements are.
pub const COMMAND: u64 = 0x12_0000;
const ACK: u64 = 0x13_0000;

const MQ: u8 = abi::VIRTIO_NET_CTRL_MQ as u8;

pub struct Several {
    pub device: Net,
    pub memory: GuestMemory,
    /// Pairs of queues, and the control queue.
    pub queues: Vec<DriverQueue>,
    /// Which of them is the control queue.
    control: usize,
    pub features: u64,
    pub events: Arc<TestEvents>,
    pub wire: Wire,
    served_by: LoopHandle,
}

impl Drop for Several {
    fn drop(&mut self) {
        self.served_by.stop();
    }
}

impl Several {
    /// A driver of a device with so many pairs, served by threads, that accepts the given of its features.
    pub fn new(pairs: usize, features: u64) -> Self {
        let (taps, wire) = wire_of_queues(pairs);
        let pairs = taps.into_iter().map(|tap| QueuePair { tap, vhost: None });
        Self::on(pairs.collect(), wire, features)
    }

    /// The same served by the kernel; `None` where the host cannot.
    fn in_kernel(pairs: usize, features: u64) -> Option<Self> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/vhost-net")
        };
        if open().is_err() {
            println!("skipped: no /dev/vhost-net here");
            return None;
        }
        let (taps, wire) = wire_of_queues(pairs);
        let pairs = taps.into_iter().map(|tap| QueuePair {
            tap,
            vhost: Some(open().unwrap().into()),
        });
        Some(Self::on(pairs.collect(), wire, features))
    }

    fn on(pairs: Vec<QueuePair>, wire: Wire, features: u64) -> Self {
        let events = EventLoop::new().unwrap();
        let served_by = events.handle();
        events.spawn("net-test", || {}).unwrap();
        let options = Options {
            mac: MAC,
            mtu: 1500,
        };
        let count = 2 * pairs.len() as u64 + 1;
        let device = Net::new(pairs, Some(&served_by), options, &no_prologue()).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let mut driver = Self {
            queues: (0..count)
                .map(|number| DriverQueue::new(&memory, 0x2000 * number, ENTRIES))
                .collect(),
            control: device.queue_sizes().len() - 1,
            features: features & (device.features() | EVENT_IDX) | VERSION_1,
            device,
            memory,
            events: Arc::default(),
            wire,
            served_by,
        };
        if driver.features & (1 << abi::VIRTIO_NET_F_MQ) == 0 {
            driver.control = 2;
        }
        let queues = driver.queues.iter().map(DriverQueue::device_side).collect();
        driver.activate(queues);
        driver
    }

    fn activate(&mut self, mut queues: Vec<ActiveQueue>) {
        for active in &mut queues {
            let event_idx = self.features & EVENT_IDX != 0;
            active.queue.set_event_idx(event_idx);
        }
        let activation = Activation {
            memory: self.memory.clone(),
            features: self.features,
            queues,
            events: Arc::clone(&self.events) as _,
        };
        self.device.activate(activation).unwrap();
    }

    /// Goes on with queues that the device gave back.
    fn go_on(&mut self, queues: Vec<Queue>) {
        let queues = self.queues.iter().zip(queues);
        let queues = queues.map(|(driver, queue)| driver.activation(queue));
        let queues = queues.collect();
        self.activate(queues);
    }

    /// Gives a command in these pieces, and returns its acknowledgement.
    pub fn command_in(&mut self, pieces: &[Piece]) -> u8 {
        self.memory.write_obj(0xee_u8, GuestAddress(ACK)).unwrap();
        let pieces = [pieces, &[writable(ACK, 1)]].concat();
        let control = &mut self.queues[self.control];
        control.offer(&pieces).unwrap();
        control.kick();
        assert_eq!(control.wait_used().1, 1);
        self.memory.read_obj(GuestAddress(ACK)).unwrap()
    }

    pub fn command(&mut self, bytes: &[u8]) -> u8 {
        self.memory
            .write_slice(bytes, GuestAddress(COMMAND))
            .unwrap();
        self.command_in(&[readable(COMMAND, bytes.len() as u32)])
    }

    pub fn use_pairs(&mut self, count: u16) -> u8 {
        let [low, high] = count.to_le_bytes();
        self.command(&[MQ, 0, low, high])
    }

    /// Posts buffers for all that is received by pair number `pair`.
    pub fn post(&mut self, pair: usize) {
        let queue = &mut self.queues[2 * pair];
        for _ in 0..ENTRIES {
            let address = place(pair, queue.next_head());
            queue.offer(&[writable(address, BUFFER)]).unwrap();
        }
        queue.kick();
    }

    /// The next frame of ours that pair number `pair` receives.
    pub fn take_frame(&mut self, pair: usize) -> Vec<u8> {
        loop {
            let (head, written) = self.queues[2 * pair].wait_used();
            let mut packet = vec![0; written as usize];
            let address = place(pair, head);
            self.memory
                .read_slice(&mut packet, GuestAddress(address))
                .unwrap();
            let again = place(pair, self.queues[2 * pair].next_head());
            self.queues[2 * pair].offer(&[writable(again, BUFFER)]);
            self.queues[2 * pair].kick();
            let frame = packet.split_off(12);
            if is_ours(&frame) {
                return frame;
            }
        }
    }

    /// Sends by pair number `pair`, and waits until that is done.
    fn send(&mut self, pair: usize, frame: &[u8]) {
        self.offer_frame(pair, frame);
        self.queues[2 * pair + 1].wait_used();
    }

    fn offer_frame(&mut self, pair: usize, frame: &[u8]) {
        let address = BUFFERS + 0x1000 * pair as u64;
        let packet = [&[0; 12][..], frame].concat();
        self.memory
            .write_slice(&packet, GuestAddress(address))
            .unwrap();
        let queue = &mut self.queues[2 * pair + 1];
        queue
            .offer(&[readable(address, packet.len() as u32)])
            .unwrap();
        queue.kick();
    }

    /// Packets pass by each of the first `count` pairs, and the kernel follows the flow from pair to pair.
    fn all_pass(&mut self, count: usize) {
        for pair in (0..count).chain((0..count).rev()) {
            let seed = pair as u8;
            self.send(pair, &frame(100, seed));
            assert_eq!(self.wire.receive(), frame(100, seed));
            self.wire.send(&frame(200, seed));
            assert_eq!(self.take_frame(pair), frame(200, seed));
        }
    }
}

/// Where the receive buffer posted as `head` lies.
fn place(pair: usize, head: u16) -> u64 {
    BUFFERS + 0x4_0000 + 0x4_0000 * pair as u64 + u64::from(head) * u64::from(BUFFER)
}

/// One pair until the driver asks for more, and again when it asks for fewer.
fn follows_the_driver(mut driver: Several) {
    for pair in 0..4 {
        driver.post(pair);
    }
    driver.all_pass(1);
    // Nobody looks at the second pair yet.
    driver.offer_frame(1, &frame(60, 7));
    driver.all_pass(1);
    assert_eq!(driver.queues[3].take_used(), None);
    assert_eq!(driver.use_pairs(4), 0);
    assert_eq!(driver.wire.receive(), frame(60, 7));
    driver.queues[3].wait_used();
    driver.all_pass(4);
    assert_eq!(driver.use_pairs(2), 0);
    driver.all_pass(2);
    // What came for the others while they were there is lost; now all of it comes to these.
    for refused in [0, 5, 0xffff] {
        assert_eq!(driver.use_pairs(refused), 1);
    }
    driver.all_pass(2);
    assert_eq!(driver.use_pairs(1), 0);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(3), 0);
    driver.all_pass(3);
    assert!(!driver.events.broken());
}

#[test]
fn threads_serve_as_many_pairs_as_the_driver_uses() {
    follows_the_driver(Several::new(4, !0));
}

#[test]
fn the_kernel_serves_as_many_pairs_as_the_driver_uses() {
    if let Some(driver) = Several::in_kernel(4, !0) {
        follows_the_driver(driver);
    }
}

/// A pause, and another device that goes on, keep the pairs in use; a reset does not.
fn keeps_its_pairs(mut driver: Several, mut other: Several) {
    driver.post(0);
    driver.post(1);
    assert_eq!(driver.use_pairs(2), 0);
    for _ in 0..20 {
        driver.all_pass(2);
        let queues = driver.device.deactivate();
        assert_eq!(queues.len(), 5);
        driver.go_on(queues);
    }
    let queues = driver.device.deactivate();
    let saved = driver.device.save();
    assert_eq!(
        (saved.version, &saved.body["told"]["enabled_pairs"]),
        (2, &2.into())
    );
    other.device.deactivate();
    other.device.reset();
    other.device.restore(&saved).unwrap();
    // Its driver is the same, and so is its memory.
    other.memory = driver.memory.clone();
    std::mem::swap(&mut other.queues, &mut driver.queues);
    other.go_on(queues);
    other.all_pass(2);
    let queues = other.device.deactivate();
    other.device.reset();
    assert_eq!(other.device.save().body["told"]["enabled_pairs"], 1);
    other.go_on(queues);
    other.all_pass(1);
}

#[test]
fn pairs_in_use_outlast_a_pause_and_a_restoration() {
    // Each is on a thread of its own, for each has a namespace of its own.
    let other = std::thread::spawn(|| Several::new(2, !0));
    keeps_its_pairs(Several::new(2, !0), other.join().unwrap());
}

#[test]
fn pairs_in_use_outlast_a_pause_and_a_restoration_in_the_kernel() {
    let other = std::thread::spawn(|| Several::in_kernel(2, !0));
    let (driver, other) = (Several::in_kernel(2, !0), other.join().unwrap());
    if let (Some(driver), Some(other)) = (driver, other) {
        keeps_its_pairs(driver, other);
    }
}

#[test]
fn a_driver_of_one_pair_finds_the_control_queue_behind_it() {
    let mut driver = Several::new(3, !(1 << abi::VIRTIO_NET_F_MQ));
    driver.post(0);
    driver.all_pass(1);
    // It is there, and refuses what was not agreed on.
    assert_eq!(driver.use_pairs(2), 1);
    driver.all_pass(1);
    let queues = driver.device.deactivate();
    assert_eq!(queues.len(), 7);
    driver.go_on(queues);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(1), 1);
}

#[test]
fn a_driver_without_a_control_queue_has_one_pair() {
    let mut driver = Several::new(2, !(1 << abi::VIRTIO_NET_F_CTRL_VQ));
    driver.post(0);
    driver.all_pass(1);
    driver.queues[4].offer(&[readable(COMMAND, 4), writable(ACK, 1)]);
    driver.queues[4].kick();
    driver.all_pass(1);
    assert_eq!(driver.queues[4].take_used(), None);
    let queues = driver.device.deactivate();
    assert_eq!(queues.len(), 5);
    driver.go_on(queues);
    driver.all_pass(1);
}

#[test]
fn a_pair_that_was_not_set_up_is_not_used() {
    let mut driver = Several::new(3, !0);
    let mut queues = driver.device.deactivate();
    queues[5].set_ready(false);
    driver.go_on(queues);
    driver.post(0);
    driver.post(1);
    assert_eq!(driver.use_pairs(3), 1);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(2), 0);
    driver.all_pass(2);
}

#[test]
fn shows_what_it_has() {
    let driver = Several::new(3, !0);
    let offered = |device: &Net, feature: u32| device.features() & (1 << feature) != 0;
    assert!(offered(&driver.device, abi::VIRTIO_NET_F_MQ));
    assert_eq!(
        driver.device.queue_sizes(),
        [256, 256, 256, 256, 256, 256, 64]
    );
    let mut most = [0; 2];
    driver.device.read_config(8, &mut most);
    assert_eq!(most, [3, 0]);
    let one = Several::new(1, !0);
    assert!(!offered(&one.device, abi::VIRTIO_NET_F_MQ));
    assert!(offered(&one.device, abi::VIRTIO_NET_F_CTRL_VQ));
    assert_eq!(one.device.queue_sizes(), [256, 256, 64]);
    // As guests know it that were saved before there were control queues.
    let plain = Rig::new();
    assert!(!offered(&plain.device, abi::VIRTIO_NET_F_CTRL_VQ));
    assert_eq!(plain.device.save().version, 1);
}

#[test]
fn takes_up_what_was_saved_before() {
    let mut driver = Several::new(2, !0);
    assert_eq!(driver.use_pairs(2), 0);
    driver.device.deactivate();
    let mut saved = driver.device.save();
    for enabled in [0, 3] {
        saved.body["told"]["enabled_pairs"] = enabled.into();
        assert!(driver.device.restore(&saved).is_err(), "{enabled}");
    }
    let plain = Rig::new().device.save();
    driver.device.restore(&plain).unwrap();
    assert_eq!(driver.device.save().body["told"]["enabled_pairs"], 1);
}

#[test]
fn there_are_as_many_pairs_as_may_be() {
    let options = Options {
        mac: MAC,
        mtu: 1500,
    };
    let events = EventLoop::new().unwrap();
    for (count, control) in [(0, true), (9, true), (2, false)] {
        let pairs = wire_of_queues(count).0.into_iter().take(count);
        let pairs = pairs.map(|tap| QueuePair { tap, vhost: None }).collect();
        let events = events.handle();
        let refused = Net::new(pairs, control.then_some(&events), options, &no_prologue());
        assert!(refused.is_err(), "{count} {control}");
    }
}
