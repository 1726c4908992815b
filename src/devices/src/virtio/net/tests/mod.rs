//! A driver on a real tap in a network namespace of the test's own.

mod commands;
mod driver;
mod filter;
mod hostile;
mod lifecycle;
mod packets;
mod several;
mod vhost;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::test_wire::{MAC, Wire, frame, is_ours, wire};
use crate::virtio::ActiveQueue;
use crate::virtio::test_driver::{DriverQueue, TestEvents, readable, writable};

const MEMORY: usize = 4 << 20;
const BUFFERS: u64 = 0x10_0000;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

fn no_prologue() -> Prologue {
    Arc::new(|| {})
}

/// Where the receive buffer posted as `head` lies.
fn buffer(head: u16, length: u32) -> u64 {
    BUFFERS + 0x1_0000 + u64::from(head) * u64::from(length.next_multiple_of(64))
}

struct Rig {
    device: Net,
    memory: GuestMemory,
    receive: DriverQueue,
    transmit: DriverQueue,
    events: Arc<TestEvents>,
    wire: Wire,
}

impl Rig {
    fn new() -> Self {
        Self::with(!0)
    }

    /// With the given of the device's features accepted.
    fn with(features: u64) -> Self {
        let (tap, wire) = wire();
        Self::on(tap, None, wire, features, &no_prologue())
    }

    fn on(
        tap: OwnedFd,
        vhost: Option<OwnedFd>,
        wire: Wire,
        features: u64,
        prologue: &Prologue,
    ) -> Self {
        let options = Options {
            mac: MAC,
            mtu: 1500,
        };
        let pairs = vec![QueuePair { tap, vhost }];
        let device = Net::new(pairs, None, options, prologue).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let mut rig = Self {
            receive: DriverQueue::new(&memory, 0, 64),
            transmit: DriverQueue::new(&memory, 0x8000, 64),
            device,
            memory,
            events: Arc::default(),
            wire,
        };
        let queues = [rig.receive.device_side(), rig.transmit.device_side()];
        rig.activate(features, queues);
        rig
    }

    fn activate(&mut self, features: u64, mut queues: [ActiveQueue; 2]) {
        for queue in &mut queues {
            queue.queue.set_event_idx(features & EVENT_IDX != 0);
        }
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features: features & (self.device.features() | EVENT_IDX) | VERSION_1,
                queues: queues.into(),
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Posts `count` buffers of `length` bytes, each at a place of its own.
    fn post(&mut self, count: u64, length: u32) {
        for _ in 0..count {
            let address = buffer(self.receive.next_head(), length);
            self.receive.offer(&[writable(address, length)]).unwrap();
        }
        self.receive.kick();
    }

    /// The next frame of ours that the driver receives, and in how many buffers
    /// of `length` bytes. Each is posted again.
    fn take_frame(&mut self, length: u32) -> (Vec<u8>, usize) {
        loop {
            let used = self.receive.wait_used();
            let mut packet = self.content(used, length);
            // Without mergeable buffers vhost-net leaves the field alone.
            let count = u16::from_le_bytes([packet[10], packet[11]]).max(1);
            for _ in 1..count {
                let used = self.receive.take_used();
                packet.extend(self.content(used.expect("the rest of the packet"), length));
            }
            self.post(count.into(), length);
            let frame = packet.split_off(12);
            if is_ours(&frame) {
                return (frame, count.into());
            }
        }
    }

    fn content(&self, (head, written): (u16, u32), length: u32) -> Vec<u8> {
        let mut content = vec![0; written as usize];
        let address = GuestAddress(buffer(head, length));
        self.memory.read_slice(&mut content, address).unwrap();
        content
    }

    fn totals(&self) -> Totals {
        self.device.statistics().totals()
    }

    fn send(&mut self, frame: &[u8]) {
        self.memory
            .write_slice(&[0; 12], GuestAddress(BUFFERS))
            .unwrap();
        self.memory
            .write_slice(frame, GuestAddress(BUFFERS + 12))
            .unwrap();
        let length = frame.len() as u32 + 12;
        self.transmit.offer(&[readable(BUFFERS, length)]).unwrap();
        self.transmit.kick();
    }
}
