//! What running guests hold of the host: disks, memory, user ids.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodge_api::{ErrorCode, Problem, Size};
use uuid::Uuid;

use super::run_dir::LaunchNote;

/// Memory left to the host itself.
const HOST_KEEPS: u64 = 96 << 20;

/// Memory of a monitor beside its guest's.
const MONITOR: u64 = 8 << 20;

/// What all running guests hold.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<HashMap<Uuid, Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Disks, and whether for reading only.
    disks: HashMap<Uuid, bool>,
    memory: u64,
    uid_index: u32,
}

/// Disks claimed for as long as this lives.
pub(crate) struct DiskClaim {
    claims: Arc<Claims>,
    holder: Uuid,
}

impl DiskClaim {
    /// Claims disks for something that is no guest, by an id that nobody else has.
    pub(crate) fn new(
        claims: &Arc<Claims>,
        holder: Uuid,
        disks: &[(Uuid, bool)],
    ) -> Result<Self, Conflict> {
        claims.disks(holder, disks)?;
        Ok(Self {
            claims: Arc::clone(claims),
            holder,
        })
    }
}

impl Drop for DiskClaim {
    fn drop(&mut self) {
        self.claims.release(self.holder);
    }
}

/// A disk somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Position in the list of disks asked for.
    pub(crate) number: usize,
    /// The guest that holds it.
    pub(crate) holder: Uuid,
}

/// The host's memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostMemory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

