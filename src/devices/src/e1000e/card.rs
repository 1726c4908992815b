//! The card behind its registers (82574 datasheet, 10.2).
//!
//! One lock covers all of it. vCPUs take it for each access; the thread that moves packets takes it for each packet and
//! holds it while it reads or writes guest memory, so that a driver that has switched something off, or reset the card, finds
//! its memory left alone. Nobody waits for anything else while holding it.

use std::io;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::clock::{self, Clock};
use super::counters::Counters;
use super::frame::Frame;
use super::interrupts::{Causes, Interrupts, cause};
use super::nvm::Nvm;
use super::phy::{self, Phy};
use super::receive::{self, Delivery};
use super::registers::{Changed, Registers, at};
use super::ring::Ring;
use super::transmit::{self, Step, Transmitter};
use crate::GuestMemory;

/// Rings of each kind.
const RINGS: usize = 2;
/// How far apart their registers are.
const RING_STRIDE: u64 = 0x100;

/// CTRL.
mod control {
    /// No more accesses to memory.
    pub const MASTER_DISABLE: u32 = 1 << 2;
    pub const RESET: u32 = 1 << 26;
    pub const PHY_RESET: u32 = 1 << 31;
}

/// STATUS.
mod status {
    /// Full duplex, gigabit, and detected as such.
    pub const ALWAYS: u32 = 1 << 0 | 2 << 6 | 2 << 8;
    pub const LINK: u32 = 1 << 1;
    /// Accesses to memory may be under way.
    pub const MASTER: u32 = 1 << 19;
}

/// EECD: who asks for the NVM's serial interface gets it; there is an NVM, and it has been read.
mod eecd {
    pub const REQUEST: u32 = 1 << 6;
    pub const GRANT: u32 = 1 << 7;
    pub const PRESENT: u32 = 1 << 8;
    pub const READ: u32 = 1 << 9;
}

/// RCTL and TCTL: on.
const ENABLE: u32 = 1 << 1;

/// RAH: the entry counts.
const ADDRESS_VALID: u32 = 1 << 31;

/// KiB of the buffer that PBA divides between both directions.
const PACKET_BUFFER: u32 = 40;

struct Core {
    memory: GuestMemory,
    mac: [u8; 6],
    nvm: Nvm,
    registers: Registers,
    eerd: u32,
    mdic: u32,
    phy: Phy,
    interrupts: Interrupts,
    counters: Counters,
    clock: Clock,
    receivers: [Ring; RINGS],
    transmitters: [Transmitter; RINGS],
    /// The transmit ring whose turn it is.
    turn: usize,
    /// The function may access memory (PCI command register).
    bus_master: bool,
    /// A packet waits until the driver can receive.
    waiting: bool,
    paused: bool,
}

/// What of the card can be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    mac: [u8; 6],
    registers: Changed,
    eerd: u32,
    mdic: u32,
    phy: phy::Saved,
    /// The driver knows of a cable.
    #[serde(default = "always_plugged")]
    plugged: bool,
    causes: Causes,
    counters: Counters,
    clock: clock::Saved,
    receivers: [Ring; RINGS],
    transmitters: [transmit::Saved; RINGS],
}

/// Before cables could be pulled.
fn always_plugged() -> bool {
    true
}

/// The card, shared between vCPUs and the thread.
pub(super) struct Card {
    core: Mutex<Core>,
    kick: EventFd,
}

