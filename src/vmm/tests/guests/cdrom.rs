//! Discs of a running, jailed guest.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, ErrorCode, RequestBody};

crate::guest!(sleeps, "2: hlt", "jmp 2b",);

fn disc(length: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file
}

fn guest() -> Guest {
    Guest::start(Options {
        cdroms: vec![None, Some(disc(1 << 20))],
        jail: true,
        ..Options::code(sleeps())
    })
}

fn change(guest: &mut Guest, drive: u8, disc: Option<&dyn AsFd>) -> Answer {
    let body = RequestBody::ChangeDisc {
        drive,
        force: false,
    };
    let fds: Vec<_> = disc.iter().map(|disc| disc.as_fd()).collect();
    guest.ask_with(body, &fds)
}

#[test]
fn discs_are_changed_while_the_guest_runs() {
    if kvm_missing() {
        return;
    }
    let mut guest = guest();
    for drive in [0, 1] {
        for length in [2048, 3 << 20] {
            let disc = disc(length);
            assert_eq!(change(&mut guest, drive, Some(&disc)), Answer::Done);
        }
        assert_eq!(change(&mut guest, drive, None), Answer::Done);
        assert_eq!(
            change(&mut guest, drive, None),
            Answer::Done,
            "empty already"
        );
    }
    guest.kill();
}

#[test]
fn what_is_no_disc_is_refused() {
    if kvm_missing() {
        return;
    }
    let mut guest = guest();
    let good = disc(4096);
    let (socket, _other) = UnixStream::pair().unwrap();
    for (drive, disc) in [(2, &good as &dyn AsFd), (0, &socket), (0, &disc(513))] {
        let answer = change(&mut guest, drive, Some(disc));
        let refused = matches!(
            answer,
            Answer::Error {
                code: ErrorCode::BadRequest,
                ..
            }
        );
        assert!(refused, "{answer:?}");
    }
    assert_eq!(change(&mut guest, 0, Some(&good)), Answer::Done);
    guest.kill();
}
