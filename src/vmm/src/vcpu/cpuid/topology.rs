//! Where a vCPU sits: sockets, cores and threads in all leaves that tell of them, and in the APIC ID.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use lodge_vmm_proto::CpuTopology;

const LEAF_1_EDX_HTT: u32 = 1 << 28;
const AMD_1_ECX_CMP_LEGACY: u32 = 1 << 1;

const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// A topology with the widths of its fields in an APIC ID (Intel SDM volume 3A, 9.9.3): socket, core, thread from
/// the highest bit to the lowest, each field as wide as its largest number needs. So IDs have gaps where a number is no power of two.
#[derive(Clone, Copy)]
pub struct Layout {
    threads: u32,
    /// Logical processors of a socket.
    socket: u32,
    thread_bits: u32,
    core_bits: u32,
}

impl Layout {
    pub fn new(topology: CpuTopology) -> Self {
        let (threads, cores) = (
            u32::from(topology.threads.max(1)),
            u32::from(topology.cores.max(1)),
        );
        Self {
            threads,
            socket: threads * cores,
            thread_bits: bits(threads),
            core_bits: bits(cores),
        }
    }

    /// The APIC ID of the vCPU with this number.
    pub fn apic_id(self, number: u8) -> u32 {
        let number = u32::from(number);
        let (socket, within) = (number / self.socket, number % self.socket);
        let (core, thread) = (within / self.threads, within % self.threads);
        socket << self.socket_bits() | core << self.thread_bits | thread
    }

    /// Bits below the socket's number.
    fn socket_bits(self) -> u32 {
        self.core_bits + self.thread_bits
    }

    /// Makes the leaves that all vCPUs share tell of it; those of extended enumeration are added.
    pub fn apply(self, entries: &mut Vec<kvm_cpuid_entry2>) {
        for entry in entries.iter_mut() {
            self.apply_to(entry);
        }
        let max_leaf = entries.iter().find(|entry| entry.function == 0);
        let max_leaf = max_leaf.map_or(0, |entry| entry.eax);
        for function in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= max_leaf) {
            entries.extend(self.extended(function));
        }
    }

    fn apply_to(self, entry: &mut kvm_cpuid_entry2) {
        let addressable = (1 << self.socket_bits()) - 1;
        match entry.function {
            0x1 => {
                set(&mut entry.edx, LEAF_1_EDX_HTT, self.socket > 1);
                entry.ebx = (entry.ebx & 0xff00_ffff) | (self.socket << 16);
            }
            // Deterministic cache parameters: levels 1 and 2 are a core's own, the last level belongs to a socket.
            0x4 if entry.eax & 0x1f != 0 => {
                let sharing = match cache_level(entry) {
                    0..=2 => (1 << self.thread_bits) - 1,
                    _ => addressable,
                };
                let cores = (1 << self.core_bits) - 1;
                entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26);
            }
            0x8000_0001 if self.socket == 1 => entry.ecx &= !AMD_1_ECX_CMP_LEGACY,
            0x8000_0008 => {
                entry.ecx = (entry.ecx & !0xf0ff) | (self.socket_bits() << 12) | (self.socket - 1);
            }
            0x8000_001d if entry.eax & 0x1f != 0 => {
                let sharing = match cache_level(entry) {
                    0..=2 => self.threads,
                    _ => self.socket,
                };
                entry.eax = (entry.eax & 0x3fff) | ((sharing - 1) << 14);
            }
            _ => {}
        }
    }

    /// Makes a leaf tell of the vCPU with that APIC ID.
    pub fn name(self, entry: &mut kvm_cpuid_entry2, apic_id: u32) {
        match entry.function {
            0x1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (apic_id << 24),
            0xb | 0x1f => entry.edx = apic_id,
            0x8000_001e => {
                entry.eax = apic_id;
                let core = (apic_id >> self.thread_bits) & ((1 << self.core_bits) - 1);
                entry.ebx = core | ((self.threads - 1) << 8);
                // One node in each socket.
                entry.ecx = (apic_id >> self.socket_bits()) & 0xff;
            }
            _ => {}
        }
    }

    /// Extended topology enumeration: threads of a core, logical processors of the socket, the end.
    fn extended(self, function: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index, kind, eax, ebx| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: index | (kind << 8),
            ..Default::default()
        };
        [
            level(0, LEVEL_THREAD, self.thread_bits, self.threads),
            level(1, LEVEL_CORE, self.socket_bits(), self.socket),
            level(2, 0, 0, 0),
        ]
    }
}

fn cache_level(entry: &kvm_cpuid_entry2) -> u32 {
    entry.eax >> 5 & 0x7
}

/// Bits that number so many.
fn bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}
