//! Packets from the driver: a transmit ring and the packet under way on it (82574 datasheet, 7.2).

mod descriptor;
mod offload;

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes as _, GuestAddress};

use self::descriptor::{Context, Data, Descriptor};
use self::offload::Plan;
use super::counters::{Counters, Destination, counter};
use super::filter::FCS_BYTES;
use super::frame::{ADDRESSES, ETHERNET_HEADER, TAG};
use super::interrupts::cause;
use super::registers::{Registers, at};
use super::ring::Ring;
use crate::GuestMemory;
use crate::tap::{HEADER_BYTES, MAX_PACKET};

/// Descriptors looked at before others get a turn.
const BUDGET: usize = 64;

/// Where a descriptor's status is, and the bit that says that it is done.
const STATUS: u64 = 12;
const DONE: u32 = 1 << 0;

/// CTRL: drivers may have tags put in.
const VLAN_MODE: u32 = 1 << 30;

/// What came of looking at a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to do.
    Idle,
    /// There may be more.
    More,
    /// There is a packet to send.
    Packet,
}

/// A ring, and what is left of its descriptors.
#[derive(Default)]
pub(super) struct Transmitter {
    pub ring: Ring,
    context: Context,
    /// The packet under way, with room for the tap's header in front.
    packet: Vec<u8>,
    plan: Option<Plan>,
    /// The packet under way is none that could be sent.
    broken: bool,
}

/// A ring with what of it can be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    ring: Ring,
    context: Context,
    /// A packet was under way: what is still to come of it is not sent, as if a wire had eaten
    /// the packet.
    broken: bool,
}

impl Transmitter {
    pub fn save(&self) -> Saved {
        Saved {
            ring: self.ring,
            context: self.context,
            broken: self.broken || self.plan.is_some(),
        }
    }

    pub fn restore(saved: &Saved) -> Self {
        Self {
            ring: saved.ring.restored(),
            context: saved.context,
            broken: saved.broken,
            ..Self::default()
        }
    }

    /// Looks at the next descriptors, until there is a packet. It is in `packet` then, with the tap's header. Also tells the
    /// causes to interrupt; `queue` is the ring's number.
    pub fn step(
        &mut self,
        queue: u32,
        registers: &Registers,
        counters: &mut Counters,
        memory: &GuestMemory,
        packet: &mut Vec<u8>,
    ) -> (Step, u32) {
        let mut causes = 0;
        for _ in 0..BUDGET {
            if self.ring.available() == 0 {
                return (Step::Idle, causes);
            }
            let address = self.ring.address();
            let Some(bytes) = self.ring.fetch(memory) else {
                return (Step::Idle, causes);
            };
            let ended = match descriptor::decode(&bytes) {
                Descriptor::Context(context) => {
                    self.context = context;
                    None
                }
                Descriptor::Data(data) => self.append(&data, memory),
            };
            if descriptor::reports(&bytes) {
                report(&bytes, memory, address);
                causes |= cause::TXDW | cause::TXQ0 << queue;
            }
            self.ring.advance(1);
            if self.ring.available() == 0 {
                causes |= cause::TXQE;
            }
            if let Some(last) = ended
                && self.finish(&last, registers, counters)
            {
                std::mem::swap(&mut self.packet, packet);
                self.packet.clear();
                return (Step::Packet, causes);
            }
        }
        (Step::More, causes)
    }

    /// Adds a piece to the packet under way; gives it back if it is the last.
    fn append(&mut self, data: &Data, memory: &GuestMemory) -> Option<Data> {
        if self.plan.is_none() && !self.broken {
            self.plan = Some(Plan::new(self.context, data));
            self.packet.clear();
            self.packet.resize(HEADER_BYTES, 0);
        }
        let (before, length) = (self.packet.len(), data.length as usize);
        if before + length > MAX_PACKET {
            self.broken = true;
        }
        if !self.broken {
            self.packet.resize(before + length, 0);
            let read = memory.read_slice(&mut self.packet[before..], GuestAddress(data.address));
            self.broken = read.is_err();
        }
        data.end.then_some(*data)
    }

    /// Completes the packet; tells whether it can be sent.
    fn finish(&mut self, last: &Data, registers: &Registers, counters: &mut Counters) -> bool {
        let plan = self.plan.take().unwrap_or_default();
        let broken = std::mem::take(&mut self.broken);
        let packet = &mut self.packet;
        if broken || packet.len() < HEADER_BYTES + ETHERNET_HEADER {
            return false;
        }
        let frame = &mut packet[HEADER_BYTES..];
        let Some(mut header) = offload::prepare(frame, &plan, last.legacy) else {
            if plan.segment {
                counters.count(counter::NOT_SEGMENTED);
            }
            return false;
        };
        if plan.segment {
            counters.count(counter::SEGMENTED);
        }
        let bytes = (frame.len() + FCS_BYTES) as u64;
        counters.sent(Destination::of(frame), bytes);
        if let Some(tag) = last.tag.filter(|_| registers.has(at::CTRL, VLAN_MODE)) {
            // Two bytes, by the register's mask.
            let kind = (registers.get(at::VET) as u16).to_be_bytes();
            let tag = tag.to_be_bytes();
            let place = HEADER_BYTES + ADDRESSES;
            packet.splice(place..place, [kind[0], kind[1], tag[0], tag[1]]);
            header.shift(TAG as u16);
        }
        packet[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        true
    }
}

/// Says in a descriptor that it is done.
fn report(bytes: &[u8; 16], memory: &GuestMemory, descriptor: GuestAddress) {
    let kept = u32::from_le_bytes([0, bytes[13], bytes[14], bytes[15]]);
    let address = GuestAddress(descriptor.0.wrapping_add(STATUS));
    // It was read from there.
    let _ = memory.store((kept | DONE).to_le(), address, Ordering::Release);
}
