//! What a driver does: rings, buffers, packets.

use super::*;

pub(super) const RECEIVE_RING: u64 = 0x1000;
pub(super) const TRANSMIT_RING: u64 = 0x8000;
pub(super) const BUFFERS: u64 = 0x10_0000;
/// Room for each buffer to receive into.
pub(super) const BUFFER_STRIDE: u64 = 0x4000;
pub(super) const OUTGOING: u64 = 0x30_0000;

/// Descriptors of each ring.
pub(super) const RING: u32 = 64;

/// RCTL.
pub(super) const ENABLE: u32 = 1 << 1;
pub(super) const PROMISCUOUS: u32 = 1 << 3 | 1 << 4 | 1 << 15;
pub(super) const LONG: u32 = 1 << 5;
pub(super) const SPLIT: u32 = 1 << 10;
pub(super) const SIZE_256: u32 = 3 << 16;
pub(super) const STRIP_CHECKSUM: u32 = 1 << 26;

/// Command of a transmit descriptor.
pub(super) const END: u32 = 1 << 24;
pub(super) const TCP: u32 = 1 << 24;
pub(super) const IPV4: u32 = 1 << 25;
pub(super) const SEGMENT: u32 = 1 << 26;
pub(super) const REPORT: u32 = 1 << 27;
pub(super) const EXTENDED: u32 = 1 << 29;
pub(super) const TAG: u32 = 1 << 30;
pub(super) const DATA: u32 = 1 << 20;

/// Registers of the first rings.
pub(super) const RDH: u64 = at::RDBAL + 0x10;
pub(super) const RDT: u64 = at::RDBAL + 0x18;
pub(super) const TDH: u64 = at::TDBAL + 0x10;
pub(super) const TDT: u64 = at::TDBAL + 0x18;

/// How receive descriptors look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Legacy,
    Extended,
    Split,
}

/// Where the driver stands.
#[derive(Default)]
pub(super) struct Driver {
    pub format: Format,
    /// The descriptor that the next packet comes in.
    pub next: u64,
    /// The next to send with.
    pub tail: u64,
}

impl Rig {
    /// A rig with a driver that receives everything.
    pub(super) fn started() -> Self {
        let mut rig = Self::new();
        rig.start(Format::Extended, PROMISCUOUS | STRIP_CHECKSUM);
        rig.give_buffers(RING - 1);
        rig
    }

    /// Resets the card and sets its rings up. Buffers are to be given.
    pub(super) fn start(&mut self, format: Format, receive_control: u32) {
        self.write(at::IMC, u32::MAX);
        self.write(at::CTRL, 1 << 26);
        self.driver = Driver {
            format,
            ..Driver::default()
        };
        self.set_ring(at::RDBAL, RECEIVE_RING, RING * 16 * self.pieces() as u32);
        self.set_ring(at::TDBAL, TRANSMIT_RING, RING * 16);
        self.put(RECEIVE_RING, &[0; RING as usize * 32]);
        if format != Format::Legacy {
            self.write(at::RFCTL, 1 << 15);
        }
        let split = if format == Format::Split { SPLIT } else { 0 };
        self.write(at::RCTL, ENABLE | split | receive_control);
        self.write(at::TCTL, ENABLE);
    }

    pub(super) fn set_ring(&self, first: u64, base: u64, bytes: u32) {
        self.write(first, base as u32);
        self.write(first + 4, (base >> 32) as u32);
        self.write(first + 8, bytes);
        self.write(first + 0x10, 0);
        self.write(first + 0x18, 0);
    }

    fn pieces(&self) -> u64 {
        if self.driver.format == Format::Split {
            2
        } else {
            1
        }
    }

    fn descriptor(&self, number: u64) -> u64 {
        RECEIVE_RING + number * 16 * self.pieces()
    }

    /// Writes the addresses of its buffers into a descriptor.
    fn refill(&self, number: u64) {
        let descriptor = self.descriptor(number);
        let buffer = BUFFERS + number * BUFFER_STRIDE;
        for part in 0..2 * self.pieces() {
            let address = if part == 0 || self.pieces() == 2 {
                buffer + part * 0x1000
            } else {
                0
            };
            self.put(descriptor + 8 * part, &address.to_le_bytes());
        }
    }

