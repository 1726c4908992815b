//! One port: its registers (AHCI 1.3.1, 3.3), its device's link, and its commands.

pub(super) mod bits;
mod commands;
mod link;
mod registers;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::bits::{cmd, event};
use super::Attached;
use crate::GuestMemory;

/// Before the first frame of a device.
const NO_TASK_FILE: u32 = 0x7f;
const NO_SIGNATURE: u32 = u32::MAX;
/// What of PxSCTL a driver may change.
const CONTROL_STORED: u32 = 0xfff;

/// What a saved port consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    list: u64,
    received: u64,
    events: u32,
    enabled: u32,
    cmd: u32,
    /// Slot of the last command fetched.
    current: u32,
    /// Slot looked at first for the next.
    turn: u32,
    task: u32,
    signature: u32,
    control: u32,
    errors: u32,
    active: u32,
    issued: u32,
    /// The device is there and talks.
    link: bool,
    /// An error stopped commands until the driver clears ST.
    halted: bool,
    /// The device's first frame waits for a place to go.
    unannounced: bool,
    /// Software reset is asserted.
    soft_reset: bool,
}

impl Registers {
    fn initial() -> Self {
        Self {
            list: 0,
            received: 0,
            events: 0,
            enabled: 0,
            cmd: 0,
            current: 0,
            turn: 0,
            task: NO_TASK_FILE,
            signature: NO_SIGNATURE,
            control: 0,
            errors: 0,
            active: 0,
            issued: 0,
            link: false,
            halted: false,
            unannounced: false,
            soft_reset: false,
        }
    }
}

/// One port.
pub(super) struct Port {
    registers: Registers,
    drive: Option<Arc<dyn Attached>>,
    memory: GuestMemory,
    /// Slots whose commands the drive's thread has.
    in_flight: u32,
    /// They are queued commands.
    queued: bool,
    /// Their epoch.
    taken: u64,
    /// Which commands are still of interest: the driver took back those of earlier epochs.
    epoch: u64,
}

impl Port {
    pub fn new(memory: GuestMemory, drive: Option<Arc<dyn Attached>>) -> Self {
        let mut port = Self {
            registers: Registers::initial(),
            drive,
            memory,
            in_flight: 0,
            queued: false,
            taken: 0,
            epoch: 0,
        };
        port.settle();
        port
    }

    /// Nothing under way.
    pub fn idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether the driver is to be interrupted.
    pub fn interrupting(&self) -> bool {
        self.pending() & self.registers.enabled != 0
    }

    /// Power-on. Nothing is under way.
    pub fn reset(&mut self) {
        self.cancel();
        self.registers = Registers::initial();
        self.settle();
    }

    /// Reset of the controller (AHCI 1.3.1, 10.4.3); [`Port::settle`] follows when all ports
    /// are idle.
    pub fn reset_by_controller(&mut self) {
        self.cancel();
        self.registers = Registers {
            list: self.registers.list,
            received: self.registers.received,
            ..Registers::initial()
        };
    }

    pub fn save(&self) -> Registers {
        self.registers.clone()
    }

    /// Takes saved registers, as far as they make sense. Nothing is under way.
    pub fn restore(&mut self, saved: &Registers) {
        let started = saved.cmd & cmd::START != 0;
        let only_if = |condition: bool, value: u32| if condition { value } else { 0 };
        self.epoch += 1;
        self.registers = Registers {
            list: saved.list & !0x3ff,
            received: saved.received & !0xff,
            events: saved.events & event::STORED,
            enabled: saved.enabled & event::ALL,
            cmd: saved.cmd & cmd::STORED,
            current: saved.current % 32,
            turn: saved.turn % 32,
            control: saved.control & CONTROL_STORED,
            active: only_if(started, saved.active),
            issued: only_if(started, saved.issued),
            link: saved.link && self.drive.is_some(),
            ..saved.clone()
        };
    }
}
