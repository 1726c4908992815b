//! The devices served on the event loop, driven through real queues.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;
use crate::console::{Console, ConsoleSink};
use crate::event_loop::{EventLoop, LoopHandle};
use crate::virtio::console::VirtioConsole;
use crate::virtio::rng::Rng;
use crate::virtio::test_driver::{DriverQueue, PATIENCE, TestEvents, readable, writable};
use crate::virtio::{Activation, VirtioDevice};

const DATA: u64 = 0x10_0000;

struct Rig {
    handle: LoopHandle,
    memory: GuestMemory,
    events: Arc<TestEvents>,
}

fn rig() -> Rig {
    let events = EventLoop::new().unwrap();
    let handle = events.handle();
    events.spawn("served-test", || {}).unwrap();
    Rig {
        handle,
        memory: GuestMemory::from_ranges(&[(GuestAddress(0), 0x40_0000)]).unwrap(),
        events: Arc::default(),
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl Rig {
    fn queue(&self, number: u64) -> DriverQueue {
        DriverQueue::new(&self.memory, 0x1000 + number * 0x8000, 64)
    }

    fn activate(&self, device: &mut dyn VirtioDevice, queues: &[&DriverQueue]) {
        let queues = queues.iter().map(|queue| queue.device_side()).collect();
        device
            .activate(Activation {
                memory: self.memory.clone(),
                features: 0,
                queues,
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }
}

#[test]
fn entropy_fills_what_was_asked() {
    let rig = rig();
    let mut rng = Rng::new(&rig.handle);
    assert_eq!((rng.device_type(), rng.queue_sizes()), (4, &[64][..]));
    let mut queue = rig.queue(0);
    rig.activate(&mut rng, &[&queue]);
    queue.offer(&[writable(DATA, 10), writable(DATA + 100, 5000)]);
    queue.kick();
    assert_eq!(queue.wait_used().1, 5010);
    let mut data = vec![0; 5000];
    rig.memory
        .read_slice(&mut data, GuestAddress(DATA + 100))
        .unwrap();
    assert!(data.iter().any(|&byte| byte != data[0]));
    let beyond: u64 = rig.memory.read_obj(GuestAddress(DATA + 5100)).unwrap();
    assert_eq!(beyond, 0);
    // Nothing to write into, and far too much.
    queue.offer(&[readable(DATA, 8)]);
    queue.offer(&[writable(DATA, 0x20_0000)]);
    queue.kick();
    assert_eq!(queue.wait_used().1, 0);
    assert_eq!(queue.wait_used().1, 64 << 10);
    assert!(!rig.events.broken());
    let queues = rng.deactivate();
    assert_eq!(queues.len(), 1);
    let state = rng.save();
    rng.restore(&state).unwrap();
}

#[test]
fn many_requests_come_in_batches() {
    let rig = rig();
    let mut rng = Rng::new(&rig.handle);
    let mut queue = rig.queue(0);
    rig.activate(&mut rng, &[&queue]);
    for _ in 0..64 {
        queue.offer(&[writable(DATA, 16)]).unwrap();
    }
    queue.kick();
    for _ in 0..64 {
        assert_eq!(queue.wait_used().1, 16);
    }
}

#[test]
fn goes_on_after_a_pause() {
    let rig = rig();
    let mut rng = Rng::new(&rig.handle);
    let mut queue = rig.queue(0);
    rig.activate(&mut rng, &[&queue]);
    queue.offer(&[writable(DATA, 1)]);
    queue.kick();
    queue.wait_used();
    let stopped = rng.deactivate().remove(0);
    queue.offer(&[writable(DATA, 2)]);
    queue.kick();
    assert_eq!(queue.take_used(), None);
    rng.activate(Activation {
        memory: rig.memory.clone(),
        features: 0,
        queues: vec![queue.activation(stopped)],
        events: Arc::clone(&rig.events) as _,
    })
    .unwrap();
    assert_eq!(queue.wait_used().1, 2);
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let rig = rig();
    let mut rng = Rng::new(&rig.handle);
    let mut queue = rig.queue(0);
    rig.activate(&mut rng, &[&queue]);
    queue.publish(1000);
    queue.kick();
    assert!(rig.events.wait_broken().starts_with("queue 0: ring"));
    queue.kick();
    assert_eq!(queue.take_used(), None);
    assert_eq!(rng.deactivate().len(), 1);
    // After the reset it serves again.
    let mut queue = rig.queue(2);
    rig.activate(&mut rng, &[&queue]);
    queue.offer(&[writable(DATA, 3)]);
    queue.kick();
    assert_eq!(queue.wait_used().1, 3);
}

#[test]
fn console_carries_text_both_ways() {
    let rig = rig();
    let text = Console::new(&rig.handle).unwrap();
    let mut console = VirtioConsole::new(&rig.handle, &text);
    assert_eq!((console.device_type(), console.queue_sizes().len()), (3, 2));
    let (mut receive, mut transmit) = (rig.queue(0), rig.queue(1));
    let (mut viewer, theirs) = UnixStream::pair().unwrap();
    viewer.set_read_timeout(Some(PATIENCE)).unwrap();
    text.attach(theirs.into(), 0).unwrap();
    // Typed before the driver is there.
    viewer.write_all(b"early").unwrap();
    rig.activate(&mut console, &[&receive, &transmit]);
    // One byte each, so that it does not matter in how many pieces the text comes.
    for at in 0..8 {
        receive.offer(&[writable(DATA + at, 1)]);
    }
    receive.kick();
    for _ in 0..5 {
        assert_eq!(receive.wait_used().1, 1);
    }
    let mut typed = [0; 5];
    rig.memory
        .read_slice(&mut typed, GuestAddress(DATA))
        .unwrap();
    assert_eq!(&typed, b"early");
    rig.memory
        .write_slice(b"hello guest", GuestAddress(DATA + 0x1000))
        .unwrap();
    transmit.offer(&[readable(DATA + 0x1000, 5), readable(DATA + 0x1005, 6)]);
    transmit.kick();
    assert_eq!(transmit.wait_used().1, 0);
    let mut seen = [0; 11];
    viewer.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"hello guest");
    assert_eq!(
        receive.take_used(),
        None,
        "no input, no receive buffer used"
    );
    assert_eq!(console.deactivate().len(), 2);
    text.write(b"!");
    viewer.read_exact(&mut seen[..1]).unwrap();
}

#[test]
fn console_refuses_a_flood_in_one_chain() {
    let rig = rig();
    let text = Console::new(&rig.handle).unwrap();
    let mut console = VirtioConsole::new(&rig.handle, &text);
    let (receive, mut transmit) = (rig.queue(0), rig.queue(1));
    rig.activate(&mut console, &[&receive, &transmit]);
    transmit.offer(&[readable(DATA, 1 << 20), readable(DATA, 1)]);
    transmit.kick();
    assert!(rig.events.wait_broken().contains("bytes in one chain"));
}
