//! The control queue and what drivers put into it.

use proptest::prelude::*;

use super::driver::{COMMAND, Several};
use super::*;
use crate::virtio::test_driver::Piece;

/// Command, in as many pieces as bytes.
fn torn(driver: &mut Several, bytes: &[u8]) -> u8 {
    driver
        .memory
        .write_slice(bytes, GuestAddress(COMMAND))
        .unwrap();
    let pieces = (COMMAND..).zip(bytes).map(|(at, _)| readable(at, 1));
    driver.command_in(&pieces.collect::<Vec<_>>())
}

#[test]
fn a_command_may_be_torn() {
    let mut driver = Several::new(2, !0);
    assert_eq!(torn(&mut driver, &[4, 0, 2, 0]), 0);
    assert_eq!(torn(&mut driver, &[4, 0, 1, 0]), 0);
    assert_eq!(torn(&mut driver, &[4, 0, 3, 0]), 1);
}

#[test]
fn what_is_no_command_is_refused() {
    let mut driver = Several::new(2, !0);
    for bytes in [
        // Nothing, half a header, no data, half of it, too much.
        &[][..],
        &[4],
        &[4, 0],
        &[4, 0, 2],
        &[4, 0, 2, 0, 0],
        // Modes that are neither on nor off, and those that were not agreed on.
        &[0, 0],
        &[0, 0, 2],
        &[0, 1, 255],
        &[0, 0, 1, 0],
        &[0, 2, 1],
        // Addresses of groups and of nobody, half an address and more than one.
        &[1, 1, 1, 0, 0x5e, 0, 0, 1],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 1, 0],
        // Tables without an end, of the wrong kind, and with something behind them.
        &[1, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[1, 0, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Unknown commands and classes.
        &[1, 2, 0],
        &[4, 1, 2, 0],
        &[4, 255, 2, 0],
        &[2, 0, 1, 0],
        &[3, 0, 1],
        &[5, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        &[255, 255],
    ] {
        let acknowledged = match bytes {
            [] => driver.command_in(&[]),
            _ => driver.command(bytes),
        };
        assert_eq!(acknowledged, 1, "{bytes:?}");
    }
    assert_eq!(driver.use_pairs(2), 0, "and it goes on");
    assert!(!driver.events.broken());
}

#[test]
fn a_command_without_room_for_an_answer_breaks_the_device() {
    let mut driver = Several::new(2, !0);
    let control = driver.queues.last_mut().unwrap();
    control.offer(&[readable(COMMAND, 4)]).unwrap();
    control.kick();
    assert!(
        driver
            .events
            .wait_broken()
            .contains("1 bytes needed, 0 given")
    );
    assert_eq!(driver.device.deactivate().len(), 5);
}

#[test]
fn a_flood_in_one_command_breaks_the_device() {
    let mut driver = Several::new(2, !0);
    let control = driver.queues.last_mut().unwrap();
    control
        .offer(&[readable(COMMAND, 1 << 20), writable(COMMAND, 1)])
        .unwrap();
    control.kick();
    assert!(driver.events.wait_broken().contains("bytes in one chain"));
}

/// Pieces of a command, as a driver may mean or not mean them.
fn piece() -> impl Strategy<Value = Piece> {
    let address = prop_oneof![
        8 => COMMAND..COMMAND + 0x100,
        // Rings that are commands, and commands that are rings.
        1 => 0..0x1000_u64,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![8 => 0..12_u32, 1 => 0..2000_u32, 1 => any::<u32>()];
    (address, length, any::<bool>()).prop_map(|(address, length, writable)| Piece {
        address,
        length,
        writable,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a driver puts into its control queue, the device neither dies nor hangs, and gives all queues back.
    #[test]
    fn random_commands_do_no_harm(
        content in prop::collection::vec(prop_oneof![4 => 0..6_u8, 1 => any::<u8>()], 0x100),
        commands in prop::collection::vec(prop::collection::vec(piece(), 1..6), 1..12),
        head in prop::option::of(any::<u16>()),
    ) {
        let mut driver = Several::new(2, !0);
        driver.memory.write_slice(&content, GuestAddress(COMMAND)).unwrap();
        let control = driver.queues.last_mut().unwrap();
        for pieces in commands {
            control.offer(&pieces);
            control.kick();
        }
        if let Some(head) = head {
            control.make_available(head);
            control.kick();
        }
        prop_assert_eq!(driver.device.deactivate().len(), 5);
    }
}
