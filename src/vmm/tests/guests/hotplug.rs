//! Devices that come to a jailed guest and leave it.

use std::fs::{self, File};
use std::os::fd::AsFd;

use crate::support::saving::{copies, save};
use crate::support::tap::tap;
use crate::support::{Console, Guest, Options, kvm_missing, receive};
use lodge_vmm_proto::{
    Answer, DeviceKey, DiskBus, DiskConfig, DiskLimits, ErrorCode, FdIndex, GuestEvent, NewDevice,
    NicConfig, NicModel, OnDiskError, Rate, Request, RequestBody,
};

// Does by hand what the methods of the DSDT do. It prints `u` for each look at what was plugged in, `d` when it is asked to give something up,
// and ejects that when it gets `e`, each with the lowest vendor digit of the function in slot 9: `4` of virtio, `f` of nothing. It prints
// `r` when it starts, and for `s` whether slot 9 to 11 have functions.
crate::guest!(
    plugs,
    "mov esp, 0x80000",
    "mov al, 'r'",
    "call 8f",
    "1: mov edx, 0xd80",
    "in eax, dx",
    "test eax, eax",
    "jz 2f",
    "out dx, eax",
    "mov al, 'u'",
    "call 8f",
    "mov ecx, 9",
    "call 7f",
    "2: mov edx, 0xd84",
    "in eax, dx",
    "test eax, eax",
    "jz 3f",
    "out dx, eax",
    "mov esi, eax",
    "mov al, 'd'",
    "call 8f",
    "mov ecx, 9",
    "call 7f",
    "3: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "cmp al, 's'",
    "je 4f",
    "mov edx, 0xd88",
    "mov eax, esi",
    "out dx, eax",
    "mov al, 'e'",
    "call 8f",
    "mov ecx, 9",
    "call 7f",
    "jmp 1b",
    "4: mov al, 's'",
    "call 8f",
    "mov ecx, 9",
    "call 7f",
    "mov ecx, 10",
    "call 7f",
    "mov ecx, 11",
    "call 7f",
    "jmp 1b",
    // The vendor in slot ECX.
    "7: mov eax, ecx",
    "shl eax, 11",
    "or eax, 0x80000000",
    "mov edx, 0xcf8",
    "out dx, eax",
    "mov edx, 0xcfc",
    "in eax, dx",
    "and al, 0xf",
    "add al, '0'",
    "cmp al, '9'",
    "jbe 8f",
    "add al, 'f' - '9' - 6",
    // Prints AL.
    "8: mov edx, 0x3f8",
    "out dx, al",
    "ret",
);

fn options() -> Options {
    Options {
        jail: true,
        vcpus: 2,
        ..Options::code(plugs())
    }
}

fn file(mib: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(mib << 20).unwrap();
    file
}

fn disk(serial: &str) -> NewDevice {
    NewDevice::Disk(DiskConfig {
        file: FdIndex(0),
        bus: DiskBus::Virtio,
        read_only: false,
        serial: serial.to_owned(),
        limits: DiskLimits::default(),
        on_error: OnDiskError::default(),
    })
}

fn nic(last: u8) -> NewDevice {
    NewDevice::Nic(NicConfig {
        link_up: true,
        tap: FdIndex(0),
        model: NicModel::Virtio,
        vhost: None,
        further_pairs: Vec::new(),
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
    })
}

fn key(serial: &str) -> DeviceKey {
    DeviceKey::Disk(serial.to_owned())
}

fn attach(guest: &mut Guest, serial: &str, file: &File) -> Answer {
    let device = disk(serial);
    guest.ask_with(RequestBody::Attach { device }, &[file.as_fd()])
}

fn detach(guest: &mut Guest, serial: &str, force: bool) -> Answer {
    let device = key(serial);
    guest.ask(RequestBody::Detach { device, force })
}

fn disks(guest: &mut Guest) -> Vec<String> {
    guest.status().devices.unwrap().disks
}

fn refused(answer: &Answer, wanted: ErrorCode) {
    assert!(
        matches!(answer, Answer::Error { code, .. } if *code == wanted),
        "{answer:?}"
    );
}

/// A guest that is subscribed to, with its console.
fn started(options: Options) -> (Guest, Console) {
    let mut guest = Guest::start(options);
    let mut console = guest.console(u32::MAX);
    console.expect("r");
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    (guest, console)
}

