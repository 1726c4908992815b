//! Doorbells in memory.

use super::*;

const SHADOWS: u64 = 0x20_0000;
const EVENTS: u64 = 0x20_1000;

fn configure(rig: &Rig) {
    assert_eq!(rig.admin(command(0x7c, 0, [SHADOWS, EVENTS], &[])), (OK, 0));
    rig.driver.lock().unwrap().shadow = Some((SHADOWS, EVENTS));
}

fn shadowed() -> (Rig, File) {
    let (rig, file) = ready();
    configure(&rig);
    (rig, file)
}

#[test]
fn the_kernel_hears_of_them() {
    let (rig, _file) = ready();
    assert_eq!(rig.config::<1>(0x10)[0] & 0xf, 4);
    assert!(rig.platform.doorbell_addresses().is_empty());
    configure(&rig);
    let at = |base: u64| [1, 2, 3].map(|queue| base + tail_doorbell(queue));
    assert_eq!(rig.platform.doorbell_addresses(), at(BASE));
    // They follow the registers.
    rig.function.lock().unwrap().set_bar(0, BASE + 0x10_0000);
    assert_eq!(rig.platform.doorbell_addresses(), at(BASE + 0x10_0000));
    rig.function.lock().unwrap().set_bar(0, BASE);
    {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        assert!(rig.platform.doorbell_addresses().is_empty());
        function.resume();
    }
    rig.until("doorbells", || {
        rig.platform.doorbell_addresses() == at(BASE)
    });
    rig.disable();
    assert!(rig.platform.doorbell_addresses().is_empty());
}

#[test]
fn a_busy_driver_loses_nothing() {
    let (rig, _file) = shadowed();
    rig.create_pair(3, 5);
    let mut under_way = 0;
    for round in 0..2000_u32 {
        for queue in [1, 3] {
            rig.submit(queue, transfer(2, u64::from(round % 64), 1, [DATA, 0]));
        }
        under_way += 1;
        if under_way == 4 || round % 7 == 0 {
            for queue in [1, 3] {
                for _ in 0..under_way {
                    assert_eq!(rig.reap(queue).status, OK);
                }
            }
            under_way = 0;
        }
    }
    for queue in [1, 3] {
        for _ in 0..under_way {
            assert_eq!(rig.reap(queue).status, OK);
        }
    }
    assert_eq!(rig.handle.statistics().totals().reads, 4000);
}

#[test]
fn queues_that_are_there_go_on() {
    let (rig, _file) = ready();
    for _ in 0..70 {
        assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    }
    configure(&rig);
    // The controller says where they are.
    assert_eq!(rig.get(SHADOWS + 8, 8), [6, 0, 0, 0, 6, 0, 0, 0]);
    for _ in 0..70 {
        assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    }
    // Queues created later begin at the beginning.
    rig.put(SHADOWS + 24, &[0xee; 8]);
    rig.create_pair(3, 8);
    assert_eq!(rig.get(SHADOWS + 24, 8), [0; 8]);
    assert_eq!(rig.run(3, transfer(2, 0, 1, [DATA, 0])), (OK, 0));
    // The admin queue has registers always.
    assert_eq!(rig.identify(1, 0)[0], 0x36);
}

#[test]
fn pages_that_cannot_be() {
    let (rig, _file) = ready();
    for (shadows, events) in [
        (MEMORY, EVENTS),
        (SHADOWS, MEMORY),
        (SHADOWS + 8, EVENTS),
        (SHADOWS, EVENTS + 4),
        (u64::MAX - 4095, EVENTS),
    ] {
        let bytes = command(0x7c, 0, [shadows, events], &[]);
        assert_eq!(rig.admin(bytes), (INVALID_FIELD, 0));
    }
    assert_eq!(
        rig.data(transfer(2, 0, 1, [DATA, 0])),
        OK,
        "by registers as before"
    );
}

#[test]
fn indices_that_cannot_be_are_not_believed() {
    let (rig, _file) = shadowed();
    rig.submit(0, command(12, 0, [0; 2], &[]));
    for wrong in [64_u32, 0xffff, u32::MAX] {
        rig.put(SHADOWS + 8, &wrong.to_le_bytes());
        rig.write(tail_doorbell(1), 1);
        assert_eq!(rig.poll(1), None);
    }
    assert_eq!(rig.reap(0).result, 1 << 8 | 1 << 16);
    rig.put(SHADOWS + 8, &[0; 4]);
    // A head that cannot be is one that does not move.
    rig.put(SHADOWS + 12, &[0xff; 4]);
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
}

#[test]
fn saved_with_commands_in_memory() {
    let (rig, _file) = shadowed();
    for _ in 0..10 {
        assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    }
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.save()
    };
    // Commands of which only memory knows.
    rig.put(DATA, &[9; 512]);
    rig.fill(1, transfer(1, 3, 1, [DATA, 0]));
    rig.ring(1);
    let other = Rig::new(image(SIZE).1, disk_options());
    other.put(0, &rig.get(0, MEMORY as usize));
    *other.driver.lock().unwrap() = rig.driver.lock().unwrap().clone();
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        function.resume();
    }
    assert_eq!(other.reap(1).status, OK);
    assert_eq!(other.data(transfer(2, 3, 1, [DATA + 512, 0])), OK);
    assert_eq!(other.get(DATA + 512, 512), [9; 512]);
    other.until("doorbells", || {
        other.platform.doorbell_addresses().len() == 3
    });
}
