//! What a person sees and types: screen and keyboard of guests that start by firmware.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::support::screen::{HEIGHT, WIDTH, echoes_keys, screen_rom};
use crate::support::{Guest, LIMIT, Options, kvm_missing, rom};
use lodge_vmm_proto::{
    Answer, ErrorCode, KeyEvent, LaunchError, MAX_KEYS, MAX_TEXT, RequestBody, SpawnError,
};

/// Asks for the picture in a file of its own.
fn screen(guest: &mut Guest) -> (Answer, File) {
    let file = tempfile::tempfile().unwrap();
    let answer = guest.ask_with(RequestBody::Screen, &[file.as_fd()]);
    (answer, file)
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

fn typed(answer: Answer) -> usize {
    match answer {
        Answer::Typed { accepted } => accepted as usize,
        other => panic!("unexpected {other:?}"),
    }
}

fn strike(key: u32) -> [KeyEvent; 2] {
    [true, false].map(|pressed| KeyEvent { key, pressed })
}

fn keys(keys: &[KeyEvent]) -> RequestBody {
    RequestBody::Keys {
        keys: keys.to_vec(),
    }
}

fn text(text: &str) -> RequestBody {
    RequestBody::Text {
        text: text.to_owned(),
    }
}

#[test]
fn a_guest_that_sets_its_screen_up_is_seen() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: true,
        ..Options::firmware(screen_rom(), None)
    });
    guest.prints("S");
    let (answer, file) = screen(&mut guest);
    let (width, height) = (WIDTH, HEIGHT);
    assert_eq!(answer, Answer::Screen { width, height });
    let mut pixels = [0xee; 25];
    assert_eq!(file.read_at(&mut pixels, 0).unwrap(), 24);
    assert_eq!(
        pixels[..12],
        [0x33, 0x22, 0x11, 0, 0xcc, 0xbb, 0xaa, 0, 0, 0, 0, 0]
    );
    guest.ask(RequestBody::Pause);
    assert_eq!(screen(&mut guest).0, answer, "also while paused");
    // It stays paused, so nothing sets the screen up again.
    guest.ask(RequestBody::Reset);
    refused(screen(&mut guest).0, ErrorCode::WrongState, "shows nothing");
    guest.ask(RequestBody::Resume);
    guest.prints("SS");
    assert_eq!(screen(&mut guest).0, answer);
    guest.kill();
}

#[test]
fn a_picture_needs_a_file_that_takes_it() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    guest.prints("S");
    refused(
        guest.ask(RequestBody::Screen),
        ErrorCode::BadRequest,
        "exactly one descriptor",
    );
    let unwritable = File::open("/dev/null").unwrap();
    let answer = guest.ask_with(RequestBody::Screen, &[unwritable.as_fd()]);
    refused(answer, ErrorCode::Internal, "could not be written");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let answer = guest.ask_with(RequestBody::Screen, &[full.as_fd()]);
    refused(answer, ErrorCode::Internal, "could not be written");
    guest.kill();
}

#[test]
fn a_guest_without_firmware_has_no_display() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(&[0xf4, 0xeb, 0xfd]));
    let words = "without firmware";
    refused(screen(&mut guest).0, ErrorCode::WrongState, words);
    for body in [keys(&strike(0x1e)), text("a")] {
        refused(guest.ask(body), ErrorCode::WrongState, words);
    }
    guest.kill();
}

#[test]
fn a_dark_screen_is_said_to_be_dark() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(rom(echoes_keys()), None));
    refused(screen(&mut guest).0, ErrorCode::WrongState, "shows nothing");
    guest.kill();
}

#[test]
fn a_place_needs_a_screen_and_a_system_that_uses_the_tablet() {
    if kvm_missing() {
        return;
    }
    let point = |x, y| RequestBody::Point { x, y, click: None };
    let mut guest = Guest::start(Options::firmware(screen_rom(), None));
    guest.prints("S");
    refused(
        guest.ask(point(1, 2)),
        ErrorCode::WrongState,
        "virtio input",
    );
    // Nothing is told about places outside of the screen but where it ends.
    let (width, height) = (WIDTH, HEIGHT);
    for (x, y) in [(WIDTH, 0), (0, HEIGHT), (u32::MAX, u32::MAX)] {
        assert_eq!(guest.ask(point(x, y)), Answer::Screen { width, height });
    }
    guest.kill();
    let mut guest = Guest::start(Options::firmware(rom(echoes_keys()), None));
    refused(
        guest.ask(point(0, 0)),
        ErrorCode::WrongState,
        "shows nothing",
    );
    guest.kill();
}

