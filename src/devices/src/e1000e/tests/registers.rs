//! What drivers see before they move packets.

use super::*;

#[test]
fn says_what_it_is() {
    let rig = Rig::new();
    assert_eq!(rig.config(0), 0x10d3_8086_u32.to_le_bytes());
    assert_eq!(rig.config(8), 0x0200_0000_u32.to_le_bytes());
    assert_eq!(rig.config(0x3d), [1], "INTA");
    assert_eq!(rig.config(0x40), [5, 0x50, 0x80, 0], "MSI");
    assert_eq!(rig.config(0x50), [0x11, 0, 4, 0], "MSI-X with five vectors");
    assert_eq!(rig.config(0x54), 3_u32.to_le_bytes());
    assert_eq!(rig.config(0x58), 0x2003_u32.to_le_bytes());
    for (bar, size) in [(0x10, 0x2_0000), (0x1c, 0x4000)] {
        rig.config_write(bar, &[0xff; 4]);
        assert_eq!(u32::from_le_bytes(rig.config(bar)), !(size - 1));
    }
}

#[test]
fn the_address_is_where_drivers_look() {
    let rig = Rig::new();
    let [a, b, c, d, e, f] = MAC.map(u32::from);
    let low = a | b << 8 | c << 16 | d << 24;
    let high = 1 << 31 | e | f << 8;
    assert_eq!((rig.read(at::RAL0), rig.read(at::RAH0)), (low, high));
    for (word, pair) in [(0, a | b << 8), (1, c | d << 8), (2, e | f << 8)] {
        rig.write(at::EERD, 1 | word << 2);
        assert_eq!(rig.read(at::EERD), pair << 16 | word << 2 | 2);
    }
    rig.write(at::RAL0, 0);
    rig.write(at::CTRL, 1 << 26);
    assert_eq!(rig.read(at::RAL0), low, "the same after a reset");
}

#[test]
fn the_link_is_up_until_the_driver_switches_it_off() {
    let rig = Rig::new();
    assert_eq!(rig.read(at::STATUS), 0x0008_0283);
    let mdic = |operation: u32, register: u32, data: u32| {
        rig.write(at::MDIC, operation << 26 | 1 << 21 | register << 16 | data);
        rig.read(at::MDIC)
    };
    assert_eq!(mdic(2, 2, 0), 0x1822_0141);
    assert_eq!(mdic(2, 3, 0), 0x1823_0cb1);
    assert_eq!(mdic(2, 1, 0) & 0x24, 0x24);
    mdic(1, 0, 0x1940);
    assert_eq!(rig.read(at::STATUS) & 2, 0);
    assert_eq!(rig.read(at::ICR), 1 << 24 | 1 << 2, "OTHER and LSC");
    rig.write(at::CTRL, 1 << 31 | 1 << 6);
    assert_eq!(rig.read(at::STATUS) & 2, 2, "a reset of the transceiver");
    assert_eq!(rig.read(at::CTRL), 1 << 6);
}

#[test]
fn the_cable_is_pulled_and_plugged_in_again() {
    let mut rig = Rig::started();
    let handle = rig.function.lock().unwrap().handle();
    rig.write(at::IMS, 1 << 2);
    rig.read(at::ICR);
    handle.set_link(false);
    assert_eq!(rig.read(at::STATUS) & 2, 0);
    assert_ne!(rig.read(at::ICR) & 1 << 2, 0, "LSC");
    handle.set_link(false);
    assert_eq!(rig.read(at::ICR) & 1 << 2, 0, "nothing new");
    // Neither reset plugs it in, and a state that was saved with it tells of the change.
    rig.write(at::CTRL, 1 << 31 | 1 << 26);
    assert_eq!(rig.read(at::STATUS) & 2, 0);
    {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        let pulled = function.save();
        handle.set_link(true);
        let plugged = function.save();
        handle.set_link(false);
        function.restore(&plugged).unwrap();
        function.resume();
        drop(function);
        assert_ne!(rig.read(at::ICR) & 1 << 2, 0, "pulled since then");
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.restore(&pulled).unwrap();
        function.resume();
    }
    assert_eq!(rig.read(at::STATUS) & 2, 0);
    handle.set_link(true);
    assert_eq!(rig.read(at::STATUS) & 2, 2);
    rig.works();
}

