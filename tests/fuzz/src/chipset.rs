//! Devices that are not on the PCI bus, one at a time.

use std::io;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use lodge_devices::acpi_pm::{AcpiPm, PM_BLOCK_LENGTH};
use lodge_devices::bus::BusDevice;
use lodge_devices::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
use lodge_devices::console::Console;
use lodge_devices::fuzzing::{TestLine, TestPower};
use lodge_devices::fw_cfg::{FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, FwCfg, Items};
use lodge_devices::hotplug::{HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, Hotplug};
use lodge_devices::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH, MouseEvent, Stroke};
use lodge_devices::lifecycle::Shared;
use lodge_devices::pflash::{Array, BLOCK, Pflash};
use lodge_devices::ramfb::{RAMFB_FILE, Ramfb, RamfbFile};
use lodge_devices::serial::{COM1, SERIAL_PORTS_LENGTH, Serial};

use crate::board::Board;
use crate::input::Input;
use crate::operation::run;

/// Bytes of history that a viewer of a console asks for.
const SCROLLBACK: usize = 100;

/// A console with somebody in front of it, who types what the host's side of an input says.
///
/// # Panics
/// When the process is out of descriptors.
pub(crate) fn typed_console(board: &mut Board) -> Arc<Console> {
    let console = Console::new(&board.events.handle()).expect("a console");
    let (near, mut far) = UnixStream::pair().expect("a socket pair");
    far.set_nonblocking(true).expect("an open socket");
    console
        .attach(near.into(), SCROLLBACK)
        .expect("the first viewer");
    let shown = Arc::clone(&console);
    board.host = Box::new(move |_, bytes| {
        // A socket that is full drops what is typed. Nobody reads: the console has to bear that, too.
        let _ = far.write(bytes);
        assert!(shown.tail(SCROLLBACK).len() <= SCROLLBACK);
    });
    console
}

/// A UART with a console behind it.
///
/// # Panics
/// When the device does something wrong.
pub fn serial(data: &[u8]) {
    let mut board = Board::new();
    let console = typed_console(&mut board);
    let serial = Serial::with_console("com1", TestLine::new(), &console);
    board.add_ports(COM1.0, SERIAL_PORTS_LENGTH, &serial);
    run(&mut board, Input::new(data));
}

/// The clock and its memory.
///
/// # Panics
/// When the device does something wrong.
pub fn cmos(data: &[u8]) {
    let mut board = Board::new();
    let handle = board.events.handle();
    let cmos = Cmos::new().with_alarm(TestLine::new(), &handle);
    board.add_ports(CMOS_PORTS, CMOS_PORTS_LENGTH, &cmos.expect("an alarm"));
    run(&mut board, Input::new(data));
}

/// Keyboard controller, keyboard and mouse.
///
/// # Panics
/// When the device does something wrong.
pub fn i8042(data: &[u8]) {
    let mut board = Board::new();
    let (i8042, keyboard, mouse) =
        I8042::with_devices(TestPower::new(), TestLine::new(), TestLine::new());
    board.add_ports(I8042_PORTS, I8042_PORTS_LENGTH, &i8042);
    board.expect_power_on_state();
    board.host = Box::new(move |what, bytes| {
        let mut input = Input::new(bytes);
        match what % 4 {
            0 => {
                let stroke = input.u32().and_then(Stroke::of_keysym);
                if let Some(stroke) = stroke {
                    keyboard.key(stroke.key, what & 4 != 0);
                }
            }
            1 => keyboard.release_all(),
            2 => assert!(keyboard.leds() < 8),
            _ => {
                let mut number = || input.u32().unwrap_or_default().cast_signed();
                mouse.event(MouseEvent {
                    dx: number(),
                    dy: number(),
                    wheel: number(),
                    buttons: what >> 2,
                });
            }
        }
    });
    run(&mut board, Input::new(data));
}

