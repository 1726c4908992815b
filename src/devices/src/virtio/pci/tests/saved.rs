use super::*;
use crate::lifecycle::Device;

#[test]
fn saves_and_restores_while_running() {
    let rig = rig();
    rig.open_msix();
    rig.start();
    rig.put(DEVICE + 2, &[0x33]);
    {
        let mut activation = rig.record.activation.lock().unwrap();
        let queue = &mut activation.as_mut().unwrap().queues[0].queue;
        queue.set_next_avail(77);
        queue.set_next_used(76);
    }
    rig.function.lock().unwrap().pause();
    assert!(!rig.active());
    rig.function.lock().unwrap().pause();
    let saved = rig.function.lock().unwrap().save();
    let text = serde_json::to_string(&saved).unwrap();
    rig.function.lock().unwrap().resume();
    rig.function.lock().unwrap().resume();
    assert!(rig.active() && rig.kicked(0));

    let other = super::rig();
    let mut function = other.function.lock().unwrap();
    function.pause();
    function
        .restore(&serde_json::from_str(&text).unwrap())
        .unwrap();
    assert_eq!(function.save(), saved);
    assert!(!other.active());
    function.resume();
    drop(function);
    assert_eq!(other.status(), 15);
    assert_eq!(other.get(DEVICE), [1, 2, 0x33, 4]);
    {
        let activation = other.record.activation.lock().unwrap();
        let queue = &activation.as_ref().unwrap().queues[0];
        assert_eq!(
            (queue.queue.next_avail(), queue.queue.next_used()),
            (77, 76)
        );
        queue.interrupt.notify();
    }
    assert_eq!(other.sent(), [0, 1, 0]);
    assert_eq!(other.platform.doorbell_addresses().len(), 2);
    // The machine is reset while paused.
    let mut function = other.function.lock().unwrap();
    function.pause();
    function.reset();
    function.resume();
    drop(function);
    assert!(!other.active());
    assert!(other.platform.doorbell_addresses().is_empty());
}

#[test]
fn chains_that_are_unfinished_come_back() {
    let rig = rig();
    rig.start();
    let unfinished = |rig: &Rig| {
        let activation = rig.record.activation.lock().unwrap();
        let queues = &activation.as_ref().unwrap().queues;
        [queues[0].unfinished.clone(), queues[1].unfinished.clone()]
    };
    *rig.record.unfinished.lock().unwrap() = vec![vec![], vec![7, 3]];
    let mut function = rig.function.lock().unwrap();
    function.pause();
    let saved = function.save();
    // Releases that know nothing of it must not take it.
    assert_eq!(saved.version, 2);
    function.resume();
    drop(function);
    assert_eq!(unfinished(&rig), [vec![], vec![7, 3]]);

    let other = super::rig();
    let mut function = other.function.lock().unwrap();
    function.pause();
    for bad in [serde_json::json!([7, 7]), serde_json::json!([16])] {
        let mut state = saved.clone();
        state.body["registers"]["queues"][1]["unfinished"] = bad;
        assert!(function.restore(&state).is_err());
    }
    function.restore(&saved).unwrap();
    assert_eq!(function.save(), saved);
    function.resume();
    drop(function);
    assert_eq!(unfinished(&other), [vec![], vec![7, 3]]);
    // The next driver has nothing to do with them.
    other.set_status(0);
    other.start();
    assert_eq!(unfinished(&other), [const { Vec::<u16>::new() }; 2]);
}

#[test]
fn refuses_states_that_cannot_be() {
    let rig = rig();
    rig.start();
    rig.function.lock().unwrap().pause();
    let saved = rig.function.lock().unwrap().save();
    let other = super::rig();
    other.start();
    let before = {
        let mut function = other.function.lock().unwrap();
        function.pause();
        let before = function.save();
        function.resume();
        before
    };
    let cases: [(&[&str], serde_json::Value); 9] = [
        (&["registers", "queues"], serde_json::json!([])),
        (
            &["registers", "queues", "0", "size"],
            serde_json::json!(512),
        ),
        (&["registers", "queues", "0", "size"], serde_json::json!(0)),
        (
            &["registers", "queues", "1", "vector"],
            serde_json::json!(3),
        ),
        (
            &["registers", "driver_features"],
            serde_json::json!(u64::MAX),
        ),
        (&["config_vector"], serde_json::json!(77)),
        (&["status"], serde_json::json!(3)),
        (&["msix", "entries"], serde_json::json!([])),
        (&["device", "kind"], serde_json::json!("blk")),
    ];
    for (path, value) in cases {
        let mut bad = saved.clone();
        let pointer = format!("/{}", path.join("/"));
        *bad.body.pointer_mut(&pointer).unwrap() = value;
        let mut function = other.function.lock().unwrap();
        assert!(function.restore(&bad).is_err(), "{pointer}");
        drop(function);
        assert!(
            other.active(),
            "{pointer}: goes on as if nothing had happened"
        );
    }
    let mut function = other.function.lock().unwrap();
    function.pause();
    assert_eq!(function.save(), before);
}

#[test]
fn a_restored_ring_is_checked_again() {
    let rig = rig();
    rig.start();
    rig.function.lock().unwrap().pause();
    let mut saved = rig.function.lock().unwrap().save();
    *saved
        .body
        .pointer_mut("/registers/queues/0/descriptors")
        .unwrap() = serde_json::json!(0xffff_0000_0000_u64);
    let other = super::rig();
    let mut function = other.function.lock().unwrap();
    function.pause();
    function.restore(&saved).unwrap();
    function.resume();
    drop(function);
    assert!(!other.active());
    assert_eq!(other.status(), 0x4f);
}

#[test]
fn a_device_that_broke_off_stays_so_until_its_reset() {
    let rig = rig();
    rig.start();
    {
        let activation = rig.record.activation.lock().unwrap();
        activation
            .as_ref()
            .unwrap()
            .events
            .needs_reset("a bad ring");
    }
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        let saved = function.save();
        function.resume();
        saved
    };
    assert!(!rig.active(), "a broken ring is served again");
    let other = super::rig();
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        function.resume();
    }
    for rig in [rig, other] {
        assert_eq!(rig.status(), 0x4f);
        assert!(!rig.active());
        rig.set_status(0);
        rig.start();
        assert!(rig.active() && rig.status() == 15);
    }
}

#[test]
fn cleans_up_when_dropped() {
    let rig = rig();
    rig.start();
    // The bus holds the function as long as its BAR is mapped.
    rig.config_write(0x04, &[0, 0]);
    drop(rig.function);
    assert!(rig.record.activation.lock().unwrap().is_none());
    assert!(rig.platform.doorbell_addresses().is_empty());
}