    /// Fills all descriptors and gives the card the first `count`, at most all but one.
    pub(super) fn give_buffers(&self, count: u32) {
        for number in 0..u64::from(RING) {
            self.refill(number);
        }
        self.write(RDT, count * self.pieces() as u32);
    }

    /// The next packet of ours, the number of descriptors it came in, and status and tag of the
    /// last. The buffers are given back.
    pub(super) fn take(&mut self) -> (Vec<u8>, usize, u8, u16) {
        loop {
            let taken = self.take_any();
            if is_ours(&taken.0) {
                return taken;
            }
        }
    }

    pub(super) fn take_frame(&mut self) -> Vec<u8> {
        self.take().0
    }

    fn take_any(&mut self) -> (Vec<u8>, usize, u8, u16) {
        let mut packet = Vec::new();
        for count in 1.. {
            let number = self.driver.next;
            let descriptor = self.descriptor(number);
            let status_at = descriptor
                + if self.driver.format == Format::Legacy {
                    12
                } else {
                    8
                };
            self.until("a packet", || self.get(status_at, 1)[0] & 1 != 0);
            let word = self.word(descriptor + 8);
            let first = match self.driver.format {
                Format::Legacy => word as u16,
                Format::Extended | Format::Split => (word >> 32) as u16,
            };
            let mut lengths = [first, 0, 0, 0];
            if self.driver.format == Format::Split {
                let rest = self.word(descriptor + 16);
                lengths[1..].copy_from_slice(&[16, 32, 48].map(|shift| (rest >> shift) as u16));
            }
            for (part, length) in (0..).zip(lengths) {
                let buffer = BUFFERS + number * BUFFER_STRIDE + part * 0x1000;
                packet.extend(self.get(buffer, length.into()));
            }
            let status = self.get(status_at, 1)[0];
            self.refill(number);
            // One less than all, as the ring would be empty otherwise.
            self.write(RDT, number as u32 * self.pieces() as u32);
            self.driver.next = (number + 1) % u64::from(RING);
            if status & 2 != 0 {
                return (packet, count, status, (word >> 48) as u16);
            }
        }
        unreachable!()
    }

    /// Puts a descriptor in the transmit ring, for the card to see at the next [`Rig::ring`].
    pub(super) fn prepare(&mut self, address: u64, lower: u32, upper: u32) -> u64 {
        let descriptor = TRANSMIT_RING + self.driver.tail * 16;
        self.put(descriptor, &address.to_le_bytes());
        self.put(descriptor + 8, &lower.to_le_bytes());
        self.put(descriptor + 12, &upper.to_le_bytes());
        self.driver.tail = (self.driver.tail + 1) % u64::from(RING);
        descriptor
    }

    /// Shows the card what was prepared.
    pub(super) fn ring(&self) {
        self.write(TDT, self.driver.tail as u32);
    }

    /// Waits until a descriptor that reports is done.
    pub(super) fn wait_done(&self, descriptor: u64) {
        self.until("a descriptor", || self.get(descriptor + 12, 1)[0] & 1 != 0);
        // The interrupt comes after the descriptor; whoever reads a register waits for it.
        self.read(at::STATUS);
    }

    /// Sends a frame in one descriptor.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.put(OUTGOING, frame);
        let descriptor = self.prepare(OUTGOING, frame.len() as u32 | END | REPORT, 0);
        self.ring();
        self.wait_done(descriptor);
    }

    /// Everything still works.
    pub(super) fn works(&mut self) {
        self.start(Format::Legacy, PROMISCUOUS | STRIP_CHECKSUM);
        self.give_buffers(RING - 1);
        self.wire.drain();
        self.send(&frame(100, 77));
        while self.wire.receive() != frame(100, 77) {}
        self.wire.send(&frame(100, 78));
        while self.take_frame() != frame(100, 78) {}
    }
}
