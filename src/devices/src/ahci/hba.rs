//! The controller's global registers (AHCI 1.3.1, 3.1) and what all ports share.
//!
//! One lock covers all registers. vCPUs take it for each access, drives' threads to fetch and
//! to complete a command; nobody waits for anything while holding it.

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::interrupts::Interrupts;
use super::issue::Ticket;
use super::port::{Port, Registers};
use super::{Attached, PORTS};
use crate::GuestMemory;

const CAP_AT: u64 = 0x00;
const GHC_AT: u64 = 0x04;
const IS_AT: u64 = 0x08;
const PI_AT: u64 = 0x0c;
const VS_AT: u64 = 0x10;
/// First port's registers, and how far apart ports are.
pub(super) const PORT_AT: u64 = 0x100;
pub(super) const PORT_STRIDE: u64 = 0x80;

/// 64-bit addresses, native queuing, command list override, second generation speed, AHCI only,
/// 32 slots.
const CAP: u32 = 1 << 31 | 1 << 30 | 1 << 24 | 2 << 20 | 1 << 18 | 31 << 8 | (PORTS as u32 - 1);
const VERSION: u32 = 0x0001_0300;

mod ghc {
    pub const RESET: u32 = 1 << 0;
    pub const INTERRUPTS: u32 = 1 << 1;
    pub const AHCI: u32 = 1 << 31;
}

/// The global registers that can be saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Global {
    interrupts_enabled: bool,
    /// Ports that have something to say.
    status: u32,
}

struct Core {
    global: Global,
    /// A reset waits for commands under way.
    resetting: bool,
    /// The function may access memory (PCI command register).
    bus_master: bool,
    ports: [Port; PORTS],
    interrupts: Interrupts,
}

/// The registers, shared between vCPUs and drives' threads.
pub(super) struct Hba {
    core: Mutex<Core>,
    kicks: Vec<EventFd>,
}

impl Hba {
    pub fn new(
        memory: &GuestMemory,
        drives: [Option<Arc<dyn Attached>>; PORTS],
        interrupts: Interrupts,
    ) -> io::Result<Self> {
        let kick = |_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let core = Core {
            global: Global::default(),
            resetting: false,
            bus_master: false,
            ports: drives.map(|drive| Port::new(memory.clone(), drive)),
            interrupts,
        };
        Ok(Self {
            core: Mutex::new(core),
            kicks: (0..PORTS).map(kick).collect::<io::Result<_>>()?,
        })
    }

    /// Signalled when port `port` may have something to do.
    pub fn kick(&self, port: usize) -> &EventFd {
        &self.kicks[port]
    }

    fn ring(&self, port: usize) {
        // A full counter wakes just as well.
        let _ = self.kicks[port].write(1);
    }

    fn ring_all(&self) {
        for port in 0..PORTS {
            self.ring(port);
        }
    }

    /// The next command of port `port`, if there is one and the function may access memory.
    pub fn peek(&self, port: usize) -> Option<Ticket> {
        let core = self.core.lock().unwrap();
        core.ports[port].peek().filter(|_| core.bus_master)
    }

    /// What a drive's thread does with its port.
    pub fn with_port<R>(&self, port: usize, act: impl FnOnce(&mut Port) -> R) -> R {
        let mut core = self.core.lock().unwrap();
        let result = act(&mut core.ports[port]);
        core.settle();
        core.update(false);
        result
    }

    /// Reads the doubleword at `offset`, a multiple of 4.
    pub fn read(&self, offset: u64) -> u32 {
        let core = self.core.lock().unwrap();
        match offset {
            CAP_AT => CAP,
            GHC_AT => core.control(),
            IS_AT => core.global.status,
            PI_AT => (1 << PORTS) - 1,
            VS_AT => VERSION,
            _ => match port_at(offset) {
                Some((port, at)) => core.ports[port].read(at),
                None => 0,
            },
        }
    }

    /// Writes the doubleword at `offset`, a multiple of 4.
    pub fn write(&self, offset: u64, value: u32) {
        let mut core = self.core.lock().unwrap();
        // Until a reset is over, registers do not listen.
        if core.resetting {
            return;
        }
        let mut news = false;
        match offset {
            GHC_AT => news = core.write_control(value),
            IS_AT => {
                core.global.status &= !value;
                // What is left is told again (AHCI 1.3.1, 10.6.2.1).
                news = true;
            }
            _ => {
                if let Some((port, at)) = port_at(offset)
                    && core.ports[port].write(at, value)
                {
                    self.ring(port);
                }
            }
        }
        core.settle();
        core.update(news);
    }

    /// Follows the PCI side; `act` brings interrupts up to date.
    pub fn sync(&self, bus_master: bool, act: impl FnOnce(&mut Interrupts)) {
        let mut core = self.core.lock().unwrap();
        act(&mut core.interrupts);
        if bus_master && !core.bus_master {
            self.ring_all();
        }
        core.bus_master = bus_master;
    }

    /// Power-on. No thread runs.
    pub fn reset(&self) {
        let mut core = self.core.lock().unwrap();
        core.global = Global::default();
        core.resetting = false;
        for port in &mut core.ports {
            port.reset();
        }
        core.update(false);
    }

    pub fn save(&self) -> (Global, Vec<Registers>) {
        let core = self.core.lock().unwrap();
        let ports = core.ports.iter().map(Port::save).collect();
        (core.global.clone(), ports)
    }

    /// Takes saved registers. No thread runs.
    pub fn restore(&self, global: &Global, ports: &[Registers]) {
        let mut core = self.core.lock().unwrap();
        core.resetting = false;
        core.global.interrupts_enabled = global.interrupts_enabled;
        core.global.status = global.status & ((1 << PORTS) - 1);
        for (port, saved) in core.ports.iter_mut().zip(ports) {
            port.restore(saved);
        }
        core.settle();
        core.update(false);
        core.interrupts.force();
    }
}

impl Core {
    fn control(&self) -> u32 {
        let mut value = ghc::AHCI;
        if self.resetting {
            value |= ghc::RESET;
        }
        if self.global.interrupts_enabled {
            value |= ghc::INTERRUPTS;
        }
        value
    }

    /// Tells whether everything pending is news.
    fn write_control(&mut self, value: u32) -> bool {
        if value & ghc::RESET != 0 {
            self.global = Global::default();
            self.resetting = true;
            for port in &mut self.ports {
                port.reset_by_controller();
            }
            return false;
        }
        let before = self.global.interrupts_enabled;
        self.global.interrupts_enabled = value & ghc::INTERRUPTS != 0;
        !before
    }

    /// Does what waited for commands under way.
    fn settle(&mut self) {
        if self.resetting {
            if !self.ports.iter().all(Port::idle) {
                return;
            }
            self.resetting = false;
        }
        for port in &mut self.ports {
            port.settle();
        }
    }

    /// Brings interrupts up to date after anything may have changed.
    fn update(&mut self, mut news: bool) {
        for (number, port) in self.ports.iter().enumerate() {
            let bit = 1 << number;
            if port.interrupting() && self.global.status & bit == 0 {
                self.global.status |= bit;
                news = true;
            }
        }
        let level = self.global.interrupts_enabled && self.global.status != 0;
        self.interrupts.set(level, news);
    }
}

fn port_at(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(PORT_AT)?;
    let port = usize::try_from(offset / PORT_STRIDE).ok()?;
    (port < PORTS).then_some((port, offset % PORT_STRIDE))
}
