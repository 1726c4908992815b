//! Descriptor chains alone, without a device.

use lodge_devices::GuestMemory;
use lodge_devices::virtio::chain::{self, Chain, Limits};
use virtio_queue::{Queue, QueueState, QueueT as _};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};

use crate::board::ram;
use crate::input::Input;

/// Where the three rings are, one after the other, and what else the input fills.
const BASE: u64 = 0x1000;

/// A queue whose rings, and what is behind them, are the input.
///
/// # Panics
/// When a chain is more than the device allows or lies outside guest memory, or a queue that never ends.
pub fn chains(data: &[u8]) {
    let mut input = Input::new(data);
    let (Some(shape), Some(next), Some(bytes)) = (input.u8(), input.u16(), input.u16()) else {
        return;
    };
    let size = 1 << (shape % 9);
    let limits = Limits {
        segments: 1 + usize::from(next % 64),
        bytes: 1 + u64::from(bytes) * 16,
    };
    let memory = ram();
    // The rest of what is longer than memory is nobody's.
    let _ = memory.write(input.rest(), GuestAddress(BASE));
    let available = BASE + 16 * u64::from(size);
    let state = QueueState {
        max_size: 256,
        next_avail: next,
        next_used: next,
        event_idx_enabled: shape & 0x80 != 0,
        size,
        ready: true,
        desc_table: BASE,
        avail_ring: available,
        used_ring: (available + 6 + 2 * u64::from(size)).next_multiple_of(4),
    };
    let mut queue = Queue::try_from(state).expect("a queue as the transport makes it");
    if !queue.is_valid(&memory) {
        return;
    }
    let mut chain = Chain::default();
    // Returned heads are written to the used ring, which may be where the others are: 65536 chains are
    // possible, and a few of them enough.
    for _ in 0..2 * size {
        let before = chain::available(&queue, &memory).ok();
        match chain::pop(&mut queue, &memory, limits, &mut chain) {
            Ok(true) => check(&chain, &memory, limits, size),
            Ok(false) => {
                assert_eq!(before, Some(0), "chains that are not taken");
                break;
            }
            Err(_) => break,
        }
        if chain::finish(&mut queue, &memory, chain.head, 0).is_err() {
            break;
        }
    }
}

fn check(chain: &Chain, memory: &GuestMemory, limits: Limits, size: u16) {
    assert!(chain.head < size);
    let segments = || {
        chain
            .readable
            .segments()
            .iter()
            .chain(chain.writable.segments())
    };
    assert!(segments().count() <= limits.segments);
    assert!(chain.readable.len() + chain.writable.len() <= limits.bytes);
    for segment in segments() {
        assert!(segment.length > 0);
        assert!(memory.check_range(segment.address, segment.length as usize));
    }
}
