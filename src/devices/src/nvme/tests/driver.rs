//! What a driver does with a controller: rings, commands, completions.

use std::collections::BTreeMap;

use super::*;

pub(super) const CC: u64 = 0x14;
pub(super) const CSTS: u64 = 0x1c;
pub(super) const AQA: u64 = 0x24;
pub(super) const ASQ: u64 = 0x28;
pub(super) const ACQ: u64 = 0x30;
/// Enabled, with the sizes of entries there are.
pub(super) const ENABLED: u32 = 6 << 16 | 4 << 20 | 1;

const ADMIN_ENTRIES: u32 = 32;
/// Rings of queue 0; those of others follow, each [`RING_STRIDE`] after the last.
const SUBMISSION_RINGS: u64 = 0x1_0000;
const COMPLETION_RINGS: u64 = 0x9_0000;
const RING_STRIDE: u64 = 0x1_0000;
pub(super) const LISTS: u64 = 0x10_0000;
pub(super) const DATA: u64 = 0x40_0000;

pub(super) const OK: u16 = 0;
/// Do not retry.
const DNR: u16 = 1 << 14;

/// A status code of a type, not to be retried.
pub(super) const fn failure(kind: u16, code: u16) -> u16 {
    DNR | kind << 8 | code
}

pub(super) const INVALID_OPCODE: u16 = failure(0, 0x01);
pub(super) const INVALID_FIELD: u16 = failure(0, 0x02);
pub(super) const DATA_TRANSFER: u16 = failure(0, 0x04);
pub(super) const INVALID_NAMESPACE: u16 = failure(0, 0x0b);
pub(super) const PRP_OFFSET: u16 = failure(0, 0x13);
pub(super) const OUT_OF_RANGE: u16 = failure(0, 0x80);
pub(super) const INVALID_QUEUE: u16 = failure(1, 0x01);

/// A pair of queues as its driver sees it.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub size: u32,
    pub tail: u32,
    pub head: u32,
    pub phase: bool,
}

#[derive(Default, Clone)]
pub(super) struct Driver {
    pub pairs: BTreeMap<u16, Pair>,
    next_id: u16,
    /// Doorbells and events in memory, if the driver uses them.
    pub shadow: Option<(u64, u64)>,
}

/// A completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub result: u32,
    pub head: u16,
    pub queue: u16,
    pub id: u16,
    pub status: u16,
}

