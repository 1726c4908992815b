use super::*;

#[test]
fn doorbells_follow_the_bar() {
    let rig = rig();
    rig.start();
    rig.kicked(0);
    rig.config_write(0x10, &0xd100_0000_u32.to_le_bytes());
    assert_eq!(
        rig.platform.doorbell_addresses(),
        [0xd100_3000, 0xd100_3004]
    );
    // One the platform did not take.
    rig.bus.write(0xd100_3000, &[0, 0]);
    assert!(rig.kicked(0));
    rig.bus.write(0xd100_3004, &[1, 0, 0, 0]);
    assert!(rig.kicked(1) && !rig.kicked(0));
    rig.bus.write(0xd100_3008, &[2, 0]);
    rig.bus.write(0xd100_3ffc, &[0xff; 8]);
    assert!(!rig.kicked(0) && !rig.kicked(1));
    rig.config_write(0x04, &[0, 0]);
    assert!(rig.platform.doorbell_addresses().is_empty());
    rig.config_write(0x04, &[2, 0]);
    assert_eq!(rig.platform.doorbell_addresses().len(), 2);
}

#[test]
fn works_without_doorbells() {
    let rig = rig_with(TestPlatform {
        refuse_doorbells: true,
        ..TestPlatform::default()
    });
    rig.start();
    rig.kicked(0);
    rig.put16(NOTIFY, 0);
    assert!(rig.kicked(0));
}

#[test]
fn reaches_the_bar_through_configuration_space() {
    let rig = rig();
    let window = {
        let mut offset = usize::from(rig.config_read::<1>(0x34)[0]);
        loop {
            let [id, next, _, kind] = rig.config_read(offset);
            if (id, kind) == (9, 5) {
                break offset;
            }
            offset = usize::from(next);
        }
    };
    let aim = |bar: u8, offset: u32, length: u32| {
        rig.config_write(window + 4, &[bar]);
        rig.config_write(window + 8, &offset.to_le_bytes());
        rig.config_write(window + 12, &length.to_le_bytes());
    };
    rig.config_write(0x04, &[0, 0]);
    aim(0, 0x14, 1);
    rig.config_write(window + 16, &[1, 0, 0, 0]);
    rig.config_write(window + 16, &[3, 0, 0, 0]);
    assert_eq!(rig.config_read::<1>(window + 16), [3]);
    aim(0, 0x2000, 4);
    assert_eq!(rig.config_read(window + 16), [1, 2, 3, 4]);
    // Set up wrongly it reaches nothing.
    for (bar, offset, length) in [
        (1, 0x14, 1),
        (0, 0x14, 3),
        (0, 0x15, 2),
        (0, 0x8000, 4),
        (0, u32::MAX, 1),
        (0, 0x14, u32::MAX),
    ] {
        aim(bar, offset, length);
        rig.config_write(window + 16, &[0; 4]);
        rig.config_read::<4>(window + 16);
    }
    rig.config_write(0x04, &[2, 0]);
    assert_eq!(rig.status(), 3);
}
