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
pub const ACK: u64 = 0x13_0000;

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
    pub fn in_kernel(pairs: usize, features: u64) -> Option<Self> {
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
    pub fn go_on(&mut self, queues: Vec<Queue>) {
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
    pub fn send(&mut self, pair: usize, frame: &[u8]) {
        self.offer_frame(pair, frame);
        self.queues[2 * pair + 1].wait_used();
    }

    pub fn offer_frame(&mut self, pair: usize, frame: &[u8]) {
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
    pub fn all_pass(&mut self, count: usize) {
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
