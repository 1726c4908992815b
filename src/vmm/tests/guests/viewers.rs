//! Viewers of a guest's screen: RFB on a socket, from the real monitor.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::screen::{HEIGHT, WIDTH, echoes_keys, screen_rom};
use crate::support::{Guest, LIMIT, Options, kvm_missing, rom};
use lodge_vmm_proto::{Answer, ErrorCode, MAX_VIEWER_NAME, RequestBody};

// Prints `R`, then the scan codes (set 1) of keys that come up.
crate::guest!(
    echoes_releases,
    ".code16",
    "mov dx, 0x3f8",
    "mov al, 'R'",
    "out dx, al",
    // Command byte: translate, second port off, no interrupts.
    "mov al, 0x60",
    "out 0x64, al",
    "mov al, 0x60",
    "out 0x60, al",
    "1: in al, 0x64",
    "test al, 1",
    "jz 1b",
    "in al, 0x60",
    "btr ax, 7",
    "jnc 1b",
    "out dx, al",
    "jmp 1b",
);

// Has the mouse report, prints `R`, and then whatever the mouse says.
crate::guest!(
    echoes_mouse,
    ".code16",
    // Command byte: translate, both ports on, no interrupts.
    "mov al, 0x60",
    "out 0x64, al",
    "mov al, 0x40",
    "out 0x60, al",
    // Enable reporting, which the mouse acknowledges.
    "mov al, 0xd4",
    "out 0x64, al",
    "mov al, 0xf4",
    "out 0x60, al",
    "1: in al, 0x64",
    "test al, 1",
    "jz 1b",
    "in al, 0x60",
    "mov dx, 0x3f8",
    "mov al, 'R'",
    "out dx, al",
    "2: in al, 0x64",
    "test al, 1",
    "jz 2b",
    "in al, 0x60",
    "out dx, al",
    "jmp 2b",
);

/// A viewer that speaks version 3.8 and understands Raw.
struct Viewer(UnixStream);

fn attach(guest: &mut Guest, name: &str) -> (UnixStream, Answer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let name = name.to_owned();
    let answer = guest.ask_with(RequestBody::AttachViewer { name }, &[theirs.as_fd()]);
    (ours, answer)
}

impl Viewer {
    /// Connects; returns the size of the screen as well.
    fn new(guest: &mut Guest, shared: bool) -> (Self, (u16, u16)) {
        let (socket, answer) = attach(guest, "web");
        assert_eq!(answer, Answer::Done);
        let mut viewer = Self(socket);
        assert_eq!(&viewer.read(), b"RFB 003.008\n");
        viewer.write(b"RFB 003.008\n");
        assert_eq!(viewer.read(), [1, 1]);
        viewer.write(&[1, u8::from(shared)]);
        assert_eq!(viewer.read(), [0; 4]);
        let [w0, w1, h0, h1] = viewer.read();
        let _format: [u8; 16] = viewer.read();
        assert_eq!(&viewer.read(), b"\0\0\0\x03web");
        let size = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
        (viewer, size)
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn request(&mut self, incremental: bool) {
        self.write(&[3, u8::from(incremental), 0, 0, 0, 0, 255, 255, 255, 255]);
    }

    /// The other end has closed.
    fn ends(mut self) {
        let mut rest = Vec::new();
        // What was not read makes it a reset.
        let _ = self.0.read_to_end(&mut rest);
    }
}

/// Header of an update with one rectangle of pixels, which is all of the small screen.
fn whole_update() -> Vec<u8> {
    let (width, height) = (WIDTH as u8, HEIGHT as u8);
    let mut header = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, width, 0, height];
    header.extend([0; 4]);
    header
}

#[test]
fn a_viewer_sees_the_screen_and_its_changes() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: true,
        ..Options::firmware(screen_rom(), None)
    });
    guest.prints("S");
    let (mut viewer, size) = Viewer::new(&mut guest, true);
    assert_eq!(size, (WIDTH as u16, HEIGHT as u16));
    viewer.request(false);
    assert_eq!(viewer.read::<16>().to_vec(), whole_update());
    let pixels: [u8; 24] = viewer.read();
    assert_eq!(
        pixels[..12],
        [0x33, 0x22, 0x11, 0, 0xcc, 0xbb, 0xaa, 0, 0, 0, 0, 0]
    );
    // Dark after a reset, until the guest has set it up again; a viewer of fixed size sees black.
    viewer.request(true);
    guest.ask(RequestBody::Pause);
    guest.ask(RequestBody::Reset);
    assert_eq!(viewer.read::<16>().to_vec(), whole_update());
    assert_eq!(viewer.read(), [0; 24]);
    viewer.request(true);
    guest.ask(RequestBody::Resume);
    assert_eq!(viewer.read::<16>().to_vec(), whole_update());
    assert_eq!(viewer.read(), pixels);
    viewer.request(true);
    guest.kill();
    viewer.ends();
}

