//! Which packets reach a driver.

use super::driver::Several;
use super::*;
use crate::tap::{Tap, TapFilter};

type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const OTHER: Mac = [0x52, 0x54, 0, 9, 9, 9];
const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];

/// Negotiated or not, `VIRTIO_NET_OK` is 0 and `VIRTIO_NET_ERR` 1.
const OK: u8 = 0;
const REFUSED: u8 = 1;

fn frame_to(destination: Mac) -> Vec<u8> {
    let mut frame = frame(60, 1);
    frame[..6].copy_from_slice(&destination);
    frame
}

/// Which of frames to everybody, its own address, another and a group the driver gets.
fn got(driver: &mut Several) -> [bool; 4] {
    [BROADCAST, MAC, OTHER, GROUP].map(|destination| {
        driver.wire.send(&frame_to(destination));
        // Whatever came of it, this one comes after it.
        driver.wire.send(&frame(80, 2));
        let first = driver.take_frame(0);
        if first == frame(80, 2) {
            return false;
        }
        assert_eq!(first, frame_to(destination));
        assert_eq!(driver.take_frame(0), frame(80, 2));
        true
    })
}

/// The tables of so many addresses of either kind, among them those of the tests first.
fn tables(unicast: usize, multicast: usize) -> Vec<u8> {
    let mut command = vec![1, 0];
    for (count, address) in [(unicast, OTHER), (multicast, GROUP)] {
        command.extend((count as u32).to_le_bytes());
        for number in 0..count {
            let mut address = address;
            address[4] ^= number as u8;
            command.extend(address);
        }
    }
    command
}

fn set_address(mac: Mac) -> Vec<u8> {
    [&[1, 1][..], &mac].concat()
}

fn address_of(device: &Net) -> Mac {
    let mut mac = [0; 6];
    device.read_config(0, &mut mac);
    mac
}

fn gets_what_it_wants(mut driver: Several) {
    driver.post(0);
    assert_eq!(got(&mut driver), [true; 4], "everything, until it says so");
    for (command, expected) in [
        (vec![0, 0, 0], [true, true, false, false]),
        (vec![0, 1, 1], [true, true, false, true]),
        (vec![0, 1, 0], [true, true, false, false]),
        (tables(1, 0), [true, true, true, false]),
        (tables(0, 1), [true, true, false, true]),
        // More than the tap knows exactly, as many as are kept, more than that.
        (tables(8, 20), [true, true, true, true]),
        (tables(64, 64), [true, true, true, true]),
        (tables(0, 65), [true, true, false, true]),
        (tables(65, 0), [true, true, true, false]),
        (tables(0, 0), [true, true, false, false]),
        (set_address(OTHER), [true, false, true, false]),
        (vec![0, 0, 1], [true, true, true, true]),
        (vec![0, 0, 0], [true, false, true, false]),
    ] {
        assert_eq!(driver.command(&command), OK, "{command:?}");
        assert_eq!(got(&mut driver), expected, "{command:?}");
    }
    assert_eq!(address_of(&driver.device), OTHER);
    // A pause changes nothing, and what was saved is the same again.
    let queues = driver.device.deactivate();
    let saved = driver.device.save();
    driver.device.reset();
    assert_eq!(address_of(&driver.device), MAC);
    driver.device.restore(&saved).unwrap();
    driver.go_on(queues);
    assert_eq!(address_of(&driver.device), OTHER);
    assert_eq!(got(&mut driver), [true, false, true, false]);
    // The next driver has said nothing.
    let queues = driver.device.deactivate();
    driver.device.reset();
    driver.go_on(queues);
    assert_eq!(got(&mut driver), [true; 4]);
    assert!(!driver.events.broken());
}

#[test]
fn a_driver_gets_what_it_wants() {
    gets_what_it_wants(Several::new(1, !0));
}

#[test]
fn a_driver_gets_what_it_wants_of_the_kernel() {
    // The tap alone filters there, and knows less exactly: of addresses with a `true` here all that there is.
    let Some(mut driver) = Several::in_kernel(1, !0) else {
        return;
    };
    driver.post(0);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    assert_eq!(got(&mut driver), [true, true, false, false]);
    assert_eq!(driver.command(&tables(1, 1)), OK);
    assert_eq!(got(&mut driver), [true; 4]);
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    let without = |feature: u32| Several::new(1, !(1 << feature));
    let mut driver = without(abi::VIRTIO_NET_F_CTRL_RX);
    driver.post(0);
    for command in [vec![0, 0, 0], vec![0, 1, 0], tables(0, 0)] {
        assert_eq!(driver.command(&command), REFUSED, "{command:?}");
    }
    assert_eq!(driver.command(&set_address(OTHER)), OK);
    assert_eq!(got(&mut driver), [true; 4]);
    let mut driver = without(abi::VIRTIO_NET_F_CTRL_MAC_ADDR);
    assert_eq!(driver.command(&set_address(OTHER)), REFUSED);
    assert_eq!(address_of(&driver.device), MAC);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
}

#[test]
fn the_tap_hands_over_what_its_filter_says() {
    let (tap, wire) = wire();
    let tap = Tap::new(tap).unwrap();
    let got = || {
        [BROADCAST, MAC, OTHER, GROUP].map(|destination| {
            let mut packet = [0; 2048];
            while tap.receive(&mut packet).unwrap().is_some() {}
            wire.send(&frame_to(destination));
            let mut came = false;
            while let Some(length) = tap.receive(&mut packet).unwrap() {
                came |= packet[12..length] == frame_to(destination);
            }
            came
        })
    };
    let set = |all_multicast, addresses: &[Mac]| {
        let filter = TapFilter {
            all_multicast,
            addresses: addresses.to_vec(),
        };
        tap.set_filter(&filter)
    };
    assert_eq!(got(), [true; 4]);
    set(false, &[MAC, BROADCAST]).unwrap();
    assert_eq!(got(), [true, true, false, false]);
    set(true, &[MAC]).unwrap();
    assert_eq!(got(), [true, true, false, true]);
    set(false, &[OTHER, GROUP]).unwrap();
    assert_eq!(got(), [false, false, true, true]);
    assert!(set(false, &[MAC; 81]).is_err());
    assert_eq!(got(), [false, false, true, true]);
    set(false, &[]).unwrap();
    assert_eq!(got(), [true; 4]);
}
