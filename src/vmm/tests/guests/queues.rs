//! Queues of network interfaces, in guests that go on.

use crate::support::saving::{body_of, copies, save, state_file};
use crate::support::tap::tap;
use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, LaunchError, RequestBody, RunState, SpawnError};
use serde_json::{Value, json};

// Says `r`, and stands still.
crate::guest!(
    stands_with_card,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: hlt",
    "jmp 1b",
);

/// A guest with a network interface, where this machine lets one make it.
fn options() -> Option<Options> {
    let Some(wire) = tap() else {
        eprintln!("SKIPPED: no tap can be made on this machine");
        return None;
    };
    Some(Options {
        nics: vec![wire],
        jail: true,
        ..Options::code(stands_with_card())
    })
}

/// The interface's device in a saved machine.
fn interface(machine: &mut Value) -> &mut Value {
    let devices = machine["devices"]["devices"].as_array_mut().unwrap();
    let mut devices = devices.iter_mut();
    let found = devices.find(|device| device[0] == "nic0").unwrap();
    &mut found[1]["body"]
}

/// What there was before there were control queues.
fn without_control_queue(machine: &mut Value) {
    let place = machine["layout"]["nics"][0].as_object_mut().unwrap();
    assert_eq!(place.remove("queues"), Some(json!(1)));
    let nic = interface(machine);
    for list in ["/registers/queues", "/msix/entries"] {
        let list = nic.pointer_mut(list).unwrap().as_array_mut().unwrap();
        list.pop();
    }
    // One less than the vectors there were, in the capability of MSI-X.
    assert_eq!(nic["config"]["bytes"][0x42], 3);
    nic["config"]["bytes"][0x42] = json!(2);
    nic["device"]["version"] = json!(1);
    let told = nic["device"]["body"]
        .as_object_mut()
        .unwrap()
        .remove("told");
    assert!(told.is_some());
}

#[test]
fn a_restored_interface_has_the_queues_that_its_driver_knows() {
    if kvm_missing() {
        return;
    }
    let Some(options_now) = options() else {
        return;
    };
    let mut guest = Guest::start(options_now);
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let files = save(&mut guest);
    guest.kill();
    let with = |change: fn(&mut Value)| {
        let mut machine: Value = serde_json::from_slice(&body_of(&files[0])).unwrap();
        change(&mut machine);
        let [_, memory] = copies(&files).unwrap();
        Guest::try_start(Options {
            restore: Some([state_file(machine.to_string().as_bytes()), memory]),
            ..options().unwrap()
        })
    };
    for (change, queues, version) in [
        ((|_| {}) as fn(&mut Value), 3, 2),
        (without_control_queue, 2, 1),
    ] {
        let mut guest = with(change).unwrap();
        assert_eq!(guest.state(), RunState::Running);
        assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
        // It is saved again as it was.
        let again = save(&mut guest);
        let mut machine = serde_json::from_slice(&body_of(&again[0])).unwrap();
        let nic = interface(&mut machine);
        let has = nic["registers"]["queues"].as_array().unwrap();
        assert_eq!(has.len(), queues);
        assert_eq!(nic["device"]["version"], version);
        guest.kill();
    }
    let refused = with(|machine| machine["layout"]["nics"][0]["queues"] = json!(4));
    let Err(SpawnError::Refused { error, message }) = refused else {
        panic!("it started");
    };
    assert_eq!(error, LaunchError::State);
    assert!(message.contains("4 pairs of queues"), "{message}");
}
