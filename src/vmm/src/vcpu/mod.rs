//! Virtual processors: one thread each.

mod cpuid;
mod gate;
mod hyperv;
mod msrs;
mod power_on;
mod regs;
mod run;
mod state;

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use lodge_vmm_proto::ExitReason;

use crate::boot::Entry;
use crate::kvm::KvmError;
pub use cpuid::{CpuidTemplate, LacksFeatures};
pub use gate::{Gate, Stuck, install_kick_signal};
pub use hyperv::missing as missing_of_hyperv;
use power_on::PowerOn;
pub use run::Buses;
use run::{Step, Views};
pub use state::VcpuState;

/// Enough for the deepest device model; only what is touched is used.
const STACK: usize = 256 << 10;

/// One vCPU and its state at power-on.
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    power_on: PowerOn,
}

/// Called on a vCPU's thread when it cannot go on.
pub type OnStop = dyn Fn(ExitReason, String) + Send + Sync;

impl Vcpu {
    /// Creates all vCPUs of a machine, at power-on.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn create_all(
        kvm: &Kvm,
        vm: &VmFd,
        template: &CpuidTemplate,
    ) -> Result<Vec<Self>, KvmError> {
        let mut msr_indices = msrs::indices(kvm)?;
        if template.has_hyperv() {
            msr_indices.extend(hyperv::msr_indices());
        }
        let mut vcpus = Vec::new();
        for (id, apic_id) in (0..).zip(template.apic_ids()) {
            let vcpu = Self::create(vm, id, apic_id, template, &msr_indices)?;
            if id == 0 {
                // What the first one has, and no more, the others have too.
                msr_indices = vcpu.power_on.msr_indices();
            }
            vcpus.push(vcpu);
        }
        Ok(vcpus)
    }

    fn create(
        vm: &VmFd,
        id: u8,
        apic_id: u8,
        template: &CpuidTemplate,
        msr_indices: &[u32],
    ) -> Result<Self, KvmError> {
        let fd = vm
            .create_vcpu(u64::from(apic_id))
            .map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        if let Some(wanted) = template.tsc_khz() {
            set_tsc_khz(&fd, wanted)?;
        }
        let tsc_khz = fd.get_tsc_khz().ok().filter(|&khz| khz > 0);
        fd.set_cpuid2(&template.for_vcpu(apic_id, tsc_khz)?)
            .map_err(KvmError::call("KVM_SET_CPUID2"))?;
        if template.has_hyperv() {
            hyperv::enable(&fd)?;
        }
        let mut power_on = PowerOn::record(&fd, msr_indices)?;
        if !template.has("arch_capabilities") {
            // KVM has its value all the same, and it would be the host's.
            power_on.withhold(msrs::IA32_ARCH_CAPABILITIES);
        }
        Ok(Self { id, fd, power_on })
    }

    /// Puts it to power-on; the first vCPU will start at `entry`. It must not be running.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn reset(&self, entry: Entry) -> Result<(), KvmError> {
        let entry = (self.id == 0).then_some(entry);
        self.power_on.apply(&self.fd, entry)
    }

    /// Its registers, with its time. It must not be running.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn save(&self) -> Result<VcpuState, KvmError> {
        let mut indices = vec![msrs::IA32_TSC_ADJUST, msrs::IA32_TSC];
        indices.extend(self.power_on.msr_indices());
        VcpuState::read(&self.fd, &indices)
    }

    /// Gives it saved registers, with the time stamp counter at `tsc` if that is known. It must not be running.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn restore(&self, mut saved: VcpuState, tsc: Option<u64>) -> Result<(), KvmError> {
        if let Some(tsc) = tsc {
            saved.set_msr(msrs::IA32_TSC, tsc);
        }
        saved.write(&self.fd)
    }

    /// Frequency of its time stamp counter in kHz, if KVM knows it.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|&khz| khz > 0)
    }

    /// Tells the guest's kernel that time went by while it was held, so that its
    /// watchdog does not take the pause for a hang. Guests without the clock of KVM
    /// have no such watchdog to tell.
    pub fn excuse_lost_time(&self) {
        if let Err(error) = self.fd.kvmclock_ctrl() {
            tracing::trace!("KVM_KVMCLOCK_CTRL: {error}");
        }
    }

    fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }
}

/// Sets the frequency of a time stamp counter, unless it is that already. A hardware that cannot scale refuses.
fn set_tsc_khz(fd: &VcpuFd, wanted: u32) -> Result<(), KvmError> {
    let present = fd.get_tsc_khz().unwrap_or(0);
    // As far as two processors of one kind are apart; clocks of guests are corrected by more.
    if present.abs_diff(wanted) <= wanted / 4000 {
        return Ok(());
    }
    fd.set_tsc_khz(wanted)
        .map_err(KvmError::call("KVM_SET_TSC_KHZ"))
}

/// Starts a vCPU's thread, which waits at the gate. It runs `prologue` first
/// (for its seccomp filter) and `on_stop` when it cannot go on.
///
/// The thread holds the vCPU's lock only while it runs: whoever has seen it
/// parked may take the lock.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(
    vcpu: &Arc<Mutex<Vcpu>>,
    gate: &Arc<Gate>,
    buses: &Buses,
    prologue: impl FnOnce() + Send + 'static,
    on_stop: Arc<OnStop>,
) -> io::Result<JoinHandle<()>> {
    let id = vcpu.lock().unwrap().id;
    let vcpu = Arc::clone(vcpu);
    let gate = Arc::clone(gate);
    let mut buses = Views::new(buses);
    std::thread::Builder::new()
        .name(format!("vcpu{id}"))
        .stack_size(STACK)
        .spawn(move || {
            prologue();
            let ticket = gate.enter(gate::ImmediateExit::of(&vcpu));
            while ticket.pass() {
                if let Some((reason, message)) = run_until_interrupted(&vcpu, &mut buses) {
                    on_stop(reason, format!("vCPU {id}: {message}"));
                }
            }
        })
}

fn run_until_interrupted(vcpu: &Mutex<Vcpu>, buses: &mut Views) -> Option<(ExitReason, String)> {
    let mut vcpu = vcpu.lock().unwrap();
    loop {
        match run::step(&mut vcpu.fd, buses) {
            Step::Continue => {}
            Step::Interrupted => return None,
            Step::Stop(reason, message) => return Some((reason, message)),
        }
    }
}
