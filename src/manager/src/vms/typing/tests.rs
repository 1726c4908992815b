use std::sync::Mutex;

use serde_json::json;

use super::*;

const FAST: Pace = Pace {
    pause: Duration::from_millis(1),
    stall: Duration::from_millis(30),
    total: Duration::from_secs(30),
};

fn parse(body: serde_json::Value) -> Result<Keys, Problem> {
    Keys::parse(&serde_json::from_value(body).unwrap())
}

#[track_caller]
fn refused(body: serde_json::Value, pointer: &str) -> Problem {
    let problem = parse(body).unwrap_err();
    assert_eq!(problem.code, ErrorCode::InvalidRequest);
    assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
    assert!(problem.hint.is_some(), "{problem}");
    problem
}

#[test]
fn what_cannot_be_typed_is_named() {
    refused(json!({}), "");
    refused(json!({"keys": []}), "");
    refused(json!({"text": "a", "keys": ["enter"]}), "/keys");
    refused(json!({"text": ""}), "/text");
    refused(json!({"text": "x".repeat(1025)}), "/text");
    for text in ["a\r", "ä", "\u{7f}", "\u{0}", "\u{1b}[A"] {
        refused(json!({"text": text}), "/text");
    }
    let problem = refused(json!({"text": "Zürich"}), "/text");
    assert!(problem.detail.contains("'ü' (character 2)"), "{problem}");
    refused(json!({"keys": vec!["a"; 65]}), "/keys");
    refused(json!({"keys": ["a", "b-b"]}), "/keys/1");
    let problem = refused(json!({"keys": ["enter", "ctrl-any"]}), "/keys/1");
    assert!(problem.detail.contains("\"any\""), "{problem}");
    let hint = problem.hint.unwrap();
    assert!(
        hint.contains("backspace") && hint.contains("kpenter"),
        "{hint}"
    );
}

#[test]
fn chords_come_up_the_other_way_round() {
    let event = |key, pressed| KeyEvent { key, pressed };
    let keys = parse(json!({"keys": ["ctrl-c", "up"]})).unwrap();
    let expected = vec![
        vec![
            event(0x1d, true),
            event(0x2e, true),
            event(0x2e, false),
            event(0x1d, false),
        ],
        vec![event(0xc8, true), event(0xc8, false)],
    ];
    assert_eq!(keys, Keys::Chords(expected));
}

/// A monitor that takes `room` at a time, and in all no more than `most`, but for releases.
#[derive(Default)]
struct Monitor {
    room: usize,
    most: usize,
    text: Mutex<String>,
    keys: Mutex<Vec<KeyEvent>>,
}

impl Monitor {
    fn new(room: usize, most: usize) -> Self {
        Self {
            room,
            most,
            ..Self::default()
        }
    }

    async fn take(&self, body: RequestBody) -> Result<usize, Problem> {
        match body {
            RequestBody::Text { text } => {
                let mut seen = self.text.lock().unwrap();
                let count = text.len().min(self.room).min(self.most - seen.len());
                seen.push_str(&text[..count]);
                Ok(count)
            }
            RequestBody::Keys { keys } => {
                let mut seen = self.keys.lock().unwrap();
                let mut taken = 0;
                for event in keys {
                    if event.pressed && (taken == self.room || seen.len() >= self.most) {
                        break;
                    }
                    seen.push(event);
                    taken += 1;
                }
                Ok(taken)
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn type_on(monitor: &Monitor, body: serde_json::Value) -> Result<(), Problem> {
    type_all(&parse(body).unwrap(), FAST, |body| monitor.take(body)).await
}

#[tokio::test]
async fn a_long_text_arrives_complete() {
    let monitor = Monitor::new(3, usize::MAX);
    let text = "0123456789\n\tab".repeat(73);
    type_on(&monitor, json!({"text": text})).await.unwrap();
    assert_eq!(*monitor.text.lock().unwrap(), text);
}

#[tokio::test]
async fn chords_arrive_complete() {
    let monitor = Monitor::new(1, usize::MAX);
    let chords = ["ctrl-alt-delete", "a-b-c-d-e-f-g-h", "enter"];
    type_on(&monitor, json!({"keys": chords})).await.unwrap();
    let seen = monitor.keys.lock().unwrap();
    assert_eq!(seen.len(), 2 * (3 + 8 + 1));
}

#[tokio::test]
async fn a_guest_that_takes_no_more_is_not_waited_for() {
    let monitor = Monitor::new(3, 4);
    let problem = type_on(&monitor, json!({"text": "abcdef"}))
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    assert!(problem.detail.contains("4 of 6 characters"), "{problem}");
    // Ctrl and Alt are down when the guest stops reading, and must not stay so.
    let monitor = Monitor::new(3, 4);
    let chords = json!({"keys": ["a", "ctrl-alt-delete"]});
    let problem = type_on(&monitor, chords).await.unwrap_err();
    assert!(problem.detail.contains("1 of 2 keys"), "{problem}");
    let seen = monitor.keys.lock().unwrap();
    let up = |key| {
        seen.contains(&KeyEvent {
            key,
            pressed: false,
        })
    };
    assert!(up(0x1d) && up(0x38), "{seen:?}");
}

#[tokio::test]
async fn a_monitor_that_claims_too_much_changes_nothing() {
    let keys = parse(json!({"keys": ["a", "b"]})).unwrap();
    let claims = |_| async { Ok(usize::MAX) };
    type_all(&keys, FAST, claims).await.unwrap();
}
