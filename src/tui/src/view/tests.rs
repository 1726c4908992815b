use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use lodge_api::datastore::Datastore;
use lodge_api::local::LocalConsole;
use lodge_api::operation::Operation;
use lodge_api::system::System;
use lodge_api::vm::{Vm, VmAction};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw;
use crate::guest_console::GuestConsole;
use crate::model::{Effect, Message, Model, Snapshot};

fn system() -> System {
    serde_json::from_value(serde_json::json!({
        "hostname": "lodge-1",
        "versions": {"lodge": "0.1.0", "api": "v1", "kernel": "6.12"},
        "kvm": {"usable": true, "nested": false},
        "hardware": {"vendor": "Acme", "product": "Box", "firmware": "uefi", "cpu_model": "Fast CPU",
            "sockets": 1, "cores": 4, "threads": 8, "memory": 17179869184_u64, "block_devices": []},
        "usage": {"cpu_percent": 12.4, "load": [0.5, 0.4, 0.3], "memory_used": 1073741824,
            "vms_running": 1, "vms_total": 2},
        "storage": {"kind": "ram", "filesystem": "tmpfs", "size": 2147483648_u64, "free": 1073741824},
        "links": [],
        "urls": ["https://10.0.0.5"],
        "certificate_fingerprint": (["AB"; 32].join(":")),
        "warnings": ["data is kept in RAM and is lost at restart"],
        "started_at": "2026-01-01T00:00:00Z",
        "now": "2026-01-01T00:01:00Z"
    }))
    .unwrap()
}

fn datastore(name: &str, kind: &str, health: &str) -> Datastore {
    serde_json::from_value(serde_json::json!({
        "id": uuid::Uuid::nil(), "name": name, "kind": kind, "shares_extents": true, "size": 2_u64 << 30, "free": 1_u64 << 30,
        "provisioned": 0, "disks": 0, "health": health, "created_at": "2026-01-01T00:00:00Z", "revision": 1
    }))
    .unwrap()
}

fn vm(name: &str, state: &str, cpu_time_us: u64) -> Vm {
    serde_json::from_value(serde_json::json!({
        "id": uuid::Uuid::from_u128(u128::from(name.as_bytes()[0])),
        "name": name, "boot": {"kernel": "debian"}, "created_at": "2026-01-01T00:00:00Z", "revision": 1,
        "status": {"state": state, "since": "2026-01-01T00:00:00Z", "cpu_time_us": cpu_time_us}
    }))
    .unwrap()
}

