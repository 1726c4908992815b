//! How sessions begin.

use super::*;
use crate::Violation;

/// Says all of `said` at once, and returns what the server says to it.
fn conversation(said: &[u8]) -> (Vec<u8>, Vec<Input>) {
    let mut session = Session::new("web");
    let mut heard = Vec::new();
    session.receive(said, |input| heard.push(input)).unwrap();
    let mut answer = drain(&mut session);
    session.look(Screen::new(3, 2));
    answer.extend(drain(&mut session));
    (answer, heard)
}

const SERVER_INIT: &[u8] =
    b"\0\x03\0\x02\x20\x18\0\x01\0\xff\0\xff\0\xff\x10\x08\0\0\0\0\0\0\0\x03web";

#[test]
fn every_version_has_its_handshake() {
    for (said, security) in [
        (&b"RFB 003.003\n\x01"[..], &[0, 0, 0, 1][..]),
        (b"RFB 003.007\n\x01\x01", &[1, 1]),
        (b"RFB 003.008\n\x01\x01", &[1, 1, 0, 0, 0, 0]),
    ] {
        let expected = [b"RFB 003.008\n", security, SERVER_INIT].concat();
        assert_eq!(conversation(said), (expected, Vec::new()));
    }
}

#[test]
fn a_viewer_may_want_to_be_alone() {
    let (_, heard) = conversation(b"RFB 003.008\n\x01\x00");
    assert_eq!(heard, [Input::Alone]);
}

#[test]
fn what_was_not_offered_is_refused() {
    for (said, violation) in [
        (&b"GET / HTTP/1.1\r\n"[..], Violation::Version),
        (b"RFB 003.008\n\x02", Violation::Security(2)),
        (b"RFB 003.007\n\x00", Violation::Security(0)),
        (b"RFB 003.008\n\x01\x01\x07", Violation::Message(7)),
    ] {
        let mut session: Session<Screen> = Session::new("web");
        assert_eq!(session.receive(said, ignore), Err(violation));
    }
}

#[test]
fn nothing_is_said_about_the_screen_before_the_viewer_has_introduced_itself() {
    let mut session = Session::new("web");
    for byte in b"RFB 003.008\n\x01" {
        drain(&mut session);
        assert!(!session.wants_picture());
        assert!(!session.look(Screen::new(1, 1)));
        session.receive(&[*byte], ignore).unwrap();
    }
    session.receive(&[1], ignore).unwrap();
    // Not before all else was sent, either.
    assert!(!session.wants_picture());
    drain(&mut session);
    assert!(session.wants_picture());
}
