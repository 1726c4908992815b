//! Everything KVM keeps for a vCPU: read at power-on to make a reset of it, and at any time to save it.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::msrs;
use crate::kvm::KvmError;

/// A vCPU's registers. The parts are structures of the kernel's interface, which only ever grow at their end: a shorter one,
/// from an older kernel, is read with zeroes behind it.
#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, control registers, APIC base.
    pub sregs: kvm_sregs,
    /// Floating point and vector registers.
    pub xsave: Box<kvm_xsave>,
    /// Which of them are enabled.
    pub xcrs: Box<kvm_xcrs>,
    /// Debug registers.
    pub debugregs: kvm_debugregs,
    /// What is being delivered or held back.
    pub events: kvm_vcpu_events,
    /// The local APIC.
    pub lapic: Box<kvm_lapic_state>,
    /// Running, halted, or waiting for the first interrupt.
    pub mp_state: kvm_mp_state,
    /// All model-specific registers it has.
    pub msrs: Vec<kvm_msr_entry>,
}

impl VcpuState {
    /// Reads a vCPU that is not running, whose CPUID has been set: before, KVM does not know which MSRs there are.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn read(fd: &VcpuFd, msr_indices: &[u32]) -> Result<Self, KvmError> {
        // First, because it takes in what other vCPUs have sent.
        let mp_state = fd
            .get_mp_state()
            .map_err(KvmError::call("KVM_GET_MP_STATE"))?;
        Ok(Self {
            mp_state,
            regs: fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?,
            xsave: Box::new(fd.get_xsave().map_err(KvmError::call("KVM_GET_XSAVE"))?),
            xcrs: Box::new(fd.get_xcrs().map_err(KvmError::call("KVM_GET_XCRS"))?),
            debugregs: fd
                .get_debug_regs()
                .map_err(KvmError::call("KVM_GET_DEBUGREGS"))?,
            lapic: Box::new(fd.get_lapic().map_err(KvmError::call("KVM_GET_LAPIC"))?),
            msrs: msrs::read(fd, msr_indices)?,
            events: fd
                .get_vcpu_events()
                .map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    /// Gives a vCPU that is not running these registers.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn write(&self, fd: &VcpuFd) -> Result<(), KvmError> {
        self.write_at(fd, &self.regs, &self.sregs, self.mp_state)
    }

    /// Gives a vCPU these registers, but for those that say where it is.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn write_at(
        &self,
        fd: &VcpuFd,
        regs: &kvm_regs,
        sregs: &kvm_sregs,
        mp_state: kvm_mp_state,
    ) -> Result<(), KvmError> {
        fd.set_mp_state(mp_state)
            .map_err(KvmError::call("KVM_SET_MP_STATE"))?;
        // System registers first: they hold the APIC mode the APIC state is read in.
        fd.set_sregs(sregs)
            .map_err(KvmError::call("KVM_SET_SREGS"))?;
        fd.set_regs(regs).map_err(KvmError::call("KVM_SET_REGS"))?;
        fd.set_xcrs(&self.xcrs)
            .map_err(KvmError::call("KVM_SET_XCRS"))?;
        set_xsave(fd, &self.xsave)?;
        fd.set_debug_regs(&self.debugregs)
            .map_err(KvmError::call("KVM_SET_DEBUGREGS"))?;
        let (deadline, others): (Vec<_>, Vec<_>) = self
            .msrs
            .iter()
            .copied()
            .partition(|entry| entry.index == msrs::IA32_TSC_DEADLINE);
        msrs::write(fd, &others)?;
        fd.set_lapic(&self.lapic)
            .map_err(KvmError::call("KVM_SET_LAPIC"))?;
        msrs::write(fd, &deadline)?;
        fd.set_vcpu_events(&self.events)
            .map_err(KvmError::call("KVM_SET_VCPU_EVENTS"))
    }

    /// The MSRs this vCPU turned out to have.
    pub fn msr_indices(&self) -> Vec<u32> {
        self.msrs.iter().map(|entry| entry.index).collect()
    }

    /// What the time stamp counter said.
    pub fn tsc(&self) -> Option<u64> {
        self.msr(msrs::IA32_TSC)
    }

    /// The value of an MSR, if it has it.
    pub fn msr(&self, index: u32) -> Option<u64> {
        let entry = self.msrs.iter().find(|entry| entry.index == index)?;
        Some(entry.data)
    }

    /// Sets the value that an MSR will have. One that the vCPU does not have stays so.
    pub fn set_msr(&mut self, index: u32, value: u64) {
        for entry in &mut self.msrs {
            if entry.index == index {
                entry.data = value;
            }
        }
    }
}

#[allow(unsafe_code)]
fn set_xsave(fd: &VcpuFd, xsave: &kvm_xsave) -> Result<(), KvmError> {
    // SAFETY: KVM reads the 4096 bytes of the structure, and more only for features that a process must ask for
    // (AMX), which this one does not.
    unsafe { fd.set_xsave(xsave) }.map_err(KvmError::call("KVM_SET_XSAVE"))
}
