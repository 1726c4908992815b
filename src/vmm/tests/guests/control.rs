//! The control socket: several managers, bad requests, consoles.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::code::breaks_its_device;
use crate::support::{Guest, Options, kvm_missing, receive};
use lodge_vmm_proto::{
    Answer, ConsolePort, ErrorCode, GuestEvent, Notice, PROTOCOL_VERSION, Request, RequestBody,
    RunState, ServerMessage,
};
use serde_json::{Value, json};

// Prints R, then echoes what it is sent.
crate::guest!(
    echo,
    "mov edx, 0x3f8",
    "mov al, 'R'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "out dx, al",
    "jmp 1b",
);

// Prints without end.
crate::guest!(
    chatter,
    "mov edx, 0x3f8",
    "mov al, '.'",
    "mov esi, 0x100000",
    "1: mov ecx, 1024",
    "rep outsb",
    "mov esi, 0x100000",
    "jmp 1b",
);

#[test]
fn status_tells_version_state_and_time() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(echo()));
    guest.prints("R");
    let status = guest.status();
    assert_eq!(status.version, PROTOCOL_VERSION);
    assert_eq!((status.state, status.resets), (RunState::Running, 0));
    assert!(status.vcpu_time_us > 0);
    guest.kill();
}

#[test]
fn a_device_that_breaks_is_told_to_managers() {
    if kvm_missing() {
        return;
    }
    // In its jail, whose filters must allow what complaining takes.
    let options = Options {
        jail: nix::unistd::geteuid().is_root(),
        ..Options::code(breaks_its_device())
    };
    let mut guest = Guest::start(options);
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    guest.console(0).type_in("x");
    match guest.next_event() {
        GuestEvent::DeviceError { device, message } => {
            assert_eq!(device, "rng");
            assert!(message.contains("needs a reset"), "{message}");
        }
        other => panic!("unexpected {other:?}"),
    }
    assert_eq!(guest.state(), RunState::Running);
    guest.kill();
}

#[test]
fn bad_requests_are_answered_and_change_nothing() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(echo()));
    let channel = guest.connect();
    let bad = [
        json!({"id": 5, "type": "explode"}),
        json!({"id": 5}),
        json!({"id": 5, "type": "attach_console", "port": "com9"}),
        json!({"id": 5, "type": "attach_console", "port": "com1"}), // without a descriptor
    ];
    for request in bad {
        channel.send(&request, &[]).unwrap();
        expect_error(receive(&channel), 5);
    }
    for request in [
        json!(7),
        json!([]),
        json!({"id": -1, "type": "status"}),
        Value::Null,
    ] {
        channel.send(&request, &[]).unwrap();
        expect_error(receive(&channel), 0);
    }
    nix::unistd::write(channel.as_fd(), b"{\"id\": 5").unwrap();
    expect_error(receive(&channel), 0);
    nix::unistd::write(channel.as_fd(), &[b' '; 100_000]).unwrap();
    expect_error(receive(&channel), 0);
    // Two descriptors where one is wanted.
    let file = tempfile::tempfile().unwrap();
    let attach = json!({"id": 5, "type": "attach_console", "port": "com1"});
    channel
        .send(&attach, &[file.as_fd(), file.as_fd()])
        .unwrap();
    expect_error(receive(&channel), 5);
    assert_eq!(guest.state(), RunState::Running);
    guest.kill();
}

fn expect_error(message: ServerMessage, id: u64) {
    let ServerMessage::Reply(reply) = message else {
        panic!("unexpected {message:?}");
    };
    let bad = matches!(
        reply.answer,
        Answer::Error {
            code: ErrorCode::BadRequest,
            ..
        }
    );
    assert!(bad && reply.id == id, "{reply:?}");
}

#[test]
fn every_subscriber_hears_of_every_change() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(echo()));
    let other = guest.connect();
    let subscribe = Request {
        id: 1,
        body: RequestBody::Subscribe,
    };
    other.send(&subscribe, &[]).unwrap();
    assert!(matches!(receive(&other), ServerMessage::Reply(_)));
    guest.ask(RequestBody::Pause);
    guest.ask(RequestBody::Resume);
    for state in [RunState::Paused, RunState::Running] {
        let notice = ServerMessage::Notice(Notice {
            event: GuestEvent::State { state },
        });
        assert_eq!(receive(&other), notice);
    }
    guest.kill();
    let last = ServerMessage::Notice(Notice {
        event: GuestEvent::State {
            state: RunState::Stopping,
        },
    });
    assert_eq!(receive(&other), last);
}

#[test]
fn a_manager_that_never_reads_is_let_go() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(echo()));
    let deaf = guest.connect();
    let status = Request {
        id: 1,
        body: RequestBody::Status,
    };
    // Far more answers than any socket holds. Sending fails once it is full,
    // because who does not take answers is not read from.
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&deaf, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut sent = 0;
    while deaf.send(&status, &[]).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000);
    }
    assert_eq!(guest.state(), RunState::Running);
    guest.kill();
}

#[test]
fn consoles_share_output_and_input() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(echo()));
    let mut first = guest.console(u32::MAX);
    first.expect("R");
    let mut second = guest.console(0);
    first.type_in("one");
    first.expect("Rone");
    second.expect("one");
    second.type_in("two");
    first.expect("Ronetwo");
    second.expect("onetwo");
    drop(first);
    second.type_in("!");
    second.expect("onetwo!");
    // One that comes later asks for as much history as it wants.
    let mut late = guest.console(4);
    late.expect("two!");
    assert_eq!(late.text(), "two!");
    guest.kill();
}

#[test]
fn a_viewer_that_does_not_read_never_holds_the_guest_up() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(chatter()));
    let stuck = guest.console(0);
    let mut total = 0;
    let mut socket = guest.console(0).into_socket();
    let mut buffer = vec![0; 64 << 10];
    while total < 300 << 10 {
        total += socket.read(&mut buffer).unwrap();
    }
    assert_eq!(guest.state(), RunState::Running);
    drop(stuck);
    guest.kill();
}

#[test]
fn both_ports_have_a_console_and_viewers_are_bounded() {
    if kvm_missing() {
        return;
    }
    let guest = Guest::start(Options::code(echo()));
    let channel = guest.connect();
    for port in [ConsolePort::Com1, ConsolePort::Virtio] {
        let mut viewers = Vec::new();
        let answer = loop {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let body = RequestBody::AttachConsole {
                port,
                scrollback: 0,
            };
            channel
                .send(&Request { id: 1, body }, &[theirs.as_fd()])
                .unwrap();
            let ServerMessage::Reply(reply) = receive(&channel) else {
                panic!("a notice");
            };
            if reply.answer != Answer::Done {
                break reply.answer;
            }
            viewers.push(ours);
            assert!(viewers.len() < 1000);
        };
        let busy = matches!(
            answer,
            Answer::Error {
                code: ErrorCode::Busy,
                ..
            }
        );
        assert!(busy, "{answer:?}");
    }
    guest.kill();
}