#[test]
fn keys_of_viewers_arrive() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: true,
        ..Options::firmware(rom(echoes_keys()), None)
    });
    guest.prints("R");
    let (mut viewer, size) = Viewer::new(&mut guest, true);
    assert_eq!(size, (640, 480), "a dark screen has a size as well");
    // By its place: the key right of Tab.
    viewer.write(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x10]);
    viewer.write(&[255, 0, 0, 0, 0, 0, 0, 0x61, 0, 0, 0, 0x10]);
    guest.prints("R\x10");
    let mut key = |keysym: u32, pressed| {
        let keysym = keysym.to_be_bytes();
        viewer.write(&[&[4, u8::from(pressed), 0, 0][..], &keysym].concat());
    };
    // By its meaning, with Shift where the US layout needs it and the viewer's does not.
    key(u32::from(b'a'), true);
    key(u32::from(b'a'), false);
    key(u32::from(b'!'), true);
    key(u32::from(b'!'), false);
    guest.prints("R\x10\x1e\x2a\x02");
    // And the other way round: '7' with Shift held.
    key(0xffe1, true);
    key(u32::from(b'7'), true);
    key(u32::from(b'7'), false);
    guest.prints("R\x10\x1e\x2a\x02\x2a\x08\x2a");
    guest.kill();
}

#[test]
fn a_viewer_that_leaves_lets_go_of_its_keys() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(rom(echoes_releases()), None));
    guest.prints("R");
    let (mut viewer, _) = Viewer::new(&mut guest, true);
    viewer.write(&[4, 1, 0, 0, 0, 0, 0xff, 0xe3]);
    viewer.write(&[4, 1, 0, 0, 0, 0, 0, b'a']);
    viewer.write(&[4, 0, 0, 0, 0, 0, 0, b'a']);
    guest.prints("R\x1e");
    drop(viewer);
    guest.prints("R\x1e\x1d");
    guest.kill();
}

#[test]
fn the_mouse_follows_where_no_system_uses_the_tablet() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: true,
        ..Options::firmware(rom(echoes_mouse()), None)
    });
    guest.prints("R");
    let (mut viewer, _) = Viewer::new(&mut guest, true);
    // From a place that the guest knows nothing of, up and to the right with the left button held.
    viewer.write(&[5, 0, 0, 100, 0, 200]);
    viewer.write(&[5, 1, 0, 165, 0, 134]);
    guest.prints("R\x09AB");
    // Whoever leaves lets go.
    drop(viewer);
    guest.prints("R\x09AB\x08\0\0");
    guest.kill();
}

#[test]
fn viewers_share_the_screen_or_do_not() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    guest.prints("S");
    let (mut first, _) = Viewer::new(&mut guest, true);
    let (mut second, _) = Viewer::new(&mut guest, true);
    for viewer in [&mut first, &mut second] {
        viewer.request(false);
        assert_eq!(viewer.read::<16>().to_vec(), whole_update());
        let _pixels: [u8; 24] = viewer.read();
    }
    let (mut alone, _) = Viewer::new(&mut guest, false);
    first.ends();
    second.ends();
    alone.request(false);
    assert_eq!(alone.read::<16>().to_vec(), whole_update());
    guest.kill();
}

#[test]
fn what_is_not_rfb_is_let_go_and_the_guest_goes_on() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    guest.prints("S");
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"RFB 003.008\n\x01\x01\xee"] {
        let (mut socket, answer) = attach(&mut guest, "web");
        assert_eq!(answer, Answer::Done);
        socket.write_all(nonsense).unwrap();
        Viewer(socket).ends();
    }
    let (mut viewer, _) = Viewer::new(&mut guest, true);
    viewer.request(false);
    assert_eq!(viewer.read::<16>().to_vec(), whole_update());
    guest.kill();
}

#[test]
fn viewers_are_bounded() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    guest.prints("S");
    let mut viewers = Vec::new();
    let refusal = loop {
        match attach(&mut guest, "web") {
            (viewer, Answer::Done) => viewers.push(viewer),
            (_, refusal) => break refusal,
        }
        assert!(viewers.len() < 100);
    };
    refused(refusal, ErrorCode::Busy, "8 viewers");
    guest.kill();
}

#[test]
fn a_viewer_needs_a_stream_and_a_screen() {
    if kvm_missing() {
        return;
    }
    let viewer = |name: &str| RequestBody::AttachViewer {
        name: name.to_owned(),
    };
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    let file = tempfile::tempfile().unwrap();
    let answer = guest.ask_with(viewer("web"), &[file.as_fd()]);
    refused(answer, ErrorCode::BadRequest, "the viewer's socket");
    let answer = guest.ask(viewer("web"));
    refused(answer, ErrorCode::BadRequest, "exactly one descriptor");
    let (_, answer) = attach(&mut guest, &"x".repeat(MAX_VIEWER_NAME + 1));
    refused(answer, ErrorCode::BadRequest, "at most 255 bytes");
    guest.kill();
    let mut guest = Guest::start(Options::code(&[0xf4, 0xeb, 0xfd]));
    let (_, answer) = attach(&mut guest, "web");
    refused(answer, ErrorCode::WrongState, "without firmware");
    guest.kill();
}

#[track_caller]
fn refused(answer: Answer, expected: ErrorCode, words: &str) {
    match answer {
        Answer::Error { code, message } => {
            assert_eq!(code, expected, "{message}");
            assert!(message.contains(words), "{message}");
        }
        other => panic!("unexpected {other:?}"),
    }
}