/// Who else holds a disk so that it cannot be shared.
fn other_holder(
    held: &HashMap<Uuid, Held>,
    vm: Uuid,
    (disk, read_only): (Uuid, bool),
) -> Option<Uuid> {
    let conflicts = |other: &Held| {
        let other = other.disks.get(&disk);
        other.is_some_and(|other_read_only| !(read_only && *other_read_only))
    };
    held.iter()
        .find(|(holder, other)| **holder != vm && conflicts(other))
        .map(|(holder, _)| *holder)
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims disks for a guest: alone for writing, together for reading.
    pub(crate) fn disks(&self, vm: Uuid, disks: &[(Uuid, bool)]) -> Result<(), Conflict> {
        let mut held = self.held();
        for (number, disk) in disks.iter().enumerate() {
            if let Some(holder) = other_holder(&held, vm, *disk) {
                return Err(Conflict { number, holder });
            }
        }
        let entry = held.entry(vm).or_default();
        entry.disks = disks.iter().copied().collect();
        Ok(())
    }

    /// Claims another disk for a guest that runs.
    pub(crate) fn add_disk(&self, vm: Uuid, disk: (Uuid, bool)) -> Result<(), Conflict> {
        let mut held = self.held();
        if let Some(holder) = other_holder(&held, vm, disk) {
            return Err(Conflict { number: 0, holder });
        }
        held.entry(vm).or_default().disks.insert(disk.0, disk.1);
        Ok(())
    }

    /// Gives one disk of a guest back.
    pub(crate) fn remove_disk(&self, vm: Uuid, disk: Uuid) {
        if let Some(held) = self.held().get_mut(&vm) {
            held.disks.remove(&disk);
        }
    }

    /// Claims memory, if the host has it: now, and when every running guest uses all of its own.
    pub(crate) fn memory(&self, vm: Uuid, bytes: u64, host: HostMemory) -> Result<(), Problem> {
        let mut held = self.held();
        let others: u64 = held
            .iter()
            .filter(|(other, _)| **other != vm)
            .map(|(_, held)| held.memory)
            .sum();
        let needed = bytes.saturating_add(MONITOR);
        let promised = host.total.saturating_sub(HOST_KEEPS).saturating_sub(others);
        let free = promised.min(host.available);
        if needed > free {
            return Err(Problem::new(
                ErrorCode::InsufficientResources,
                format!(
                    "the guest needs {} and the host has {} to give",
                    Size(needed),
                    Size(free)
                ),
            )
            .with_pointer("/memory")
            .with_hint("stop other guests, or give this one less memory"));
        }
        held.entry(vm).or_default().memory = needed;
        Ok(())
    }

    /// A user id index that no running guest has, from 0.
    pub(crate) fn uid_index(&self, vm: Uuid) -> u32 {
        let mut held = self.held();
        let taken: BTreeSet<u32> = held
            .iter()
            .filter(|(other, _)| **other != vm)
            .map(|(_, held)| held.uid_index)
            .collect();
        let free = (0..)
            .find(|index| !taken.contains(index))
            .unwrap_or(u32::MAX);
        held.entry(vm).or_default().uid_index = free;
        free
    }

    /// What a guest that already runs holds.
    pub(crate) fn adopt(&self, vm: Uuid, note: &LaunchNote) {
        let disks = note.disks.iter().zip(&note.spec.disks);
        let held = Held {
            disks: disks.map(|(id, disk)| (*id, disk.read_only)).collect(),
            memory: note.spec.memory.bytes().saturating_add(MONITOR),
            uid_index: note.uid_index.unwrap_or(0),
        };
        self.held().insert(vm, held);
    }

    /// Gives everything of a guest back.
    pub(crate) fn release(&self, vm: Uuid) {
        self.held().remove(&vm);
    }

    /// Running guests that hold a disk.
    pub(crate) fn users_of_disk(&self, disk: Uuid) -> HashSet<Uuid> {
        self.held()
            .iter()
            .filter(|(_, held)| held.disks.contains_key(&disk))
            .map(|(vm, _)| *vm)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> Uuid {
        Uuid::from_u128(number.into())
    }

    #[test]
    fn a_disk_has_one_writer_or_many_readers() {
        let claims = Claims::default();
        let disk = id(100);
        claims
            .disks(id(1), &[(id(101), false), (disk, true)])
            .unwrap();
        claims.disks(id(2), &[(disk, true)]).unwrap();
        let conflict = claims
            .disks(id(3), &[(id(102), false), (disk, false)])
            .unwrap_err();
        assert_eq!(conflict.number, 1);
        assert_eq!(claims.users_of_disk(disk), HashSet::from([id(1), id(2)]));
        assert!(
            claims.users_of_disk(id(102)).is_empty(),
            "nothing of a refused claim"
        );
        claims.release(id(1));
        claims.release(id(2));
        claims.disks(id(3), &[(disk, false)]).unwrap();
        let conflict = claims.disks(id(1), &[(disk, true)]).unwrap_err();
        assert_eq!(conflict.holder, id(3));
        // One more for a guest that runs, and one less.
        claims.add_disk(id(3), (id(103), false)).unwrap();
        let conflict = claims.add_disk(id(4), (id(103), true)).unwrap_err();
        assert_eq!(conflict.holder, id(3));
        claims.remove_disk(id(3), id(103));
        claims.add_disk(id(4), (id(103), true)).unwrap();
        assert_eq!(claims.users_of_disk(disk), HashSet::from([id(3)]));
    }

    #[test]
    fn memory_is_not_promised_twice() {
        let claims = Claims::default();
        let host = HostMemory {
            total: 1 << 30,
            available: 900 << 20,
        };
        claims.memory(id(1), 400 << 20, host).unwrap();
        // The first guest has not touched its memory yet.
        let problem = claims.memory(id(2), 600 << 20, host).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InsufficientResources);
        claims.memory(id(2), 400 << 20, host).unwrap();
        claims.release(id(1));
        let busy = HostMemory {
            available: 100 << 20,
            ..host
        };
        assert!(claims.memory(id(3), 128 << 20, busy).is_err());
    }

    proptest! {
        #[test]
        fn user_ids_are_unique_among_running_guests(steps in prop::collection::vec((0..12_u8, any::<bool>()), 0..60)) {
            let claims = Claims::default();
            let mut running = HashMap::new();
            for (vm, start) in steps {
                if start && !running.contains_key(&vm) {
                    let index = claims.uid_index(id(vm));
                    prop_assert!(!running.values().any(|other| *other == index));
                    running.insert(vm, index);
                } else if !start {
                    claims.release(id(vm));
                    running.remove(&vm);
                }
            }
        }
    }
}