fn detached(serial: &str) -> GuestEvent {
    GuestEvent::Detached {
        device: key(serial),
    }
}

#[test]
fn a_disk_comes_and_leaves() {
    if kvm_missing() {
        return;
    }
    let (mut guest, mut console) = started(options());
    let one = file(1);
    assert_eq!(attach(&mut guest, "one", &one), Answer::Done);
    console.expect("ru4");
    assert_eq!(disks(&mut guest), ["one"]);
    refused(&attach(&mut guest, "one", &one), ErrorCode::WrongState);
    refused(&detach(&mut guest, "other", false), ErrorCode::WrongState);
    // In use by the monitor: not by anybody else at the same time.
    let again = attach(&mut guest, "two", &file(0));
    refused(&again, ErrorCode::Internal);
    assert_eq!(disks(&mut guest), ["one"]);
    // The guest is asked, and takes its time.
    assert_eq!(detach(&mut guest, "one", false), Answer::Done);
    console.expect("ru4d4");
    assert_eq!(disks(&mut guest), ["one"]);
    console.type_in("e");
    console.expect("ru4d4ef");
    guest.wait_for(&detached("one"));
    assert!(disks(&mut guest).is_empty());
    // Nothing is left that it could eject.
    console.type_in("e");
    console.expect("ru4d4efef");
    // While it is paused, by force.
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    assert_eq!(attach(&mut guest, "two", &one), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    console.expect("efefu4");
    guest.notices.clear();
    assert_eq!(detach(&mut guest, "two", true), Answer::Done);
    guest.wait_for(&detached("two"));
    // Told by a look at all of the bus.
    console.expect("u4uf");
    guest.kill();
}

#[test]
fn a_guest_keeps_what_is_no_longer_asked_for() {
    if kvm_missing() {
        return;
    }
    let (mut guest, mut console) = started(options());
    assert_eq!(attach(&mut guest, "one", &file(1)), Answer::Done);
    console.expect("u4");
    assert_eq!(detach(&mut guest, "one", false), Answer::Done);
    console.expect("u4d4");
    let keep = || RequestBody::Keep { device: key("one") };
    assert_eq!(guest.ask(keep()), Answer::Done);
    console.expect("u4d4u4");
    console.type_in("e");
    console.expect("u4d4u4e4");
    assert_eq!(disks(&mut guest), ["one"]);
    // Somebody asks who goes away.
    let other = guest.connect();
    let body = RequestBody::Detach {
        device: key("one"),
        force: false,
    };
    other.send(&Request { id: 1, body }, &[]).unwrap();
    drop(receive(&other));
    console.expect("e4d4");
    drop(other);
    console.expect("e4d4u4");
    console.type_in("e");
    console.expect("d4u4e4");
    assert_eq!(disks(&mut guest), ["one"]);
    // A reset does what was asked for.
    assert_eq!(detach(&mut guest, "one", false), Answer::Done);
    console.expect("u4e4d4");
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    guest.wait_for(&detached("one"));
    refused(&guest.ask(keep()), ErrorCode::WrongState);
    console.type_in("s");
    console.expect("rsfff");
    // What came stays over a reset.
    assert_eq!(attach(&mut guest, "two", &file(1)), Answer::Done);
    console.expect("u4");
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    console.type_in("s");
    console.expect("rs4ff");
    guest.kill();
}

#[test]
fn a_network_interface_comes_and_leaves() {
    if kvm_missing() {
        return;
    }
    let Some(wire) = tap() else {
        eprintln!("SKIPPED: no tap can be made on this machine");
        return;
    };
    let (mut guest, mut console) = started(options());
    let device = nic(1);
    let body = || RequestBody::Attach {
        device: device.clone(),
    };
    let no_tap = file(1);
    refused(
        &guest.ask_with(body(), &[no_tap.as_fd()]),
        ErrorCode::Internal,
    );
    refused(&guest.ask(body()), ErrorCode::BadRequest);
    assert_eq!(guest.ask_with(body(), &[wire.as_fd()]), Answer::Done);
    console.expect("u");
    let device = device.key();
    assert_eq!(guest.status().devices.unwrap().nics, [[2, 0, 0, 0, 0, 1]]);
    let body = RequestBody::Detach {
        device: device.clone(),
        force: false,
    };
    assert_eq!(guest.ask(body), Answer::Done);
    console.expect("d");
    console.type_in("e");
    guest.wait_for(&GuestEvent::Detached { device });
    assert!(guest.status().devices.unwrap().nics.is_empty());
    guest.kill();
}

#[test]
fn nothing_is_left_of_devices_that_are_gone() {
    if kvm_missing() {
        return;
    }
    let (mut guest, _console) = started(options());
    let descriptors = format!("/proc/{}/fd", guest.pid());
    let threads = format!("/proc/{}/task", guest.pid());
    let count = |path: &str| fs::read_dir(path).map(Iterator::count).unwrap_or(0);
    // As many rings as are laid in.
    let most = 4;
    let file = file(1);
    let round = |guest: &mut Guest| {
        for number in 0..most {
            // Read-only, as one file may be opened so by many.
            let device = NewDevice::Disk(DiskConfig {
                file: FdIndex(0),
                bus: DiskBus::Virtio,
                read_only: true,
                serial: format!("{number}"),
                limits: DiskLimits::default(),
                on_error: OnDiskError::default(),
            });
            let answer = guest.ask_with(RequestBody::Attach { device }, &[file.as_fd()]);
            assert_eq!(answer, Answer::Done, "{number}");
        }
        refused(&attach(guest, "more", &file), ErrorCode::Busy);
        for number in 0..most {
            assert_eq!(detach(guest, &number.to_string(), true), Answer::Done);
        }
    };
    round(&mut guest);
    let before = (count(&descriptors), count(&threads));
    // More vectors than there are interrupt routes without being used again.
    for _ in 0..70 {
        round(&mut guest);
    }
    assert_eq!((count(&descriptors), count(&threads)), before);
    guest.kill();
}

#[test]
fn a_saved_guest_has_its_devices_where_they_were() {
    if kvm_missing() {
        return;
    }
    let files = [1, 2, 3].map(file);
    let share = |number: usize| files[number].try_clone().unwrap();
    let (mut guest, mut console) = started(Options {
        disks: [0, 1].map(|number| (DiskBus::Virtio, share(number))).into(),
        ..options()
    });
    // The first leaves, another comes into its slot, which the guest was asked for when it is saved.
    assert_eq!(detach(&mut guest, "disk0", true), Answer::Done);
    console.expect("uf");
    assert_eq!(attach(&mut guest, "other", &files[2]), Answer::Done);
    console.expect("u4");
    assert_eq!(detach(&mut guest, "other", false), Answer::Done);
    console.expect("d4");
    assert_eq!(disks(&mut guest), ["disk1", "other"]);
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let saved = save(&mut guest);
    guest.kill();
    let restored = |disks: &[usize]| {
        let disks = disks.iter();
        Guest::try_start(Options {
            disks: disks
                .map(|&number| (DiskBus::Virtio, share(number)))
                .collect(),
            restore: copies(&saved),
            ..options()
        })
    };
    // The disks in another order are not the ones that were saved: the larger was in the first slot.
    for others in [&[2, 1][..], &[1], &[1, 2, 0]] {
        assert!(restored(others).is_err(), "{others:?}");
    }
    let mut guest = restored(&[1, 2]).unwrap();
    let mut console = guest.console(u32::MAX);
    // Nobody waits for the device any more.
    console.expect("u4");
    console.type_in("es");
    console.expect("e4s44f");
    // A place of its own for the next.
    assert_eq!(attach(&mut guest, "third", &files[0]), Answer::Done);
    console.expect("u4");
    console.type_in("s");
    console.expect("s444");
    guest.kill();
}

#[test]
fn disks_are_held_to_other_limits_while_the_guest_runs() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        disks: vec![(DiskBus::Virtio, file(1))],
        ..Options::code(plugs())
    });
    let limit = |guest: &mut Guest, serial: &str, per_second| {
        let limits = DiskLimits {
            operations: Some(Rate {
                per_second,
                burst: 1,
            }),
            bytes: None,
        };
        guest.ask(RequestBody::LimitDisk {
            serial: serial.to_owned(),
            limits,
        })
    };
    assert_eq!(limit(&mut guest, "disk0", 100), Answer::Done);
    assert_eq!(limit(&mut guest, "disk0", 200), Answer::Done);
    refused(&limit(&mut guest, "disk0", 0), ErrorCode::BadRequest);
    refused(&limit(&mut guest, "disk1", 100), ErrorCode::WrongState);
    guest.kill();
}
