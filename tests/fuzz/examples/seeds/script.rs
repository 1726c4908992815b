//! An input, written down.

use lodge_fuzz::operation::{Offer, Operation, Piece};

/// Target, name and content of an input.
pub type Seed = (&'static str, &'static str, Vec<u8>);

/// Operations one after the other, as bytes.
#[derive(Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// Begins with what the target reads before any operation.
    pub fn after(head: &[u8]) -> Self {
        Self(head.to_vec())
    }

    fn then(mut self, operation: &Operation) -> Self {
        operation.encode(&mut self.0);
        self
    }

    /// A register is read.
    pub fn read(self, range: u8, offset: u16, bytes: u8) -> Self {
        let width = bytes.ilog2() as u8;
        self.then(&Operation::Read {
            range,
            offset,
            width,
        })
    }

    /// A register is written.
    pub fn write(self, range: u8, offset: u16, data: &[u8]) -> Self {
        let data = data.to_vec();
        self.then(&Operation::Write {
            range,
            offset,
            data,
        })
    }

    /// Memory is written.
    pub fn put(self, address: u32, bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        self.then(&Operation::Put { address, bytes })
    }

    /// A chain is offered and the doorbell rung.
    pub fn request(self, queue: u8, pieces: &[Piece]) -> Self {
        self.offer(queue, false, pieces).ring(queue)
    }

    /// A chain is offered.
    pub fn offer(self, queue: u8, indirect: bool, pieces: &[Piece]) -> Self {
        self.then(&Operation::Offer(Offer {
            queue,
            indirect,
            pieces: pieces.to_vec(),
        }))
    }

    /// Something prepared is offered and its doorbell rung, with `flags` in the doorbell's number.
    pub fn command(self, offer: Offer, flags: u8) -> Self {
        let queue = offer.queue;
        self.then(&Operation::Offer(offer)).ring(queue | flags)
    }

    /// A doorbell is rung.
    pub fn ring(self, queue: u8) -> Self {
        self.then(&Operation::Ring { queue })
    }

    /// The machine is saved and goes on.
    pub fn save_restore(self) -> Self {
        self.then(&Operation::SaveRestore)
    }

    /// The machine is switched off and on.
    pub fn power_cycle(self) -> Self {
        self.then(&Operation::PowerCycle)
    }

    /// Something happens on the host's side.
    pub fn host(self, what: u8, bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        self.then(&Operation::Host { what, bytes })
    }

    /// The input.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}