impl Card {
    pub fn new(memory: GuestMemory, mac: [u8; 6], interrupts: Interrupts) -> io::Result<Self> {
        let core = Core {
            memory,
            mac,
            nvm: Nvm::new(mac),
            registers: initial(mac),
            eerd: 0,
            mdic: 0,
            phy: Phy::new(true),
            interrupts,
            counters: Counters::new(),
            clock: Clock::new(true),
            receivers: Default::default(),
            transmitters: Default::default(),
            turn: 0,
            bus_master: false,
            waiting: false,
            paused: false,
        };
        Ok(Self {
            core: Mutex::new(core),
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Signalled when there may be something to do.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    fn ring(&self) {
        // A full counter wakes just as well.
        let _ = self.kick.write(1);
    }

    /// Takes the next packet that the driver sends, with the tap's header in front.
    pub fn next_packet(&self, packet: &mut Vec<u8>) -> Step {
        self.core.lock().unwrap().next_packet(packet)
    }

    /// Gives the driver a packet; false when it has to wait for a kick.
    pub fn deliver(&self, frame: &mut Frame) -> bool {
        self.core.lock().unwrap().deliver(frame)
    }

    /// Reads the register at `offset`, a multiple of 4.
    pub fn read(&self, offset: u64) -> u32 {
        self.core.lock().unwrap().read(offset)
    }

    /// Writes it.
    pub fn write(&self, offset: u64, value: u32) {
        let mut core = self.core.lock().unwrap();
        if core.write(offset, value) && core.has_work() {
            self.ring();
        }
    }

    /// Follows the PCI side; `act` brings interrupts up to date.
    pub fn sync(&self, bus_master: bool, act: impl FnOnce(&mut Interrupts, &Registers)) {
        let mut core = self.core.lock().unwrap();
        let Core {
            interrupts,
            registers,
            ..
        } = &mut *core;
        act(interrupts, registers);
        core.bus_master = bus_master;
        if core.has_work() {
            self.ring();
        }
    }

    /// Plugs the cable in, or pulls it.
    pub fn plug(&self, plugged: bool) {
        let mut core = self.core.lock().unwrap();
        if core.phy.plug(plugged) {
            core.raise(cause::LSC);
            if core.has_work() {
                self.ring();
            }
        }
    }

    /// Power-on. The thread does not run.
    pub fn reset(&self) {
        let mut core = self.core.lock().unwrap();
        core.reset();
        core.phy = Phy::new(core.phy.plugged());
    }

    /// The thread has stopped.
    pub fn pause(&self) {
        let mut core = self.core.lock().unwrap();
        core.paused = true;
        core.clock.pause();
    }

    /// The thread is about to start.
    pub fn resume(&self) {
        let mut core = self.core.lock().unwrap();
        core.paused = false;
        core.clock.resume();
    }

    pub fn save(&self) -> Saved {
        let core = self.core.lock().unwrap();
        Saved {
            mac: core.mac,
            registers: core.registers.save(),
            eerd: core.eerd,
            mdic: core.mdic,
            phy: core.phy.save(),
            plugged: core.phy.plugged(),
            causes: core.interrupts.save(),
            counters: core.counters.clone(),
            clock: core.clock.save(),
            receivers: core.receivers,
            transmitters: core.transmitters.each_ref().map(Transmitter::save),
        }
    }

    /// Whether [`Card::restore`] would take this.
    pub fn check(&self, saved: &Saved) -> Result<(), String> {
        let mac = self.core.lock().unwrap().mac;
        if saved.mac != mac {
            return Err(format!(
                "the card had MAC {:02x?}, this one has {mac:02x?}",
                saved.mac
            ));
        }
        if !saved.counters.complete() {
            return Err("another number of statistics registers".to_owned());
        }
        Ok(())
    }

    /// Takes what [`Card::check`] found right. The thread does not run.
    pub fn restore(&self, saved: &Saved) {
        let mut core = self.core.lock().unwrap();
        let core = &mut *core;
        core.registers = Registers::restore(&saved.registers);
        core.eerd = saved.eerd;
        core.mdic = saved.mdic;
        let plugged = core.phy.plugged();
        core.phy = Phy::restore(&saved.phy, plugged);
        core.counters = saved.counters.clone();
        core.clock = Clock::restore(saved.clock, !core.paused);
        core.receivers = saved.receivers.map(Ring::restored);
        core.transmitters = saved.transmitters.each_ref().map(Transmitter::restore);
        core.waiting = false;
        core.interrupts.restore(saved.causes, &core.registers);
        if saved.plugged != plugged {
            core.raise(cause::LSC);
        }
    }
}

/// Registers after a reset, with the address from the NVM in the table of addresses.
fn initial(mac: [u8; 6]) -> Registers {
    let [a, b, c, d, e, f] = mac;
    let mut registers = Registers::new();
    registers.write(at::RAL0, u32::from_le_bytes([a, b, c, d]));
    let high = u32::from(u16::from_le_bytes([e, f]));
    registers.write(at::RAH0, high | ADDRESS_VALID);
    registers
}

/// Which ring's which register `offset` is, if `first` is the first ring's first.
fn ring_at(offset: u64, first: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(first)?;
    let ring = usize::try_from(offset / RING_STRIDE).ok()?;
    (ring < RINGS).then_some((ring, offset % RING_STRIDE))
}

impl Core {
    /// CTRL.RST: all but the transceiver.
    fn reset(&mut self) {
        self.registers = initial(self.mac);
        self.eerd = 0;
        self.mdic = 0;
        self.counters = Counters::new();
        self.clock = Clock::new(!self.paused);
        self.receivers = Default::default();
        self.transmitters = Default::default();
        self.interrupts.reset(&self.registers);
    }

    fn raise(&mut self, causes: u32) {
        self.interrupts.raise(causes, &self.registers);
    }

    /// Whether the card may access memory.
    fn master(&self) -> bool {
        self.bus_master && !self.registers.has(at::CTRL, control::MASTER_DISABLE)
    }

    fn can_send(&self) -> bool {
        self.master() && self.phy.link_up() && self.registers.has(at::TCTL, ENABLE)
    }

    /// Whether the thread has something to do that it does not know of.
    fn has_work(&mut self) -> bool {
        let send = |sender: &Transmitter| sender.ring.available() > 0;
        std::mem::take(&mut self.waiting) || self.can_send() && self.transmitters.iter().any(send)
    }

    fn next_packet(&mut self, packet: &mut Vec<u8>) -> Step {
        if !self.can_send() {
            return Step::Idle;
        }
        let mut more = Step::Idle;
        for _ in 0..RINGS {
            let queue = self.turn;
            self.turn = (queue + 1) % RINGS;
            let (step, causes) = self.transmitters[queue].step(
                queue as u32,
                &self.registers,
                &mut self.counters,
                &self.memory,
                packet,
            );
            if causes != 0 {
                self.raise(causes);
            }
            match step {
                Step::Packet => return step,
                Step::More => more = step,
                Step::Idle => {}
            }
        }
        more
    }

    fn deliver(&mut self, frame: &mut Frame) -> bool {
        if !self.phy.link_up() {
            return true;
        }
        let delivery = if self.master() && self.registers.has(at::RCTL, ENABLE) {
            receive::deliver(
                &mut self.receivers[0],
                &self.registers,
                &mut self.counters,
                &self.memory,
                frame,
            )
        } else {
            Delivery::Blocked
        };
        match delivery {
            Delivery::Delivered(causes) => self.raise(causes),
            Delivery::Dropped => {}
            Delivery::Blocked => {
                self.waiting = true;
                return false;
            }
        }
        true
    }

    fn status(&self) -> u32 {
        let mut value = status::ALWAYS;
        if self.phy.link_up() {
            value |= status::LINK;
        }
        if !self.registers.has(at::CTRL, control::MASTER_DISABLE) {
            value |= status::MASTER;
        }
        value
    }

    fn nvm_control(&self) -> u32 {
        let mut value = self.registers.get(at::EECD) | eecd::PRESENT | eecd::READ;
        if value & eecd::REQUEST != 0 {
            value |= eecd::GRANT;
        }
        value
    }

    /// PBA: what is not for packets received is for those sent.
    fn packet_buffer(&self) -> u32 {
        let receive = self.registers.get(at::PBA);
        PACKET_BUFFER.saturating_sub(receive) << 16 | receive
    }

    fn read(&mut self, offset: u64) -> u32 {
        match offset {
            at::CTRL_DUP => self.registers.get(at::CTRL),
            at::STATUS => self.status(),
            at::EECD => self.nvm_control(),
            at::EERD => self.eerd,
            at::MDIC => self.mdic,
            at::ICR => self.interrupts.take(&self.registers),
            at::ICS => self.interrupts.pending(),
            at::IMS | at::IMC => self.interrupts.enabled(),
            at::PBA => self.packet_buffer(),
            at::SYSTIML => self.clock.value() as u32,
            at::SYSTIMH => (self.clock.value() >> 32) as u32,
            at::TIMINCA => self.clock.increment(),
            _ if Counters::contain(offset) => self.counters.read(offset),
            _ => self.read_ring(offset),
        }
    }

    fn read_ring(&self, offset: u64) -> u32 {
        let receiver = ring_at(offset, at::RDBAL);
        let sender = ring_at(offset, at::TDBAL);
        let value = match (receiver, sender) {
            (Some((ring, at)), _) => self.receivers[ring].read(at),
            (None, Some((ring, at))) => self.transmitters[ring].ring.read(at),
            (None, None) => None,
        };
        value.unwrap_or_else(|| self.registers.get(offset))
    }

    /// Tells whether the thread may have to know.
    fn write(&mut self, offset: u64, value: u32) -> bool {
        match offset {
            at::CTRL | at::CTRL_DUP => self.write_control(value),
            at::EERD => self.eerd = self.nvm.read(value),
            at::MDIC => self.write_mdic(value),
            at::ICR => self.interrupts.acknowledge(value, &self.registers),
            at::ICS => self.interrupts.set(value, &self.registers),
            at::IMS => self.interrupts.enable(value, &self.registers),
            at::IMC => self.interrupts.disable(value, &self.registers),
            at::SYSTIML => {
                let high = self.clock.value() & !0xffff_ffff;
                self.clock.set(high | u64::from(value));
            }
            at::SYSTIMH => {
                let low = self.clock.value() & 0xffff_ffff;
                self.clock.set(low | u64::from(value) << 32);
            }
            at::TIMINCA => self.clock.set_increment(value),
            at::RCTL | at::TCTL => self.registers.write(offset, value),
            _ if self.write_ring(offset, value) => {}
            _ => {
                self.registers.write(offset, value);
                return false;
            }
        }
        !matches!(offset, at::ICR | at::ICS | at::IMS | at::IMC)
    }

    fn write_control(&mut self, value: u32) {
        self.registers.write(at::CTRL, value);
        if value & control::RESET != 0 {
            self.reset();
        }
        if value & control::PHY_RESET != 0 {
            self.phy = Phy::new(self.phy.plugged());
            self.raise(cause::LSC);
        }
    }

    fn write_mdic(&mut self, value: u32) {
        let access = self.phy.access(value);
        self.mdic = access.mdic;
        let mut causes = 0;
        if access.interrupt {
            causes |= cause::MDAC;
        }
        if access.link_changed {
            causes |= cause::LSC;
        }
        self.raise(causes);
    }

    fn write_ring(&mut self, offset: u64, value: u32) -> bool {
        match (ring_at(offset, at::RDBAL), ring_at(offset, at::TDBAL)) {
            (Some((ring, at)), _) => self.receivers[ring].write(at, value),
            (None, Some((ring, at))) => self.transmitters[ring].ring.write(at, value),
            (None, None) => false,
        }
    }
}