/// The power management block.
///
/// # Panics
/// When the device does something wrong.
pub fn acpi_pm(data: &[u8]) {
    let mut board = Board::new();
    let pm = Arc::new(Mutex::new(AcpiPm::new(TestLine::new(), TestPower::new())));
    board.add_ports(0x600, PM_BLOCK_LENGTH, &pm);
    board.host = Box::new(move |what, bytes| {
        let mut pm = pm.lock().expect("nobody else has it");
        match bytes.first() {
            Some(number) if what & 1 != 0 => pm.raise_gpe(*number),
            _ => pm.press_power_button(),
        }
    });
    run(&mut board, Input::new(data));
}

/// The registers by which devices come and go.
///
/// # Panics
/// When the device does something wrong.
pub fn hotplug(data: &[u8]) {
    let mut board = Board::new();
    let pm = Arc::new(Mutex::new(AcpiPm::new(TestLine::new(), TestPower::new())));
    // How often each slot may still be ejected.
    let asked = Arc::new(Mutex::new([0_u32; 32]));
    let ejected = Arc::clone(&asked);
    let on_eject = move |slot: u8| {
        let mut asked = ejected.lock().expect("nobody else has it");
        let left = &mut asked[usize::from(slot)];
        assert!(*left > 0, "slot {slot} was not asked for");
        *left = 0;
    };
    let device = Arc::new(Mutex::new(Hotplug::new(pm, Arc::new(on_eject))));
    board.add_ports(HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, &device);
    board.host = Box::new(move |what, bytes| {
        let slot = bytes.first().copied().unwrap_or_default() % 32;
        let mut device = device.lock().expect("nobody else has it");
        match what % 4 {
            0 => device.added(slot),
            1 => {
                asked.lock().expect("nobody else has it")[usize::from(slot)] += 1;
                device.ask(slot);
            }
            2 => {
                device.withdraw(slot);
            }
            _ => device.gone(slot),
        }
    });
    run(&mut board, Input::new(data));
}

/// The firmware configuration device with a file of each kind, and the display that is set up by one of them.
///
/// # Panics
/// When a device does something wrong.
pub fn fw_cfg(data: &[u8]) {
    let mut board = Board::new();
    let ramfb = Arc::new(Mutex::new(Ramfb::new(board.ram.clone())));
    let mut items = Items::new();
    items.add_file("etc/file", vec![7; 100]);
    items.add_file(RAMFB_FILE, RamfbFile::new(&ramfb));
    let fw_cfg = Arc::new(Mutex::new(FwCfg::new(board.ram.clone(), items)));
    board.add_ports(FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, &fw_cfg);
    board.devices.add(Arc::clone(&ramfb) as Shared);
    board.host = Box::new(move |_, _| {
        let scanout = ramfb.lock().expect("nobody else has it").scanout();
        if let Some(scanout) = scanout {
            let (width, height) = scanout.size();
            assert!(scanout.rows().all(|row| row.len() == width as usize));
            assert_eq!(scanout.rows().count(), height as usize);
        }
    });
    run(&mut board, Input::new(data));
}

/// Cells that are in no file.
struct Cells(Vec<u8>);

impl Array for Cells {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let offset = offset as usize;
        data.copy_from_slice(&self.0[offset..offset + data.len()]);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let offset = offset as usize;
        self.0[offset..offset + data.len()].copy_from_slice(data);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn expose(&mut self, _: bool) {}
}

/// A flash chip.
///
/// # Panics
/// When the device does something wrong.
pub fn pflash(data: &[u8]) {
    const BASE: u64 = 0xffe0_0000;
    let mut board = Board::new();
    let cells = Cells(vec![0xff; 2 * BLOCK as usize]);
    let length = cells.length();
    let pflash = Arc::new(Mutex::new(Pflash::new(Box::new(cells))));
    let device: Arc<Mutex<dyn BusDevice>> = Arc::clone(&pflash) as _;
    board
        .memory
        .insert(BASE, length, device)
        .expect("free addresses");
    board.ranges.push((false, BASE, length));
    board.devices.add(pflash);
    board.expect_power_on_state();
    run(&mut board, Input::new(data));
}