fn snapshot() -> Snapshot {
    let operation: Operation = serde_json::from_value(serde_json::json!({
        "id": uuid::Uuid::nil(), "kind": "vm_start", "target": "/v1/vms/web", "user": "admin",
        "status": "succeeded", "may_cancel": false, "created_at": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    Snapshot {
        system: system(),
        datastores: vec![
            datastore("default", "system", "sound"),
            datastore("archive", "disk", "missing"),
            datastore("fast", "disk", "sound"),
        ],
        vms: vec![vm("db", "stopped", 0), vm("web", "running", 0)],
        operations: vec![operation],
        log: Vec::new(),
    }
}

fn shown(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol().to_owned())
            .collect::<String>()
    };
    (0..height)
        .map(|y| row(y).trim_end().to_owned() + "\n")
        .collect()
}

fn remote_model() -> Model {
    let mut model = Model::default();
    model.remote = Some("lab".to_owned());
    model.user = Some("admin".to_owned());
    model.receive(Message::Snapshot(Box::new(snapshot())));
    model
}

fn press(model: &mut Model, code: KeyCode) -> Option<Effect> {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn everything_fits_80_by_24() {
    let text = shown(&mut remote_model(), 80, 24);
    for part in [
        "Lodge 0.1.0   lodge-1",
        "https://10.0.0.5",
        "1 GiB free of 2 GiB on RAM   archive missing   fast 1 GiB free",
        "! data is kept in RAM",
        "NAME",
        "web",
        "running",
        "q quit",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let colons = text.matches("AB").count();
    assert_eq!(colons, 32, "the whole fingerprint is shown\n{text}");
}

#[test]
fn no_size_breaks_it() {
    for (width, height) in [(1, 1), (10, 3), (40, 12), (300, 100)] {
        let mut model = remote_model();
        for code in [
            KeyCode::Char('?'),
            KeyCode::Esc,
            KeyCode::F(2),
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::Tab,
        ] {
            press(&mut model, code);
            shown(&mut model, width, height);
        }
        model.console = Some(GuestConsole::new("web".to_owned(), 24, 80));
        model.receive(Message::ConsoleOutput(
            b"\x1b[31mhello\x1b[999;999Hx".to_vec(),
        ));
        shown(&mut model, width, height);
    }
}

#[test]
fn starting_acts_at_once_and_stopping_asks() {
    let mut model = remote_model();
    let start = Effect::Vm {
        name: "db".to_owned(),
        action: VmAction::Start,
    };
    assert_eq!(press(&mut model, KeyCode::Char('s')), Some(start));
    press(&mut model, KeyCode::Down);
    assert_eq!(press(&mut model, KeyCode::Char('x')), None);
    assert!(shown(&mut model, 80, 24).contains("Power off web?"));
    assert_eq!(press(&mut model, KeyCode::Char('n')), None);
    press(&mut model, KeyCode::Char('x'));
    let stop = Effect::Vm {
        name: "web".to_owned(),
        action: VmAction::Stop,
    };
    assert_eq!(press(&mut model, KeyCode::Char('y')), Some(stop));
}

#[test]
fn a_stopped_guest_has_no_console() {
    let mut model = remote_model();
    assert_eq!(press(&mut model, KeyCode::Enter), None);
    assert!(shown(&mut model, 80, 24).contains("db is stopped; press s to start it"));
    press(&mut model, KeyCode::Down);
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        Some(Effect::OpenConsole("web".to_owned()))
    );
}

#[test]
fn the_local_console_shows_the_way_in_and_asks_for_a_log_in() {
    let mut model = Model::default();
    model.receive(Message::Local(Some(Box::new(LocalConsole {
        hostname: "lodge-1".to_owned(),
        urls: vec!["https://10.0.0.5".to_owned()],
        local_url: "https://127.0.0.1".to_owned(),
        certificate_fingerprint: ["CD"; 32].join(":"),
        token: "hidden".to_owned(),
        initial_password: Some("pine-otter-42".to_owned()),
        warnings: Vec::new(),
    }))));
    let text = shown(&mut model, 80, 24);
    assert!(text.contains("password pine-otter-42"), "{text}");
    assert!(!text.contains("hidden"));
    model.receive(Message::Snapshot(Box::new(snapshot())));
    assert_eq!(press(&mut model, KeyCode::Char('s')), None);
    assert!(shown(&mut model, 80, 24).contains("Log in to do this"));
    for letter in "secret".chars() {
        press(&mut model, KeyCode::Char(letter));
    }
    let text = shown(&mut model, 80, 24);
    assert!(
        text.contains("******") && !text.contains("secret"),
        "{text}"
    );
    let log_in = Effect::LogIn {
        user: "admin".to_owned(),
        password: "secret".to_owned(),
    };
    assert_eq!(press(&mut model, KeyCode::Enter), Some(log_in));
    model.receive(Message::LogInFailed("wrong password".to_owned()));
    assert!(shown(&mut model, 80, 24).contains("wrong password"));
}

#[test]
fn cpu_use_is_the_difference_between_two_snapshots() {
    let mut model = remote_model();
    let mut later = snapshot();
    later.system.now = "2026-01-01T00:01:02Z".parse().unwrap();
    later.vms[1].status.cpu_time_us = 1_000_000;
    model.receive(Message::Snapshot(Box::new(later)));
    assert!(shown(&mut model, 80, 24).contains("50 %"));
}

#[test]
fn keys_go_to_the_guest_until_the_escape() {
    let mut model = remote_model();
    model.console = Some(GuestConsole::new("web".to_owned(), 24, 80));
    assert_eq!(
        press(&mut model, KeyCode::Char('q')),
        Some(Effect::ConsoleInput(b"q".to_vec()))
    );
    let escape = KeyEvent::new(KeyCode::Char('5'), KeyModifiers::CONTROL);
    assert_eq!(model.press(escape), Some(Effect::CloseConsole));
    assert!(model.console.is_none());
}

#[test]
fn a_disk_to_install_on_is_chosen() {
    let mut model = Model::default();
    model.remote = Some("lab".to_owned());
    model.receive(Message::Snapshot(Box::new(snapshot())));
    let press = |model: &mut Model, code| model.press(KeyEvent::new(code, KeyModifiers::NONE));
    let asked = press(&mut model, KeyCode::Char('I'));
    assert_eq!(asked, Some(Effect::ListDisks));
    assert!(shown(&mut model, 80, 24).contains("Looking at the disks"));
    let disk = serde_json::from_value(serde_json::json!({
        "name": "sda", "serial": "WD-1", "model": "ACME", "size": 1_u64 << 40, "rotational": true, "removable": false,
        "contents": ["partition 1, 100 MiB: vfat"],
    }));
    model.receive(Message::Disks(Ok(vec![disk.unwrap()])));
    let screen = shown(&mut model, 80, 24);
    for text in ["WD-1", "1 TiB", "partition 1, 100 MiB: vfat"] {
        assert!(screen.contains(text), "{text} is not in\n{screen}");
    }
    assert_eq!(press(&mut model, KeyCode::Enter), None);
    assert!(shown(&mut model, 80, 24).contains("Type WD-1"));
    for c in "WD-1".chars() {
        press(&mut model, KeyCode::Char(c));
    }
    let Some(Effect::Install(request)) = press(&mut model, KeyCode::Enter) else {
        panic!("nothing is installed");
    };
    assert!(request.disk == "WD-1" && request.erase);
    assert!(model.dialog.is_none());
}
