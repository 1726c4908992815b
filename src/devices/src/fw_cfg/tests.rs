use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;

const REQUEST: u64 = 0x1000;
const BUFFER: u64 = 0x2000;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;

/// A file the guest may write, as `etc/ramfb` is.
struct Note(Arc<Mutex<[u8; 8]>>);

impl Source for Note {
    fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap().to_vec()
    }

    fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        self.0.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        true
    }
}

struct Rig {
    device: FwCfg,
    memory: GuestMemory,
    note: Arc<Mutex<[u8; 8]>>,
    counter: Arc<Mutex<u8>>,
}

fn rig() -> Rig {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let (note, counter) = (Arc::default(), Arc::new(Mutex::new(0)));
    let mut items = Items::new();
    items.set(key::CPUS, &3_u16.to_le_bytes());
    items.add_file("etc/note", Note(Arc::clone(&note)));
    items.add_file("bootorder", b"/pci@i0cf8/scsi@9\n\0".to_vec());
    let seen = Arc::clone(&counter);
    items.add_file("etc/acpi/rsdp", move || vec![*seen.lock().unwrap(); 4]);
    Rig {
        device: FwCfg::new(memory.clone(), items),
        memory,
        note,
        counter,
    }
}

impl Rig {
    fn select(&mut self, key: u16) {
        self.device.write(SELECTOR, &key.to_le_bytes());
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut read = || {
            let mut byte = [0xff];
            self.device.read(DATA, &mut byte);
            byte[0]
        };
        (0..count).map(|_| read()).collect()
    }

    /// The number of a file, found as firmware finds it.
    fn find(&mut self, name: &str) -> (u16, u32) {
        self.select(key::FILE_DIRECTORY);
        let count = u32::from_be_bytes(self.bytes(4).try_into().unwrap());
        for _ in 0..count {
            let entry = self.bytes(64);
            if entry[8..].starts_with(name.as_bytes()) && entry[8 + name.len()] == 0 {
                let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
                return (u16::from_be_bytes([entry[4], entry[5]]), size);
            }
        }
        panic!("no file {name}");
    }

    fn dma(&mut self, control: u32, length: u32, address: u64) -> u32 {
        let mut request = control.to_be_bytes().to_vec();
        request.extend(length.to_be_bytes());
        request.extend(address.to_be_bytes());
        self.memory
            .write_slice(&request, GuestAddress(REQUEST))
            .unwrap();
        self.device.write(DMA_HIGH, &0_u32.to_be_bytes());
        self.device.write(DMA_LOW, &(REQUEST as u32).to_be_bytes());
        u32::from_be(self.memory.read_obj(GuestAddress(REQUEST)).unwrap())
    }

    fn buffer(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(BUFFER))
            .unwrap();
        bytes
    }
}

#[test]
fn tells_that_it_is_there() {
    let mut rig = rig();
    assert_eq!(rig.bytes(4), b"QEMU", "item 0 is selected at power-on");
    rig.select(key::ID);
    assert_eq!(rig.bytes(4), [3, 0, 0, 0]);
    let mut signature = [0; 8];
    rig.device.read(DMA_HIGH, &mut signature);
    assert_eq!(&signature, b"QEMU CFG");
    let mut half = [0; 4];
    rig.device.read(DMA_LOW, &mut half);
    assert_eq!(&half, b" CFG");
}

#[test]
fn files_are_listed_in_order_and_read_by_ports() {
    let mut rig = rig();
    let (first, size) = rig.find("bootorder");
    assert_eq!((first, size), (key::FILE_FIRST, 19));
    rig.select(first);
    assert_eq!(rig.bytes(20), b"/pci@i0cf8/scsi@9\n\0\0");
    rig.select(key::CPUS);
    assert_eq!(rig.bytes(3), [3, 0, 0]);
    rig.select(0x7fff);
    assert_eq!(rig.bytes(2), [0, 0], "there is no such item");
}

