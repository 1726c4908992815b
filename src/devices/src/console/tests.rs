use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::ring::Ring;
use super::*;
use crate::event_loop::EventLoop;

/// How long a test waits before it calls the console hung.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    console: Arc<Console>,
    handle: LoopHandle,
}

fn rig() -> Rig {
    let events = EventLoop::new().unwrap();
    let handle = events.handle();
    events.spawn("console-test", || {}).unwrap();
    Rig {
        console: Console::new(&handle).unwrap(),
        handle,
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl Rig {
    fn attach(&self, scrollback: usize) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        self.console.attach(theirs.into(), scrollback).unwrap();
        ours
    }

    /// A channel that hears of input.
    fn hear_input(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        self.console.on_input(move || {
            let _ = sender.send(());
        });
        receiver
    }
}

fn expect(viewer: &mut UnixStream, text: &[u8]) {
    let mut seen = vec![0; text.len()];
    viewer.read_exact(&mut seen).unwrap();
    assert_eq!(seen, text);
}

#[test]
fn shows_history_then_live_output() {
    let rig = rig();
    rig.console.write(b"booting\n");
    let mut all = rig.attach(SCROLLBACK);
    let mut some = rig.attach(3);
    expect(&mut all, b"booting\n");
    expect(&mut some, b"ng\n");
    rig.console.write(b"login: ");
    expect(&mut all, b"login: ");
    expect(&mut some, b"login: ");
    assert_eq!(rig.console.viewers(), 2);
    assert_eq!(rig.console.tail(4), b"in: ");
    assert_eq!(rig.console.tail(usize::MAX), b"booting\nlogin: ");
}

#[test]
fn a_slow_viewer_loses_bytes_and_is_told() {
    let rig = rig();
    let mut viewer = rig.attach(0);
    rig.console.write(b"begin");
    expect(&mut viewer, b"begin");
    // Far more than socket and ring hold, while nobody reads.
    let line = [b'x'; 1024];
    for _ in 0..2048 {
        rig.console.write(&line);
    }
    rig.console.write(b"END");
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(b"END") {
        let count = viewer.read(&mut piece).unwrap();
        assert!(count > 0);
        seen.extend_from_slice(&piece[..count]);
    }
    assert!(seen.len() < 2048 * 1024);
    let text = String::from_utf8(seen).unwrap();
    assert!(text.contains("bytes lost, viewer too slow]\r\n"));
}

#[test]
fn takes_input_and_pushes_back() {
    let rig = rig();
    let heard = rig.hear_input();
    let mut viewer = rig.attach(0);
    viewer.write_all(b"root\r").unwrap();
    heard.recv_timeout(PATIENCE).unwrap();
    let mut buffer = [0; 3];
    assert_eq!(rig.console.waiting(), 5);
    assert_eq!((rig.console.read(&mut buffer), &buffer), (3, b"roo"));
    assert_eq!(
        (rig.console.read(&mut buffer), &buffer[..2]),
        (2, &b"t\r"[..])
    );
    assert_eq!(rig.console.read(&mut buffer), 0);
    // A flood: the queue stays bounded and every byte arrives in the end.
    let flood = vec![7; 1 << 20];
    let mut writer = viewer.try_clone().unwrap();
    let typing = std::thread::spawn(move || writer.write_all(&flood).unwrap());
    let mut received = 0;
    let mut buffer = [0; 1000];
    while received < 1 << 20 {
        assert!(rig.console.waiting() <= MAX_INPUT);
        let count = rig.console.read(&mut buffer);
        if count == 0 {
            heard.recv_timeout(PATIENCE).unwrap();
        }
        received += count;
    }
    typing.join().unwrap();
    assert_eq!(received, 1 << 20);
}

#[test]
fn bounds_the_number_of_viewers() {
    let rig = rig();
    let mut viewers: Vec<UnixStream> = (0..MAX_VIEWERS).map(|_| rig.attach(0)).collect();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    assert!(matches!(
        rig.console.attach(theirs.into(), 0),
        Err(AttachError::Busy)
    ));
    // One leaves, another may come.
    drop(viewers.pop());
    let begin = std::time::Instant::now();
    while rig.console.viewers() == MAX_VIEWERS {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let mut last = rig.attach(0);
    rig.console.write(b"hello");
    expect(&mut last, b"hello");
    expect(&mut viewers[0], b"hello");
}

#[test]
fn takes_stream_sockets_only() {
    let rig = rig();
    let (_reader, writer) = io::pipe().unwrap();
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    for descriptor in [OwnedFd::from(writer), OwnedFd::from(datagram)] {
        let refused = rig.console.attach(descriptor, 0);
        assert!(matches!(refused, Err(AttachError::Socket(_))));
    }
    assert_eq!(rig.console.viewers(), 0);
}

proptest! {
    /// The ring is the tail of everything written, however it was written.
    #[test]
    fn ring_is_a_tail(capacity in 1..40_usize, writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20), from in 0..500_u64) {
        let mut ring = Ring::new(capacity);
        let mut all = Vec::new();
        for write in writes {
            ring.push(&write);
            all.extend(write);
            prop_assert_eq!(ring.end(), all.len() as u64);
            let kept = all.len().min(capacity);
            prop_assert_eq!(ring.start(), (all.len() - kept) as u64);
            let position = from.clamp(ring.start(), ring.end());
            let (first, second) = ring.slices(from);
            prop_assert_eq!([first, second].concat(), &all[position as usize..]);
        }
    }
}

#[test]
fn single_bytes_are_gathered() {
    const BYTES: usize = 10_000;
    let rig = rig();
    let mut viewer = rig.attach(0);
    // Whoever has said nothing for a while is heard at once.
    rig.console.write(b"first");
    expect(&mut viewer, b"first");
    for _ in 0..BYTES {
        rig.console.write(b"x");
    }
    let (mut seen, mut pieces) = (0, 0);
    let mut buffer = vec![0; BYTES];
    while seen < BYTES {
        let count = viewer.read(&mut buffer).unwrap();
        assert!(count > 0, "ended after {seen} bytes");
        seen += count;
        pieces += 1;
    }
    assert!(pieces < BYTES / 10, "{pieces} pieces");
    // And so is what comes after that.
    rig.console.write(b"last");
    expect(&mut viewer, b"last");
}

#[test]
fn last_words_are_heard() {
    let events = EventLoop::new().unwrap();
    let handle = events.handle();
    let thread = events.spawn("console-test", || {}).unwrap();
    let console = Console::new(&handle).unwrap();
    let (mut viewer, theirs) = UnixStream::pair().unwrap();
    viewer.set_read_timeout(Some(PATIENCE)).unwrap();
    console.attach(theirs.into(), 0).unwrap();
    console.write(b"going");
    expect(&mut viewer, b"going");
    // Comes while output is gathered.
    console.write(b" down");
    handle.stop();
    thread.join().unwrap().unwrap();
    let mut rest = String::new();
    viewer.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, " down");
}
