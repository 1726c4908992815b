//! Model-specific registers of a vCPU.

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::kvm::KvmError;

/// The time stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// What the guest has added to its time stamp counter.
pub const IA32_TSC_ADJUST: u32 = 0x3b;
/// Which weaknesses the processor does not have.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// When the local APIC's timer fires. Written after the APIC, whose mode gives it its meaning.
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// The MSRs that KVM knows, which is more than any vCPU has, but for those that count time.
///
/// # Errors
/// When KVM does not list them.
pub fn indices(kvm: &Kvm) -> Result<Vec<u32>, KvmError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(KvmError::call("KVM_GET_MSR_INDEX_LIST"))?;
    // The time stamp counter runs on through a reset: setting it would take
    // the vCPUs out of step.
    let keep = |index: &u32| !matches!(*index, IA32_TSC | IA32_TSC_ADJUST);
    Ok(list.as_slice().iter().copied().filter(keep).collect())
}

/// Reads those of `indices` that the vCPU has.
///
/// # Errors
/// When KVM refuses the list as a whole.
pub fn read(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
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
    Ok(read)
}

/// Writes all that KVM lets be written.
///
/// # Errors
/// When KVM refuses the list as a whole.
pub fn write(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
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