#[test]
fn dma_selects_skips_and_reads() {
    let mut rig = rig();
    let (number, _) = rig.find("bootorder");
    let select = u32::from(number) << 16 | SELECT;
    assert_eq!(rig.dma(select | SKIP, 5, 0), 0);
    assert_eq!(rig.dma(READ, 5, BUFFER), 0);
    assert_eq!(rig.buffer(5), b"i0cf8");
    rig.memory
        .write_slice(&[0xaa; 32], GuestAddress(BUFFER))
        .unwrap();
    assert_eq!(rig.dma(select | READ, 32, BUFFER), 0);
    assert_eq!(rig.buffer(32)[..19], *b"/pci@i0cf8/scsi@9\n\0");
    assert_eq!(rig.buffer(32)[19..], [0; 13], "zeroes follow the end");
}

#[test]
fn content_is_as_it_is_when_selected() {
    let mut rig = rig();
    let (number, _) = rig.find("etc/acpi/rsdp");
    *rig.counter.lock().unwrap() = 7;
    rig.select(number);
    *rig.counter.lock().unwrap() = 8;
    assert_eq!(rig.bytes(2), [7, 7]);
    rig.select(number);
    assert_eq!(rig.bytes(2), [8, 8]);
}

#[test]
fn only_some_files_can_be_written_and_only_inside() {
    let mut rig = rig();
    rig.memory
        .write_slice(b"note", GuestAddress(BUFFER))
        .unwrap();
    let (note, _) = rig.find("etc/note");
    let select = u32::from(note) << 16 | SELECT;
    assert_eq!(rig.dma(select | SKIP, 2, 0), 0);
    assert_eq!(rig.dma(WRITE, 4, BUFFER), 0);
    assert_eq!(*rig.note.lock().unwrap(), *b"\0\0note\0\0");
    assert_eq!(rig.dma(select | WRITE, 9, BUFFER), 1);
    assert_eq!(rig.dma(select | SKIP, u32::MAX, 0), 0);
    assert_eq!(rig.dma(WRITE, 4, BUFFER), 1);
    let (order, _) = rig.find("bootorder");
    assert_eq!(
        rig.dma(u32::from(order) << 16 | SELECT | WRITE, 4, BUFFER),
        1
    );
    assert_eq!(
        rig.dma(u32::from(key::CPUS) << 16 | SELECT | WRITE, 2, BUFFER),
        1
    );
    assert_eq!(*rig.note.lock().unwrap(), *b"\0\0note\0\0");
}

#[test]
fn requests_outside_memory_are_refused() {
    let mut rig = rig();
    for address in [0xffff, 0x1_0000, u64::MAX - 2, 1 << 63] {
        assert_eq!(rig.dma(SELECT | READ, 4, address), 1, "{address:#x}");
        assert_eq!(rig.dma(SELECT | WRITE, 4, address), 1, "{address:#x}");
    }
    assert_eq!(
        rig.dma(SELECT | READ, u32::MAX, BUFFER),
        1,
        "4 GiB of zeroes"
    );
    assert_eq!(rig.dma(SELECT | WRITE, u32::MAX, BUFFER), 1);
    // The request itself in a hole: nothing happens.
    rig.device.write(DMA_HIGH, &u32::MAX.to_be_bytes());
    rig.device.write(DMA_LOW, &u32::MAX.to_be_bytes());
}

#[test]
fn goes_on_where_it_was_saved() {
    let mut rig = rig();
    let (number, _) = rig.find("bootorder");
    rig.select(number);
    rig.bytes(5);
    let state = rig.device.save();
    rig.device.reset();
    assert_eq!(rig.bytes(4), b"QEMU");
    rig.device.restore(&state).unwrap();
    assert_eq!(rig.bytes(5), b"i0cf8");
}

proptest! {
    #[test]
    fn no_access_breaks_it(accesses in proptest::collection::vec(
        (0..FW_CFG_PORTS_LENGTH, proptest::collection::vec(any::<u8>(), 1..=8), any::<bool>()), 0..64)) {
        let mut rig = rig();
        for (offset, data, write) in accesses {
            if write {
                rig.device.write(offset, &data);
            } else {
                rig.device.read(offset, &mut data.clone());
            }
            let state = rig.device.save();
            rig.device.restore(&state).unwrap();
        }
    }

    #[test]
    fn no_request_breaks_it(request: [u8; 16]) {
        let mut rig = rig();
        rig.memory.write_slice(&request, GuestAddress(REQUEST)).unwrap();
        rig.device.write(DMA_LOW, &(REQUEST as u32).to_be_bytes());
    }
}
