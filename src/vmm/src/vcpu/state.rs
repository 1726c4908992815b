//! Everything KVM keeps for a vCPU, recorded at power-on to make a reset of it.

use std::io;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use super::regs;
use crate::boot::Entry;
use crate::kvm::KvmError;

const MSR_IA32_TSC: u32 = 0x10;
const MSR_IA32_TSC_ADJUST: u32 = 0x3b;
const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;

const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs on, everything write-back: what firmware leaves behind.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const DELIVERY_NMI: u32 = 0x4;
const DELIVERY_EXTINT: u32 = 0x7;

/// A vCPU as it is at power-on.
pub struct PowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: Box<kvm_xcrs>,
    debugregs: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: Box<kvm_lapic_state>,
    mp_state: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl PowerOn {
    /// Records a fresh vCPU whose CPUID has been set: before, KVM does not
    /// know which MSRs there are.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn record(fd: &VcpuFd, msr_indices: &[u32]) -> Result<Self, KvmError> {
        let mut lapic = fd.get_lapic().map_err(KvmError::call("KVM_GET_LAPIC"))?;
        set_delivery_mode(&mut lapic, APIC_LVT_LINT0, DELIVERY_EXTINT);
        set_delivery_mode(&mut lapic, APIC_LVT_LINT1, DELIVERY_NMI);
        Ok(Self {
            regs: fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?,
            xsave: Box::new(fd.get_xsave().map_err(KvmError::call("KVM_GET_XSAVE"))?),
            xcrs: Box::new(fd.get_xcrs().map_err(KvmError::call("KVM_GET_XCRS"))?),
            debugregs: fd
                .get_debug_regs()
                .map_err(KvmError::call("KVM_GET_DEBUGREGS"))?,
            events: fd
                .get_vcpu_events()
                .map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))?,
            lapic: Box::new(lapic),
            mp_state: fd
                .get_mp_state()
                .map_err(KvmError::call("KVM_GET_MP_STATE"))?,
            msrs: read_msrs(fd, msr_indices)?,
        })
    }

    /// The MSRs this vCPU turned out to have.
    pub fn msr_indices(&self) -> Vec<u32> {
        self.msrs.iter().map(|entry| entry.index).collect()
    }

    /// Puts the vCPU back to power-on. The first vCPU gets `entry` and is
    /// ready to run there; the others wait for an INIT.
    ///
    /// # Errors
    /// Names the call that failed.
    pub fn apply(&self, fd: &VcpuFd, entry: Option<Entry>) -> Result<(), KvmError> {
        fd.set_mp_state(match entry {
            Some(_) => kvm_mp_state {
                mp_state: KVM_MP_STATE_RUNNABLE,
            },
            None => self.mp_state,
        })
        .map_err(KvmError::call("KVM_SET_MP_STATE"))?;
        let (regs, sregs) = match entry {
            Some(entry @ (Entry::Pvh(_) | Entry::Linux64(_))) => {
                (regs::general(entry), regs::system(&self.sregs, entry))
            }
            // A vCPU begins its life at the reset vector.
            Some(Entry::ResetVector) | None => (self.regs, self.sregs),
        };
        // System registers first: they hold the APIC mode the APIC state is read in.
        fd.set_sregs(&sregs)
            .map_err(KvmError::call("KVM_SET_SREGS"))?;
        fd.set_regs(&regs).map_err(KvmError::call("KVM_SET_REGS"))?;
        fd.set_xcrs(&self.xcrs)
            .map_err(KvmError::call("KVM_SET_XCRS"))?;
        set_xsave(fd, &self.xsave)?;
        fd.set_debug_regs(&self.debugregs)
            .map_err(KvmError::call("KVM_SET_DEBUGREGS"))?;
        write_msrs(fd, &self.msrs)?;
        fd.set_lapic(&self.lapic)
            .map_err(KvmError::call("KVM_SET_LAPIC"))?;
        fd.set_vcpu_events(&self.events)
            .map_err(KvmError::call("KVM_SET_VCPU_EVENTS"))
    }
}

#[allow(unsafe_code)]
fn set_xsave(fd: &VcpuFd, xsave: &kvm_xsave) -> Result<(), KvmError> {
    // SAFETY: the state is what KVM_GET_XSAVE gave for the same vCPU. KVM needs
    // a longer one only for features that a process must ask for (AMX), which
    // this one does not.
    unsafe { fd.set_xsave(xsave) }.map_err(KvmError::call("KVM_SET_XSAVE"))
}

/// The MSRs that a reset has to restore.
///
/// # Errors
/// When KVM does not list them.
pub fn msr_indices(kvm: &Kvm) -> Result<Vec<u32>, KvmError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(KvmError::call("KVM_GET_MSR_INDEX_LIST"))?;
    // The time stamp counter runs on through a reset: setting it would take
    // the vCPUs out of step.
    let keep = |index: &u32| !matches!(*index, MSR_IA32_TSC | MSR_IA32_TSC_ADJUST);
    Ok(list.as_slice().iter().copied().filter(keep).collect())
}

fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let mut entries: Vec<kvm_msr_entry> = indices
        .iter()
        .map(|&index| kvm_msr_entry {
            index,
            ..Default::default()
        })
        .collect();
    // KVM lists MSRs that this vCPU does not have, and stops at the first of
    // them: leave it out and go on.
    let mut read = Vec::with_capacity(entries.len());
    while !entries.is_empty() {
        let mut msrs = wrap(&entries)?;
        let count = fd
            .get_msrs(&mut msrs)
            .map_err(KvmError::call("KVM_GET_MSRS"))?;
        read.extend_from_slice(&msrs.as_slice()[..count]);
        entries.drain(..(count + 1).min(entries.len()));
    }
    for entry in &mut read {
        match entry.index {
            MSR_IA32_MISC_ENABLE => entry.data |= MISC_ENABLE_FAST_STRING,
            MSR_MTRR_DEF_TYPE => entry.data = MTRR_WRITE_BACK,
            _ => {}
        }
    }
    Ok(read)
}

fn write_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let mut rest = entries;
    while !rest.is_empty() {
        let count = fd
            .set_msrs(&wrap(rest)?)
            .map_err(KvmError::call("KVM_SET_MSRS"))?;
        if let Some(refused) = rest.get(count) {
            // Read-only to the host as well; it cannot have changed.
            tracing::trace!("MSR {:#x} is not writable", refused.index);
        }
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    Ok(())
}

fn wrap(entries: &[kvm_msr_entry]) -> Result<Msrs, KvmError> {
    Msrs::from_entries(entries).map_err(|error| KvmError::Call {
        call: "MSR list",
        source: io::Error::other(format!("{error:?}")),
    })
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let bytes: [u8; 4] = std::array::from_fn(|i| lapic.regs[register + i] as u8);
    // Mask (bit 16) off, delivery mode in bits 8 to 10.
    let value = (u32::from_le_bytes(bytes) & !0x1_0700) | (mode << 8);
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        lapic.regs[register + i] = byte as _;
    }
}
