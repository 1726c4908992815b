//! Saving a machine, and building one that goes on where another was saved.

use std::fs::File;
use std::io;
use std::ops::Range;

use lodge_vmm_proto::LaunchError;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::{Failure, Machine, Parts};
use crate::kvm::{self, ChipsetState};
use crate::memory;
use crate::saved::{self, SavedMachine, StateError};
use crate::vcpu::{self, CpuidTemplate};

/// What the processors of a machine can do: what is wanted of the host's, or what they could when it was saved. A saved
/// machine asks this host for no more than it had.
pub(super) fn cpuid(parts: &Parts) -> Result<CpuidTemplate, Failure> {
    let template = template(parts)?;
    if template.has_hyperv()
        && let Some(missing) = vcpu::missing_of_hyperv(&parts.kvm)
    {
        let message = format!("the kernel of this host has no {missing} for guests");
        return Err(Failure::new(LaunchError::Cpu, message));
    }
    Ok(template)
}

fn template(parts: &Parts) -> Result<CpuidTemplate, Failure> {
    let host = CpuidTemplate::new(&parts.kvm, parts.vcpus)?;
    let Some(saved) = &parts.saved else {
        let wanted = host.reduced_to(&parts.cpu, parts.memory);
        return wanted.map_err(|missing| Failure::new(LaunchError::Cpu, missing.to_string()));
    };
    saved.state.check(parts.vcpus, parts.memory)?;
    let template = &saved.state.cpuid;
    if !template.is_for(parts.vcpus) {
        let damage = "its processors are not as many as their states".to_owned();
        return Err(StateError::Damaged(damage).into());
    }
    template.check_features(&host).map_err(StateError::from)?;
    Ok(template.clone())
}

impl Machine {
    /// The state of the machine, which is held, with its devices at rest.
    ///
    /// # Errors
    /// When KVM or a device does not give it.
    pub fn save(&self) -> Result<SavedMachine, StateError> {
        let mut vcpus = Vec::with_capacity(self.vcpus.len());
        let mut tsc_khz = None;
        for vcpu in &self.vcpus {
            let vcpu = vcpu.lock().unwrap();
            tsc_khz = tsc_khz.or_else(|| vcpu.tsc_khz());
            vcpus.push(vcpu.save()?);
        }
        Ok(SavedMachine {
            id: self.id,
            memory: self.memory_size(),
            at: saved::unix_time(),
            clock: kvm::clock(&self.vm)?,
            cpuid: self.cpuid.clone().with_tsc_khz(tsc_khz),
            vcpus,
            chipset: ChipsetState::save(&self.vm)?,
            devices: self.hardware.devices.save()?,
            layout: self.hardware.layout(),
        })
    }

    /// Writes a piece of guest memory to its place in `file`: `range` counts bytes of all memory, low memory first. The machine is
    /// held, with its devices at rest. Returns how many bytes were not zero.
    ///
    /// # Errors
    /// From writing the file.
    pub fn save_memory(&self, range: Range<u64>, file: &File) -> io::Result<u64> {
        saved::copy_memory(&self.memory, &self.mapped, &self.pagemap, range, file)
    }

    /// Bytes of guest memory.
    pub fn memory_size(&self) -> u64 {
        self.memory.iter().map(GuestMemoryRegion::len).sum()
    }

    /// Goes on where a machine was saved whose memory this one has. To be called on a new machine.
    pub(super) fn restore(&mut self, saved: SavedMachine) -> Result<(), StateError> {
        self.mapped = self
            .memory
            .iter()
            .map(|region| region.start_addr().0..region.start_addr().0 + region.len())
            .collect();
        let age = saved.age();
        saved.chipset.restore(&self.vm)?;
        let tsc = tsc_now(&saved, age);
        for (vcpu, state) in self.vcpus.iter().zip(saved.vcpus) {
            vcpu.lock().unwrap().restore(state, tsc)?;
        }
        let devices = &mut self.hardware.devices;
        devices.pause();
        devices.restore(&saved.devices)?;
        self.hardware.renew_generation()?;
        self.hardware.hotplug.lock().unwrap().withdraw_all();
        // The guest's clocks go on as if it had slept.
        kvm::set_clock(&self.vm, saved.clock.saturating_add(age))?;
        self.resume_devices();
        Ok(())
    }

    /// Makes all memory fresh.
    pub(super) fn forget_memory(&mut self) -> io::Result<()> {
        if self.mapped.is_empty() {
            memory::forget(&self.memory)
        } else {
            // Forgotten pages of a file would be the file's again.
            memory::blank(&self.memory)
        }
    }
}

/// What all time stamp counters say after `age` nanoseconds. One value for all: they run in step, and
/// were read one after the other.
fn tsc_now(saved: &SavedMachine, age: u64) -> Option<u64> {
    let then = saved.vcpus.first()?.tsc()?;
    let khz = u128::from(saved.cpuid.tsc_khz()?);
    let ticks = u128::from(age) * khz / 1_000_000;
    Some(then.wrapping_add(u64::try_from(ticks).ok()?))
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::new(LaunchError::State, error.to_string())
    }
}
