//! A disk on NVMe under a jailed guest, with doorbells that the kernel hears of.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{DiskBus, ExitReason};

// Carries out what is listed behind its code, four doublewords each: 1 writes a value to an address, 2 waits until a
// value is there under a mask, 3 prints so many bytes, 4 writes to configuration space. Anything else is the end.
crate::guest!(
    carries_out,
    "mov esp, 0x80000",
    "jmp 9f",
    "1: pop esi", // a return address: that of the list
    "2: mov eax, [esi]",
    "mov ebx, [esi + 4]",
    "mov ecx, [esi + 8]",
    "mov edx, [esi + 12]",
    "add esi, 16",
    "cmp eax, 1",
    "je 4f",
    "cmp eax, 2",
    "je 5f",
    "cmp eax, 3",
    "je 6f",
    "cmp eax, 4",
    "je 7f",
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "3: hlt",
    "jmp 3b",
    "4: mov [ebx], ecx",
    "jmp 2b",
    "5: mov eax, [ebx]",
    "and eax, edx",
    "cmp eax, ecx",
    "jne 5b",
    "jmp 2b",
    "6: push esi",
    "mov esi, ebx",
    "mov edx, 0x3f8",
    "rep outsb",
    "pop esi",
    "jmp 2b",
    "7: mov edx, 0xcf8",
    "mov eax, ebx",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov eax, ecx",
    "out dx, eax",
    "jmp 2b",
    "9: call 1b",
);

/// Function 0 of the first slot for disks, by configuration ports.
const FUNCTION: u32 = 0x8000_0000 | 9 << 11;
const REGISTERS: u32 = 0xd000_0000;
/// Rings of submission and completion: the admin queues, then those for data.
const RINGS: u32 = 0x20_0000;
const SHADOWS: u32 = 0x21_0000;
const DATA: u32 = 0x30_0000;

/// What the guest is to do.
#[derive(Default)]
struct Program {
    list: Vec<u8>,
    /// Commands given to each queue.
    given: [u32; 2],
}

impl Program {
    fn act(&mut self, act: u32, address: u32, value: u32, mask: u32) {
        for word in [act, address, value, mask] {
            self.list.extend(word.to_le_bytes());
        }
    }

    fn write(&mut self, address: u32, value: u32) {
        self.act(1, address, value, 0);
    }

    fn wait(&mut self, address: u32, value: u32, mask: u32) {
        self.act(2, address, value, mask);
    }

    fn print(&mut self, address: u32, length: u32) {
        self.act(3, address, length, 0);
    }

    fn configure(&mut self, register: u32, value: u32) {
        self.act(4, FUNCTION | register, value, 0);
    }

    /// A command on a queue, and its success. Those for data have doorbells in memory.
    fn command(&mut self, queue: u32, code: u32, namespace: u32, data: [u32; 2], words: &[u32]) {
        let index = self.given[queue as usize];
        self.given[queue as usize] += 1;
        let [submission, completion] = [0, 0x1000].map(|ring| RINGS + queue * 0x2000 + ring);
        let entry = submission + index * 64;
        self.write(entry, code | (index + 1) << 16);
        self.write(entry + 4, namespace);
        self.write(entry + 24, data[0]);
        self.write(entry + 32, data[1]);
        for (word, at) in words.iter().zip((40..).step_by(4)) {
            self.write(entry + at, *word);
        }
        if queue != 0 {
            self.write(SHADOWS + queue * 8, index + 1);
        }
        self.write(REGISTERS + 0x1000 + queue * 8, index + 1);
        // Identifier, phase, status.
        self.wait(
            completion + index * 16 + 12,
            (index + 1) | 1 << 16,
            u32::MAX,
        );
        self.write(REGISTERS + 0x1004 + queue * 8, index + 1);
    }

    fn enable(&mut self) {
        self.configure(0x10, REGISTERS);
        self.configure(0x14, 0);
        self.configure(0x04, 6);
        self.write(REGISTERS + 0x24, 31 | 31 << 16);
        self.write(REGISTERS + 0x28, RINGS);
        self.write(REGISTERS + 0x30, RINGS + 0x1000);
        self.write(REGISTERS + 0x14, 6 << 16 | 4 << 20 | 1);
        self.wait(REGISTERS + 0x1c, 1, u32::MAX);
    }

    fn shut_down(&mut self) {
        self.write(REGISTERS + 0x14, 6 << 16 | 4 << 20 | 1 << 14 | 1);
        self.wait(REGISTERS + 0x1c, 1 | 2 << 2, u32::MAX);
    }

    fn code(mut self) -> Vec<u8> {
        self.act(0, 0, 0, 0);
        [carries_out(), &self.list].concat()
    }
}

/// A disk that begins with `text`.
fn disk(text: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(text, 0).unwrap();
    file
}

#[test]
fn a_disk_on_nvme_is_read_and_written() {
    if kvm_missing() {
        return;
    }
    let mut program = Program::default();
    program.enable();
    // Who it is; doorbells in memory; a pair of queues.
    program.command(0, 6, 0, [DATA, 0], &[1]);
    program.print(DATA + 4, 6);
    program.command(0, 0x7c, 0, [SHADOWS, SHADOWS + 0x1000], &[]);
    program.command(0, 5, 0, [RINGS + 0x3000, 0], &[1 | 31 << 16, 1]);
    program.command(0, 1, 0, [RINGS + 0x2000, 0], &[1 | 31 << 16, 1 << 16 | 1]);
    // A block from here to there, durably; a discard; a flush.
    program.command(1, 2, 1, [DATA, 0], &[0, 0, 0]);
    program.print(DATA, 6);
    program.command(1, 1, 1, [DATA, 0], &[7, 0, 1 << 30]);
    program.write(DATA + 0x1000, 0);
    program.write(DATA + 0x1004, 1);
    program.write(DATA + 0x1008, 0);
    program.command(1, 9, 1, [DATA + 0x1000, 0], &[0, 4]);
    program.command(1, 0, 1, [0, 0], &[]);
    program.shut_down();
    let file = disk(b"block\n");
    let (guest, mut console) = Guest::start_with_console(Options {
        disks: vec![(DiskBus::Nvme, file.try_clone().unwrap())],
        jail: true,
        ..Options::code(&program.code())
    });
    assert_eq!(guest.end().reason, ExitReason::GuestPoweroff);
    console.expect("disk0 block\n");
    let mut block = [0; 6];
    file.read_exact_at(&mut block, 7 * 512).unwrap();
    assert_eq!(&block, b"block\n");
    file.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, [0; 6], "discarded");
}
