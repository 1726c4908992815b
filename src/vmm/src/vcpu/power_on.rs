//! A vCPU as it is at power-on.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_lapic_state, kvm_mp_state};
use kvm_ioctls::VcpuFd;

use super::regs;
use super::state::VcpuState;
use crate::boot::Entry;
use crate::kvm::KvmError;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;

const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs on, everything write-back: what firmware leaves behind.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const DELIVERY_NMI: u32 = 0x4;
const DELIVERY_EXTINT: u32 = 0x7;

/// What a reset gives back to a vCPU.
pub struct PowerOn {
    state: VcpuState,
}

impl PowerOn {
    /// Records a fresh vCPU whose CPUID has been set.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn record(fd: &VcpuFd, msr_indices: &[u32]) -> Result<Self, KvmError> {
        let mut state = VcpuState::read(fd, msr_indices)?;
        set_delivery_mode(&mut state.lapic, APIC_LVT_LINT0, DELIVERY_EXTINT);
        set_delivery_mode(&mut state.lapic, APIC_LVT_LINT1, DELIVERY_NMI);
        if let Some(enabled) = state.msr(MSR_IA32_MISC_ENABLE) {
            state.set_msr(MSR_IA32_MISC_ENABLE, enabled | MISC_ENABLE_FAST_STRING);
        }
        state.set_msr(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK);
        Ok(Self { state })
    }

    /// The MSRs this vCPU turned out to have.
    pub fn msr_indices(&self) -> Vec<u32> {
        self.state.msr_indices()
    }

    /// Makes an MSR that the guest cannot read say nothing.
    pub fn withhold(&mut self, index: u32) {
        self.state.set_msr(index, 0);
    }

    /// Puts the vCPU back to power-on. The first vCPU gets `entry` and is
    /// ready to run there; the others wait for an INIT.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn apply(&self, fd: &VcpuFd, entry: Option<Entry>) -> Result<(), KvmError> {
        let Some(entry) = entry else {
            return self.state.write(fd);
        };
        let VcpuState { regs, sregs, .. } = &self.state;
        let runnable = kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        };
        if entry == Entry::ResetVector {
            // Where a vCPU begins its life.
            return self.state.write_at(fd, regs, sregs, runnable);
        }
        let (regs, sregs) = (regs::general(entry), regs::system(sregs, entry));
        self.state.write_at(fd, &regs, &sregs, runnable)
    }
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let bytes: [u8; 4] = std::array::from_fn(|i| lapic.regs[register + i] as u8);
    // Mask (bit 16) off, delivery mode in bits 8 to 10.
    let value = (u32::from_le_bytes(bytes) & !0x1_0700) | (mode << 8);
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        lapic.regs[register + i] = byte as _;
    }
}