#[test]
fn a_reset_clears() {
    let mut rig = Rig::started();
    rig.send(&frame(100, 1));
    rig.write(at::MTA, 0x1234_5678);
    rig.write(at::IMS, u32::MAX);
    rig.write(at::CTRL, rig.read(at::CTRL) | 1 << 26);
    assert_eq!(rig.read(at::CTRL), 0x0241);
    for offset in [
        at::RCTL,
        at::TCTL,
        at::MTA,
        at::IMS,
        TDH,
        TDT,
        at::TDBAL,
        RDT,
        0x4080,
    ] {
        assert_eq!(rig.read(offset), 0, "{offset:#x}");
    }
    assert_eq!(rig.read(at::PBA), 0x0014_0014);
    rig.works();
}

#[test]
fn semaphores_and_waits_of_drivers_end() {
    let rig = Rig::new();
    rig.write(0x0f00, 1 << 5);
    assert_eq!(rig.read(0x0f00), 1 << 5, "the PHY is the driver's");
    rig.write(0x5b50, 2);
    assert_eq!(rig.read(0x5b50), 2, "SWESMBI");
    rig.write(at::EECD, 1 << 6);
    assert_eq!(rig.read(at::EECD) & 0x3c0, 0x3c0);
    assert_ne!(rig.read(0x1010) & 1 << 18, 0, "configuration is done");
    assert_eq!(rig.read(0x102c), 2, "EEWR is done");
    rig.write(at::CTRL, 4);
    assert_eq!(
        rig.read(at::STATUS) & 1 << 19,
        0,
        "no more accesses to memory"
    );
    rig.write(at::TIMINCA, 0x0500_0010);
    assert_eq!(rig.read(at::TIMINCA), 0x0500_0010);
}

#[test]
fn narrow_reads_and_wide_writes() {
    let rig = Rig::new();
    let mut two = [0; 2];
    rig.bus.read(BASE + at::RAL0 + 2, &mut two);
    assert_eq!(two, MAC[2..4]);
    let mut eight = [0; 8];
    rig.bus.read(BASE + at::RAL0, &mut eight);
    assert_eq!(eight[..6], MAC);
    rig.bus
        .write(BASE + at::RDBAL, &0x12_3456_7890_u64.to_le_bytes());
    assert_eq!(rig.read(at::RDBAL), 0x3456_7890);
    assert_eq!(rig.read(at::RDBAL + 4), 0x12);
    for data in [&[0xff][..], &[0xff; 2]] {
        rig.bus.write(BASE + at::RDBAL, data);
    }
    assert_eq!(rig.read(at::RDBAL), 0x3456_7890);
}

#[test]
fn without_access_to_memory_nothing_moves() {
    let mut rig = Rig::started();
    rig.put(OUTGOING, &frame(100, 1));
    for (off, on) in [
        (
            Box::new(|rig: &Rig| rig.config_write(4, &[2, 0])) as Box<dyn Fn(&Rig)>,
            Box::new(|rig: &Rig| rig.config_write(4, &[6, 0])) as Box<dyn Fn(&Rig)>,
        ),
        (
            Box::new(|rig: &Rig| rig.write(at::CTRL, 4)),
            Box::new(|rig: &Rig| rig.write(at::CTRL, 0)),
        ),
        (
            Box::new(|rig: &Rig| rig.write(at::TCTL, 0)),
            Box::new(|rig: &Rig| rig.write(at::TCTL, ENABLE)),
        ),
    ] {
        off(&rig);
        let before = rig.read(TDH);
        let descriptor = rig.prepare(OUTGOING, 114 | END | REPORT, 0);
        rig.ring();
        assert_eq!(rig.read(TDH), before);
        on(&rig);
        rig.wait_done(descriptor);
        assert_eq!(rig.wire.receive(), frame(100, 1));
    }
}