#[test]
fn keys_arrive_in_their_order() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: true,
        ..Options::firmware(rom(echoes_keys()), None)
    });
    guest.prints("R");
    let ([ctrl, ctrl_up], [c, c_up]) = (strike(0x1d), strike(0x2e));
    let chord = [ctrl, c, c_up, ctrl_up];
    assert_eq!(typed(guest.ask(keys(&chord))), 4);
    guest.prints("R\x1d\x2e");
    // Shift for a capital letter.
    assert_eq!(typed(guest.ask(text("A"))), 1);
    guest.prints("R\x1d\x2e\x2a\x1e");
    guest.kill();
}

#[test]
fn what_the_keyboard_cannot_hold_is_left_to_the_sender() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(rom(echoes_keys()), None));
    let mut console = guest.console(u32::MAX);
    console.expect("R");
    guest.ask(RequestBody::Pause);
    let taken = typed(guest.ask(text("abcdefghij")));
    assert!((1..10).contains(&taken), "{taken}");
    assert_eq!(typed(guest.ask(text("k"))), 0);
    // A press waits, a release does not.
    assert_eq!(typed(guest.ask(keys(&strike(0x1e)))), 0);
    assert_eq!(typed(guest.ask(keys(&strike(0x1e)[1..]))), 1);
    guest.ask(RequestBody::Resume);
    console.expect("R\x1e\x30");
    // Far more than fits, in as many pieces as it takes.
    let long = "mnbvcxz".repeat(MAX_TEXT / 7);
    let codes = "\x32\x31\x30\x2f\x2e\x2d\x2c".repeat(MAX_TEXT / 7);
    let (mut rest, limit) = (long.as_str(), Instant::now() + LIMIT);
    while !rest.is_empty() {
        assert!(Instant::now() < limit, "{} are left", rest.len());
        rest = &rest[typed(guest.ask(text(rest)))..];
        std::thread::sleep(Duration::from_millis(1));
    }
    console.expect(&codes);
    guest.kill();
}

#[test]
fn bad_keys_are_refused_as_a_whole() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::firmware(rom(echoes_keys()), None));
    guest.prints("R");
    for number in [0, 0x80, 0x100, u32::MAX] {
        let body = keys(&[strike(0x1e), strike(number)].concat());
        refused(guest.ask(body), ErrorCode::BadRequest, "keys.2.key");
    }
    let body = keys(&strike(0x1e).repeat(MAX_KEYS / 2 + 1));
    refused(guest.ask(body), ErrorCode::BadRequest, "at most 256");
    let body = text(&"a".repeat(MAX_TEXT + 1));
    refused(guest.ask(body), ErrorCode::BadRequest, "at most 1024");
    refused(guest.ask(text("aä")), ErrorCode::BadRequest, "'ä'");
    assert_eq!(typed(guest.ask(text("b"))), 1);
    guest.prints("R\x30");
    guest.kill();
}

#[test]
fn option_roms_of_the_wrong_size_are_refused() {
    if kvm_missing() {
        return;
    }
    let firmware = || Options::firmware(rom(echoes_keys()), None);
    for length in [0, (64 << 10) + 1] {
        let display_rom = Some(vec![0; length]);
        let options = Options {
            display_rom,
            ..firmware()
        };
        refuses_to_start(options, "firmware display ROM is");
    }
    for length in [0, (128 << 10) + 1] {
        let network_rom = Some(vec![0; length]);
        let options = Options {
            network_rom,
            ..firmware()
        };
        refuses_to_start(options, "firmware network ROM is");
    }
}

fn refuses_to_start(options: Options, why: &str) {
    match Guest::try_start(options) {
        Err(SpawnError::Refused {
            error: LaunchError::Firmware,
            message,
        }) => assert!(message.contains(why), "{message}"),
        Err(other) => panic!("unexpected: {other:?}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn a_stock_bios_shows_its_text() {
    let read = |name: &str| std::fs::read(format!("/usr/share/seabios/{name}"));
    let (Ok(bios), Ok(display_rom)) = (read("bios-256k.bin"), read("vgabios-ramfb.bin")) else {
        eprintln!("SKIPPED: this machine has no SeaBIOS (package seabios)");
        return;
    };
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        display_rom: Some(display_rom),
        jail: true,
        ..Options::firmware(bios, None)
    });
    guest.prints("No bootable device");
    let (answer, file) = screen(&mut guest);
    let Answer::Screen { width, height } = answer else {
        panic!("unexpected {answer:?}");
    };
    let mut pixels = vec![0; width as usize * height as usize * 4];
    file.read_exact_at(&mut pixels, 0).unwrap();
    let lit = pixels.chunks(4).filter(|pixel| pixel[..3] != [0; 3]);
    let lit = lit.count();
    assert!(lit > 1000, "{lit} of {width}x{height} pixels are lit");
    guest.kill();
}
