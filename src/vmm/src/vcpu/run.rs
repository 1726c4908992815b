//! One entry into the guest and what comes out of it.
#![allow(unsafe_code)]

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use lodge_devices::bus::{Bus, BusView};
use lodge_devices::pci::{RESET_CONTROL_PORT, RESET_CONTROL_RESET};
use lodge_devices::pvpanic::{PVPANIC_PANICKED, PVPANIC_PORT};
use lodge_vmm_proto::ExitReason;

use super::hyperv;

/// The two address spaces devices answer in.
pub struct Buses {
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Guest-physical memory that is not RAM.
    pub memory: Arc<Bus>,
}

/// The same as one vCPU sees them.
pub struct Views {
    ports: BusView,
    memory: BusView,
}

impl Views {
    /// Of `buses`.
    pub fn new(buses: &Buses) -> Self {
        Self {
            ports: BusView::new(Arc::clone(&buses.ports)),
            memory: BusView::new(Arc::clone(&buses.memory)),
        }
    }
}

/// What to do after a vCPU has left the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Enter it again.
    Continue,
    /// Ask the gate first.
    Interrupted,
    /// This vCPU cannot go on, and so the guest cannot.
    Stop(ExitReason, String),
}

/// Enters the guest and serves one exit.
pub fn step(fd: &mut VcpuFd, buses: &mut Views) -> Step {
    match fd.run() {
        Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => {
            port_access(fd, &mut buses.ports);
            Step::Continue
        }
        Ok(VcpuExit::MmioRead(address, data)) => {
            buses.memory.read(address, data);
            Step::Continue
        }
        Ok(VcpuExit::MmioWrite(address, data)) => {
            buses.memory.write(address, data);
            Step::Continue
        }
        // With interrupt controllers in the kernel these need nothing from us.
        Ok(VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::SetTpr | VcpuExit::IoapicEoi(_)) => {
            Step::Continue
        }
        Ok(VcpuExit::Intr) => Step::Interrupted,
        Ok(VcpuExit::Shutdown) => Step::Stop(
            ExitReason::TripleFault,
            "a fault while handling a double fault".to_owned(),
        ),
        Ok(VcpuExit::SystemEvent(kind, _)) => system_event(kind, &mut buses.ports),
        Ok(VcpuExit::Hyperv) => {
            hyperv::serve_exit(fd);
            Step::Continue
        }
        Ok(VcpuExit::FailEntry(reason, cpu)) => Step::Stop(
            ExitReason::KvmError,
            format!("hardware refused to enter the guest: reason {reason:#x} on processor {cpu}"),
        ),
        Ok(VcpuExit::InternalError) => internal_error(fd),
        Ok(exit) => Step::Stop(ExitReason::KvmError, format!("unexpected exit: {exit:?}")),
        Err(error) if error.errno() == libc::EINTR => Step::Interrupted,
        // A vCPU that waits for its start-up message has got one.
        Err(error) if error.errno() == libc::EAGAIN => Step::Continue,
        Err(error) => Step::Stop(ExitReason::KvmError, format!("KVM_RUN: {error}")),
    }
}

/// Serves a port access: one element, or as many as a string instruction moves.
fn port_access(fd: &mut VcpuFd, ports: &mut BusView) {
    let run = fd.get_kvm_run();
    // SAFETY: the exit reason says that this member of the union is valid.
    let io = unsafe { run.__bindgen_anon_1.io };
    let width = usize::from(io.size);
    let length = width * io.count as usize;
    // SAFETY: KVM keeps the elements in the mapping it shares with us, at this
    // offset from its start; `run` is borrowed for as long as the slice lives.
    let data = unsafe {
        let start = std::ptr::from_mut(run).cast::<u8>();
        std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), length)
    };
    let output = u32::from(io.direction) == kvm_bindings::KVM_EXIT_IO_OUT;
    for element in data.chunks_exact_mut(width.max(1)) {
        if output {
            ports.write(u64::from(io.port), element);
        } else {
            ports.read(u64::from(io.port), element);
        }
    }
}

/// What a guest says by Hyper-V's registers, which is the same as by ports.
fn system_event(kind: u32, ports: &mut BusView) -> Step {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => {
            Step::Stop(ExitReason::GuestPoweroff, String::new())
        }
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => {
            ports.write(RESET_CONTROL_PORT, &[RESET_CONTROL_RESET]);
            Step::Continue
        }
        kvm_bindings::KVM_SYSTEM_EVENT_CRASH => {
            ports.write(PVPANIC_PORT, &[PVPANIC_PANICKED]);
            Step::Continue
        }
        kind => Step::Stop(
            ExitReason::KvmError,
            format!("the guest reported system event {kind}"),
        ),
    }
}

fn internal_error(fd: &mut VcpuFd) -> Step {
    // SAFETY: the exit reason says that this member of the union is valid.
    let suberror = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let what = match suberror {
        1 => "KVM could not emulate an instruction",
        2 => "an exception came up while another was delivered",
        3 => "hardware failed to deliver an event",
        4 => "hardware left the guest for a reason KVM does not know",
        _ => "unknown",
    };
    let place = match (fd.get_regs(), fd.get_sregs()) {
        (Ok(regs), Ok(sregs)) => format!(
            " at rip {:#x}, cs {:#x}, cr0 {:#x}, cr3 {:#x}",
            regs.rip, sregs.cs.base, sregs.cr0, sregs.cr3
        ),
        _ => String::new(),
    };
    Step::Stop(
        ExitReason::KvmError,
        format!("internal error {suberror} of KVM: {what}{place}"),
    )
}
