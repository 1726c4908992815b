//! The kernel's part, as far as the host has it.

use std::fs::OpenOptions;

use super::*;

fn open(path: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(file.into())
}

#[test]
fn takes_nothing_but_vhost_vsock_and_addresses_of_guests() {
    let rig = Rig::new();
    let refused = |cid| {
        let null = open("/dev/null").unwrap();
        let refused = Vsock::new(null, cid, &rig.event_loop);
        refused.err().unwrap().to_string()
    };
    assert!(refused(CID).contains("not vhost-vsock"));
    for cid in [0, 1, 2, u32::MAX] {
        assert!(refused(cid).contains("no address of a guest"));
    }
}

#[test]
fn the_kernel_takes_the_queues_and_gives_them_back() {
    let Ok(vhost) = open("/dev/vhost-vsock") else {
        println!("skipped: no /dev/vhost-vsock here");
        return;
    };
    let mut rig = Rig::on(|events| Vsock::new(vhost, CID, events).unwrap());
    let other = open("/dev/vhost-vsock").unwrap();
    let refused = Vsock::new(other, CID, &rig.event_loop).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    rig.start();
    for _ in 0..20 {
        // A header with an operation that does not exist: taken, and dropped.
        rig.memory
            .write_slice(&[0xff; 44], GuestAddress(DATA))
            .unwrap();
        rig.queues[1].offer(&[readable(DATA, 44)]);
        rig.queues[1].kick();
        rig.queues[1].wait_used();
        let queues = rig.device.deactivate();
        assert_eq!(queues.len(), QUEUES);
        assert_eq!(queues[1].next_avail(), queues[1].next_used());
        rig.resume(queues);
    }
}
