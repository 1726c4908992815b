//! Processors as guests find them.

use std::fs::File;
use std::os::fd::AsFd;

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, CpuConfig, CpuTopology, LaunchError, RequestBody, SpawnError};

const MEMORY: u64 = 64 << 20;

// Prints at once, and again for every byte that comes, how many logical processors a socket has, and a line feed.
crate::guest!(
    tells,
    "2: mov eax, 1",
    "xor ecx, ecx",
    "cpuid",
    "shr ebx, 16",
    "mov al, bl",
    "add al, '0'",
    "mov edx, 0x3f8",
    "out dx, al",
    "mov al, 10",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "jmp 2b",
);

// Prints which hypervisor it finds first, and which next to that.
crate::guest!(
    finds,
    "mov edi, 0x40000000",
    "2: mov eax, edi",
    "xor ecx, ecx",
    "cpuid",
    "mov esi, edx",
    "mov edx, 0x3f8",
    "mov al, bl",
    "out dx, al",
    "mov al, bh",
    "out dx, al",
    "mov al, cl",
    "out dx, al",
    "mov eax, esi",
    "out dx, al",
    "mov al, 10",
    "out dx, al",
    "add edi, 0x100",
    "cmp edi, 0x40000200",
    "jne 2b",
    "3: hlt",
    "jmp 3b",
);

fn options(cpu: CpuConfig) -> Options {
    Options {
        cpu,
        vcpus: 4,
        memory: MEMORY,
        jail: nix::unistd::geteuid().is_root(),
        ..Options::code(tells())
    }
}

#[test]
fn a_topology_is_what_a_guest_finds_and_keeps() {
    if kvm_missing() {
        return;
    }
    let topology = CpuTopology {
        sockets: 2,
        cores: 1,
        threads: 2,
    };
    let mut guest = Guest::start(options(CpuConfig {
        topology: Some(topology),
        ..CpuConfig::default()
    }));
    guest.prints("2\n");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let [state, memory]: [File; 2] = std::array::from_fn(|_| tempfile::tempfile().unwrap());
    memory.set_len(MEMORY).unwrap();
    let answer = guest.ask_with(RequestBody::SaveState, &[state.as_fd()]);
    assert_eq!(answer, Answer::Done);
    let piece = RequestBody::SaveMemory {
        offset: 0,
        length: MEMORY,
    };
    let answer = guest.ask_with(piece, &[memory.as_fd()]);
    assert!(matches!(answer, Answer::Saved { .. }), "{answer:?}");
    guest.kill();
    // It stays what it was, whatever is wanted by now.
    let mut guest = Guest::start(Options {
        restore: Some([state, memory]),
        ..options(CpuConfig::default())
    });
    let mut console = guest.console(0);
    console.type_in("x");
    console.expect("2\n");
    guest.kill();
}

#[test]
fn features_that_are_not_there_are_named() {
    if kvm_missing() {
        return;
    }
    // No processor has both.
    let both = Guest::try_start(options(CpuConfig {
        add: ["vmx", "svm"].map(str::to_owned).to_vec(),
        ..CpuConfig::default()
    }));
    let Err(SpawnError::Refused { error, message }) = both.map(drop) else {
        panic!("it was started");
    };
    assert_eq!(error, LaunchError::Cpu);
    assert!(
        message.contains("vmx") || message.contains("svm"),
        "{message}"
    );
}

#[test]
fn hyperv_is_found_before_kvm_where_the_kernel_has_it() {
    if kvm_missing() {
        return;
    }
    let kvm = kvm_ioctls::Kvm::new().unwrap();
    let started = Guest::try_start(Options {
        cpu: CpuConfig {
            hyperv: true,
            ..CpuConfig::default()
        },
        ..Options::code(finds())
    });
    if kvm.check_extension(kvm_ioctls::Cap::HypervSynic2) {
        // Letters of "Microsoft Hv" and "KVMKVMKVM".
        let mut guest = started.unwrap();
        guest.prints("Mifv\nKVVM\n");
        guest.kill();
        return;
    }
    let Err(SpawnError::Refused { error, message }) = started.map(drop) else {
        panic!("it was started");
    };
    assert_eq!(error, LaunchError::Cpu);
    assert!(message.contains("Hyper-V"), "{message}");
}