/// A command without its identifier: code, namespace, data, and doublewords from the 10th.
pub(super) fn command(code: u8, namespace: u32, data: [u64; 2], words: &[u32]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = code;
    bytes[4..8].copy_from_slice(&namespace.to_le_bytes());
    bytes[24..32].copy_from_slice(&data[0].to_le_bytes());
    bytes[32..40].copy_from_slice(&data[1].to_le_bytes());
    for (word, at) in words.iter().zip((40..).step_by(4)) {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A read (2), write (1) or zeroing (8) of blocks of the namespace.
pub(super) fn transfer(code: u8, first: u64, blocks: u32, data: [u64; 2]) -> [u8; 64] {
    let words = [first as u32, (first >> 32) as u32, blocks - 1];
    command(code, 1, data, &words)
}

pub(super) fn submission_ring(queue: u16) -> u64 {
    SUBMISSION_RINGS + u64::from(queue) * RING_STRIDE
}

pub(super) fn completion_ring(queue: u16) -> u64 {
    COMPLETION_RINGS + u64::from(queue) * RING_STRIDE
}

pub(super) fn tail_doorbell(queue: u16) -> u64 {
    0x1000 + u64::from(queue) * 8
}

pub(super) fn head_doorbell(queue: u16) -> u64 {
    tail_doorbell(queue) + 4
}

impl Rig {
    /// As drivers enable a controller.
    pub(super) fn enable(&self) {
        let empty = [0; RING_STRIDE as usize];
        self.put(submission_ring(0), &empty);
        self.put(completion_ring(0), &empty);
        self.write(AQA, (ADMIN_ENTRIES - 1) | (ADMIN_ENTRIES - 1) << 16);
        self.write(ASQ, submission_ring(0) as u32);
        self.write(ASQ + 4, 0);
        self.write(ACQ, completion_ring(0) as u32);
        self.write(ACQ + 4, 0);
        self.write(CC, ENABLED);
        assert_eq!(self.read(CSTS), 1, "ready");
        *self.driver.lock().unwrap() = Driver::default();
        self.begin_pair(0, ADMIN_ENTRIES);
    }

    pub(super) fn disable(&self) {
        self.write(CC, ENABLED & !1);
        assert_eq!(self.read(CSTS), 0);
    }

    fn begin_pair(&self, queue: u16, size: u32) {
        let pair = Pair {
            size,
            tail: 0,
            head: 0,
            phase: true,
        };
        self.driver.lock().unwrap().pairs.insert(queue, pair);
    }

    /// Creates a pair of queues of `size` entries, the interrupt's number that of the queue.
    pub(super) fn create_pair(&self, queue: u16, size: u32) {
        self.put(completion_ring(queue), &[0; RING_STRIDE as usize]);
        let number = u32::from(queue) | (size - 1) << 16;
        let completion = [number, u32::from(queue) << 16 | 3];
        let ring = [completion_ring(queue), 0];
        assert_eq!(self.admin(command(5, 0, ring, &completion)), (OK, 0));
        let submission = [number, u32::from(queue) << 16 | 1];
        let ring = [submission_ring(queue), 0];
        assert_eq!(self.admin(command(1, 0, ring, &submission)), (OK, 0));
        self.begin_pair(queue, size);
    }

    /// Puts a command into a queue, without telling; returns its identifier.
    pub(super) fn fill(&self, queue: u16, mut bytes: [u8; 64]) -> u16 {
        let mut driver = self.driver.lock().unwrap();
        driver.next_id = driver.next_id.wrapping_add(1);
        let id = driver.next_id;
        let pair = driver.pairs.get_mut(&queue).unwrap();
        bytes[2..4].copy_from_slice(&id.to_le_bytes());
        self.put(submission_ring(queue) + u64::from(pair.tail) * 64, &bytes);
        pair.tail = (pair.tail + 1) % pair.size;
        id
    }

    /// Tells the controller of everything filled.
    pub(super) fn ring(&self, queue: u16) {
        let driver = self.driver.lock().unwrap();
        let tail = driver.pairs[&queue].tail;
        let shadow = driver.shadow.filter(|_| queue != 0);
        drop(driver);
        self.doorbell(shadow, tail_doorbell(queue), tail);
    }

    /// Writes a doorbell: the register, or memory and the register if the controller asks for that.
    fn doorbell(&self, shadow: Option<(u64, u64)>, at: u64, value: u32) {
        let Some((doorbells, events)) = shadow else {
            return self.write(at, value);
        };
        let word = |page: u64| GuestAddress(page + at - 0x1000);
        let before: u32 = self.memory.read_obj(word(doorbells)).unwrap();
        let order = std::sync::atomic::Ordering::SeqCst;
        self.memory.store(value, word(doorbells), order).unwrap();
        std::sync::atomic::fence(order);
        let event: u32 = self.memory.load(word(events), order).unwrap();
        let [event, value, before] = [event, value, before].map(|index| index as u16);
        let passed = value.wrapping_sub(event).wrapping_sub(1) < value.wrapping_sub(before);
        if passed {
            self.write(at, value.into());
        }
    }

    pub(super) fn submit(&self, queue: u16, bytes: [u8; 64]) -> u16 {
        let id = self.fill(queue, bytes);
        self.ring(queue);
        id
    }

    /// The next completion, if it is there.
    pub(super) fn poll(&self, queue: u16) -> Option<Completion> {
        let mut driver = self.driver.lock().unwrap();
        let shadow = driver.shadow.filter(|_| queue != 0);
        let pair = driver.pairs.get_mut(&queue)?;
        let at = completion_ring(queue) + u64::from(pair.head) * 16;
        let order = std::sync::atomic::Ordering::Acquire;
        let last: u32 = self.memory.load(GuestAddress(at + 12), order).unwrap();
        if (last >> 16 & 1 == 1) != pair.phase {
            return None;
        }
        let word =
            |offset: u64| -> u32 { self.memory.read_obj(GuestAddress(at + offset)).unwrap() };
        let (result, from) = (word(0), word(8));
        pair.head = (pair.head + 1) % pair.size;
        pair.phase ^= pair.head == 0;
        let head = pair.head;
        drop(driver);
        self.doorbell(shadow, head_doorbell(queue), head);
        Some(Completion {
            result,
            head: from as u16,
            queue: (from >> 16) as u16,
            id: last as u16,
            status: (last >> 17) as u16,
        })
    }

    /// Waits for the next completion.
    pub(super) fn reap(&self, queue: u16) -> Completion {
        let found = Mutex::new(None);
        self.until("a completion", || {
            *found.lock().unwrap() = self.poll(queue);
            found.lock().unwrap().is_some()
        });
        found.into_inner().unwrap().unwrap()
    }

    /// One command; its status and result.
    pub(super) fn run(&self, queue: u16, bytes: [u8; 64]) -> (u16, u32) {
        let id = self.submit(queue, bytes);
        let completion = self.reap(queue);
        assert_eq!((completion.id, completion.queue), (id, queue));
        (completion.status, completion.result)
    }

    pub(super) fn admin(&self, bytes: [u8; 64]) -> (u16, u32) {
        self.run(0, bytes)
    }

    /// One command on queue 1; its status.
    pub(super) fn data(&self, bytes: [u8; 64]) -> u16 {
        self.run(1, bytes).0
    }

    /// A page that Identify gives.
    pub(super) fn identify(&self, which: u32, namespace: u32) -> Vec<u8> {
        let bytes = command(6, namespace, [DATA, 0], &[which]);
        assert_eq!(self.admin(bytes), (OK, 0));
        self.get(DATA, 4096)
    }
}
