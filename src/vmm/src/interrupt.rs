//! Interrupts and doorbells by way of KVM: the routing table, irqfds and ioeventfds.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use lodge_devices::interrupt::{InterruptLine, MsiMessage, MsiVector, Platform};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::layout::IO_APIC_INPUTS;

/// Most message-signalled interrupts of one guest: what is left of the kernel's
/// 4096 routes is far more, but no machine of ours needs it.
const MAX_VECTORS: u32 = 2048;

/// The routing table shared by wired and message-signalled interrupts.
///
/// KVM replaces its table as a whole, so all routes are kept here.
#[derive(Clone)]
pub struct Interrupts {
    shared: Arc<Shared>,
}

struct Shared {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// What was never used begins here.
    next_gsi: u32,
    /// Of vectors that are gone.
    free: Vec<u32>,
    /// Message of every vector that has been given one, by GSI.
    messages: BTreeMap<u32, MsiMessage>,
}

impl Interrupts {
    /// Routes the wired interrupts of a PC.
    ///
    /// # Errors
    /// When KVM refuses the table.
    pub fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        let table = Table {
            next_gsi: IO_APIC_INPUTS,
            ..Table::default()
        };
        commit(&vm, &table)?;
        Ok(Self {
            shared: Arc::new(Shared {
                vm,
                table: Mutex::new(table),
            }),
        })
    }

    /// One input of the I/O APIC (and, below 16, of the PICs).
    pub fn line(&self, gsi: u8) -> Arc<dyn InterruptLine> {
        Arc::new(Line {
            vm: Arc::clone(&self.shared.vm),
            gsi: u32::from(gsi),
        })
    }
}

impl Platform for Interrupts {
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let gsi = self.shared.table.lock().unwrap().take_gsi();
        let gsi = gsi.ok_or_else(|| io::Error::other("no interrupt routes left"))?;
        Ok(Arc::new(Vector {
            shared: Arc::clone(&self.shared),
            gsi,
            event,
            attached: Mutex::new(false),
        }))
    }

    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self
            .shared
            .vm
            .register_ioevent(event, &address, NoDatamatch)?)
    }

    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self
            .shared
            .vm
            .unregister_ioevent(event, &address, NoDatamatch)?)
    }
}

struct Line {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        if let Err(error) = self.vm.set_irq_line(self.gsi, high) {
            tracing::warn!("interrupt line {}: {error}", self.gsi);
        }
    }
}

struct Vector {
    shared: Arc<Shared>,
    gsi: u32,
    event: EventFd,
    /// Whether KVM listens to `event`. Detached while masked: signals then
    /// gather in the counter, and KVM takes them up when it is attached again,
    /// so that an interrupt of a kernel back end is late but not lost.
    attached: Mutex<bool>,
}

impl MsiVector for Vector {
    fn trigger(&self) {
        // Full only after 2^64 - 2 signals nobody took: then one is pending anyway.
        let _ = self.event.write(1);
    }

    fn irqfd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) }
    }

    fn configure(&self, message: MsiMessage, masked: bool) -> io::Result<()> {
        let mut attached = self.attached.lock().unwrap();
        if masked {
            if *attached {
                self.shared.vm.unregister_irqfd(&self.event, self.gsi)?;
                *attached = false;
            }
            return Ok(());
        }
        self.shared.route(self.gsi, message)?;
        if !*attached {
            self.shared.vm.register_irqfd(&self.event, self.gsi)?;
            *attached = true;
        }
        Ok(())
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        // Its number goes to another vector, which must not hear of this one's signals.
        let silent = self.configure(MsiMessage::default(), true);
        let mut table = self.shared.table.lock().unwrap();
        table.messages.remove(&self.gsi);
        if silent.is_ok() {
            table.free.push(self.gsi);
        }
    }
}

impl Table {
    fn take_gsi(&mut self) -> Option<u32> {
        if let Some(gsi) = self.free.pop() {
            return Some(gsi);
        }
        let gsi = self.next_gsi;
        (gsi < IO_APIC_INPUTS + MAX_VECTORS).then(|| {
            self.next_gsi += 1;
            gsi
        })
    }
}

impl Shared {
    fn route(&self, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let mut table = self.table.lock().unwrap();
        if table.messages.get(&gsi) == Some(&message) {
            return Ok(());
        }
        let former = table.messages.insert(gsi, message);
        let result = commit(&self.vm, &table);
        if result.is_err() {
            match former {
                Some(former) => table.messages.insert(gsi, former),
                None => table.messages.remove(&gsi),
            };
        }
        result
    }
}

fn commit(vm: &VmFd, table: &Table) -> io::Result<()> {
    let mut entries = wired_routes();
    entries.extend(
        table
            .messages
            .iter()
            .map(|(&gsi, &message)| msi_route(gsi, message)),
    );
    let routing = KvmIrqRouting::from_entries(&entries)
        .map_err(|error| io::Error::other(format!("interrupt routing table: {error:?}")))?;
    Ok(vm.set_gsi_routing(&routing)?)
}

/// The sixteen ISA interrupts go to both PIC and I/O APIC, where the timer sits
/// at input 2 (the MADT says so); the rest are the I/O APIC's alone.
fn wired_routes() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::with_capacity(64);
    for gsi in 0..8 {
        entries.push(chip_route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
        entries.push(chip_route(gsi + 8, KVM_IRQCHIP_PIC_SLAVE, gsi));
    }
    for gsi in 0..IO_APIC_INPUTS {
        match gsi {
            0 => entries.push(chip_route(0, KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            _ => entries.push(chip_route(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
    }
    entries
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    // SAFETY: the union is plain old data and zero-initialised.
    let msi = unsafe { &mut entry.u.msi };
    msi.address_lo = message.address as u32;
    msi.address_hi = (message.address >> 32) as u32;
    msi.data = message.data;
    entry
}
