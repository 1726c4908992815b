use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

const BYTES: usize = 3 * BLOCK as usize;

#[derive(Default)]
struct Cells {
    now: Vec<u8>,
    durable: Vec<u8>,
    exposed: bool,
    full: bool,
}

struct TestArray(Arc<Mutex<Cells>>);

impl Array for TestArray {
    fn length(&self) -> u64 {
        BYTES as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let at = offset as usize;
        data.copy_from_slice(&self.0.lock().unwrap().now[at..at + data.len()]);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let at = offset as usize;
        self.0.lock().unwrap().now[at..at + data.len()].copy_from_slice(data);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut cells = self.0.lock().unwrap();
        if cells.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        cells.durable = cells.now.clone();
        Ok(())
    }

    fn expose(&mut self, exposed: bool) {
        self.0.lock().unwrap().exposed = exposed;
    }
}

struct Rig {
    chip: Pflash,
    cells: Arc<Mutex<Cells>>,
}

fn rig() -> Rig {
    let cells = Arc::new(Mutex::new(Cells {
        now: vec![0xff; BYTES],
        durable: vec![0xff; BYTES],
        ..Cells::default()
    }));
    Rig {
        chip: Pflash::new(Box::new(TestArray(Arc::clone(&cells)))),
        cells,
    }
}

impl Rig {
    fn get(&mut self, offset: u64) -> u8 {
        let mut data = [0];
        self.chip.read(offset, &mut data);
        data[0]
    }

    fn put(&mut self, offset: u64, value: u8) {
        self.chip.write(offset, &[value]);
    }

    fn exposed(&self) -> bool {
        self.cells.lock().unwrap().exposed
    }
}

#[test]
fn firmware_tells_it_from_rom_and_ram() {
    // The probe of edk2's flash driver.
    let mut rig = rig();
    assert!(rig.exposed());
    let original = rig.get(0);
    rig.put(0, CLEAR_STATUS);
    assert_eq!(rig.get(0), original, "not RAM");
    rig.put(0, READ_STATUS);
    assert!(!rig.exposed());
    assert_eq!(rig.get(0), 0, "not ROM, and nothing has gone wrong");
    rig.put(0, PROGRAM);
    rig.put(0, original);
    rig.put(0, READ_STATUS);
    assert_eq!(rig.get(0) & STATUS_PROGRAM_ERROR, 0, "writable");
    rig.put(0, READ_ARRAY);
    assert!(rig.exposed());
    assert_eq!(rig.get(0), original);
}

#[test]
fn programming_clears_bits_and_erasing_sets_them() {
    let mut rig = rig();
    let at = BLOCK + 5;
    for value in [0x3c, 0x0f] {
        rig.put(at, PROGRAM);
        rig.put(at, value);
    }
    assert_eq!(rig.get(at), STATUS_READY);
    assert_eq!(rig.cells.lock().unwrap().durable[at as usize], 0xff);
    rig.put(at, READ_ARRAY);
    assert_eq!(rig.get(at), 0x0c);
    assert_eq!(rig.cells.lock().unwrap().durable[at as usize], 0x0c);
    rig.put(at, ERASE);
    rig.put(at, CONFIRM);
    rig.put(at, READ_ARRAY);
    assert_eq!((rig.get(at - 1), rig.get(at)), (0xff, 0xff));
}

#[test]
fn mistakes_show_in_the_status() {
    let mut rig = rig();
    for commands in [[0x99, READ_STATUS], [ERASE, 0]] {
        rig.put(0, CLEAR_STATUS);
        for command in commands {
            rig.put(0, command);
        }
        assert_eq!(
            rig.get(0),
            STATUS_READY | STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR
        );
    }
    rig.put(0, CLEAR_STATUS);
    rig.put(0, PROGRAM);
    rig.chip.write(BYTES as u64 - 1, &[0, 0]);
    assert_eq!(rig.get(0), STATUS_READY | STATUS_PROGRAM_ERROR);
}

#[test]
fn a_full_disk_shows_in_the_status_and_is_tried_again() {
    let mut rig = rig();
    rig.put(7, PROGRAM);
    rig.put(7, 0);
    rig.cells.lock().unwrap().full = true;
    rig.put(7, READ_ARRAY);
    rig.put(7, READ_STATUS);
    assert_eq!(rig.get(7) & STATUS_PROGRAM_ERROR, STATUS_PROGRAM_ERROR);
    rig.cells.lock().unwrap().full = false;
    rig.put(7, READ_ARRAY);
    assert_eq!(rig.cells.lock().unwrap().durable[7], 0);
}

#[test]
fn a_chip_in_the_middle_of_a_command_can_be_saved() {
    let mut rig = rig();
    rig.put(0, PROGRAM);
    let state = rig.chip.save();
    rig.chip.reset();
    assert!(rig.exposed());
    rig.chip.restore(&state).unwrap();
    assert!(!rig.exposed());
    rig.put(9, 0x55);
    rig.put(0, READ_ARRAY);
    assert_eq!(rig.get(9), 0x55);
}

proptest! {
    #[test]
    fn no_access_breaks_it(accesses in proptest::collection::vec(
        (0..BYTES as u64, proptest::collection::vec(any::<u8>(), 1..=8), any::<bool>()), 0..64)) {
        let mut rig = rig();
        for (offset, data, write) in accesses {
            if write {
                rig.chip.write(offset, &data);
            } else {
                rig.chip.read(offset, &mut data.clone());
            }
        }
    }
}
