//! What may die: the manager at any moment, a monitor at any moment.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use lodge_tests::curl::Curl;
use lodge_tests::host::Host;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;
use serde_json::Value;

fn pid_of(host: &Host, role: &str) -> String {
    let script = format!("set -- $(ps | grep '[l]odge {role}'); echo $1");
    let pid = host.machine.sh(&script).unwrap().trim().to_owned();
    assert!(
        !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()),
        "no process of lodge {role}: {pid:?}"
    );
    pid
}

fn kill_manager(host: &Host) {
    let pid = pid_of(host, "serve");
    host.machine.sh(&format!("kill -9 {pid}")).unwrap();
}

/// Waits until the API answers again after the manager was killed.
fn wait_for_api(host: &Host) {
    // The console says so when the manager has written its summary anew; the API may be
    // there a little earlier, and the client's own connection attempts are the measure.
    for _ in 0..200 {
        if host.cli.outcome(&["system", "show"], "").unwrap().code == Some(0) {
            return;
        }
        host.machine.sh("usleep 100000").unwrap();
    }
    panic!(
        "the API does not come back:\n{}",
        host.machine.console.text()
    );
}

#[test]
fn killing_the_manager_stops_no_guest() {
    let host = Shared::take().unwrap();
    host.create_guest("steady", "tick:1", &["--memory", "192MiB"])
        .unwrap();
    host.cli.ok(&["vm", "start", "steady"]).unwrap();
    GuestConsole::open(&host.cli, "steady")
        .unwrap()
        .wait("LODGE-TICK 3 ")
        .unwrap();
    let before = host.vm("steady").unwrap();

    kill_manager(&host);
    wait_for_api(&host);
    let after = host.vm("steady").unwrap();
    assert_eq!(after["status"]["state"], "running", "{after}");
    assert_eq!(
        after["status"]["pid"], before["status"]["pid"],
        "the same monitor"
    );
    assert_eq!(after["status"]["resets"], 0);
    // The scroll-back survived too, and the guest ticks on.
    let console = GuestConsole::open(&host.cli, "steady").unwrap();
    console.wait("LODGE-TICK 1 ").unwrap();
    let ticks = console.text().matches("LODGE-TICK").count();
    console.wait_count("LODGE-TICK", ticks + 2).unwrap();

    // In the middle of operations: some ended, some are reported as interrupted, none hangs.
    for number in 1..=4 {
        host.create_guest(
            &format!("g{number}"),
            "sleep:100000",
            &["--memory", "160MiB"],
        )
        .unwrap();
    }
    host.cli
        .ok(&["vm", "start", "--background", "g1", "g2", "g3", "g4"])
        .unwrap();
    kill_manager(&host);
    wait_for_api(&host);
    let operations = host.cli.json(&["operation", "list"]).unwrap();
    for operation in operations.as_array().unwrap() {
        if operation["kind"] == "vm_start" {
            assert_ne!(operation["status"], "running", "{operation}");
        }
    }
    for number in 1..=4 {
        let name = format!("g{number}");
        let vm = host.vm(&name).unwrap();
        let state = vm["status"]["state"].as_str().unwrap();
        assert!(["running", "stopped"].contains(&state), "{vm}");
        if state == "stopped" {
            host.cli.ok(&["vm", "start", &name]).unwrap();
        }
        GuestConsole::open(&host.cli, &name)
            .unwrap()
            .wait("LODGE-GUEST-READY")
            .unwrap();
    }

    // A monitor that is killed takes only its guest along.
    let pid = host.vm("g1").unwrap()["status"]["pid"].to_string();
    host.machine.sh(&format!("kill -9 {pid}")).unwrap();
    let vm = host.wait_state("g1", "crashed").unwrap();
    assert!(
        vm["status"]["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("monitor"),
        "{vm}"
    );
    assert_eq!(host.vm("g2").unwrap()["status"]["state"], "running");
}

#[test]
fn a_monitor_is_locked_in() {
    let host = Shared::take().unwrap();
    host.create_guest("jailed", "sleep:100000", &["--memory", "160MiB"])
        .unwrap();
    host.cli.ok(&["vm", "start", "jailed"]).unwrap();
    GuestConsole::open(&host.cli, "jailed")
        .unwrap()
        .wait("LODGE-GUEST-READY")
        .unwrap();
    let pid = host.vm("jailed").unwrap()["status"]["pid"].to_string();
    let status = host.machine.sh(&format!("cat /proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert!(
        !field("Uid").starts_with("0\t"),
        "runs as root: {}",
        field("Uid")
    );
    let root = host.machine.sh(&format!("ls -A /proc/{pid}/root")).unwrap();
    assert_eq!(root.trim(), "", "its root directory is not empty");
    for namespace in ["mnt", "net", "pid", "ipc", "uts"] {
        let own = host
            .machine
            .sh(&format!("readlink /proc/{pid}/ns/{namespace}"))
            .unwrap();
        let hosts = host
            .machine
            .sh(&format!("readlink /proc/1/ns/{namespace}"))
            .unwrap();
        assert_ne!(own, hosts, "{namespace}");
    }
    let cgroup = host.machine.sh(&format!("cat /proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains("/lodge/"), "{cgroup}");
}

/// Changes that must have been acknowledged in each life of the manager.
const CHANGES_BEFORE_A_KILL: usize = 3;

/// What a client was told of objects it changed while the manager kept being killed.
#[derive(Default)]
struct Ledger {
    /// Created, and not asked to be deleted since.
    there: Vec<String>,
    /// Deleted.
    gone: Vec<String>,
    /// Requests nobody answered.
    unanswered: usize,
}

/// Creates guests and deletes every third of them again until `stop`; says so on `acknowledged`
/// for every change that was answered.
fn change_things(curl: &Curl, stop: &AtomicBool, acknowledged: &Sender<()>) -> Ledger {
    let mut ledger = Ledger::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("churn-{number}");
        let body = format!(r#"{{"name": "{name}", "boot": {{"kernel": "linux"}}}}"#);
        let created = curl.post("/v1/vms", &body).unwrap();
        if created.status != 201 {
            assert!([0, 503].contains(&created.status), "{created:?}");
            ledger.unanswered += 1;
            continue;
        }
        // Nobody listens any more after the last kill.
        let _ = acknowledged.send(());
        if number % 3 != 0 {
            ledger.there.push(name);
            continue;
        }
        let deleted = curl.request("DELETE", &format!("/v1/vms/{name}"), &[]);
        match deleted.unwrap().status {
            204 => {
                let _ = acknowledged.send(());
                ledger.gone.push(name);
            }
            _ => ledger.unanswered += 1,
        }
    }
    ledger
}

#[test]
fn killing_the_manager_over_and_over_loses_nothing() {
    // LODGE_TEST_KILLS=100 takes some minutes more.
    let kills = std::env::var("LODGE_TEST_KILLS").map_or(8, |count| count.parse().unwrap());
    let host = Shared::take().unwrap();
    let names = ["one", "two"];
    for name in names {
        host.create_guest(name, "tick:1", &["--memory", "160MiB"])
            .unwrap();
        host.cli.ok(&["vm", "start", name]).unwrap();
    }
    let before: Vec<Value> = names.map(|name| host.vm(name).unwrap()).into();
    let curl = host.curl().unwrap();
    let stop = AtomicBool::new(false);
    let (acknowledged, changes) = mpsc::channel();
    let ledger = std::thread::scope(|scope| {
        let load = scope.spawn(|| change_things(&curl, &stop, &acknowledged));
        // However this ends, the load must.
        let guard = StopAtEnd(&stop);
        for round in 1..=kills {
            // Every life of the manager has changed something before it is ended.
            changes.try_iter().for_each(drop);
            for _ in 0..CHANGES_BEFORE_A_KILL {
                changes
                    .recv_timeout(Duration::from_secs(120))
                    .unwrap_or_else(|_| panic!("nothing was changed before kill {round}"));
            }
            kill_manager(&host);
            wait_for_api(&host);
            for (name, before) in names.iter().zip(&before) {
                let vm = host.vm(name).unwrap();
                assert_eq!(vm["status"]["state"], "running", "kill {round}: {vm}");
                assert_eq!(vm["status"]["pid"], before["status"]["pid"], "kill {round}");
            }
        }
        drop(guard);
        load.join().unwrap()
    });
    eprintln!(
        "{kills} kills; {} created, {} deleted, {} without an answer",
        ledger.there.len(),
        ledger.gone.len(),
        ledger.unanswered
    );
    assert!(!ledger.there.is_empty() && !ledger.gone.is_empty());
    let listed = host.cli.json(&["vm", "list"]).unwrap();
    let listed: HashSet<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|vm| vm["name"].as_str())
        .collect();
    for name in &ledger.there {
        assert!(listed.contains(name.as_str()), "{name} is lost");
    }
    for name in &ledger.gone {
        assert!(!listed.contains(name.as_str()), "{name} is back");
    }
    for name in names {
        let console = GuestConsole::open(&host.cli, name).unwrap();
        console.wait("LODGE-TICK ").unwrap();
        let ticks = console.text().matches("LODGE-TICK").count();
        console.wait_count("LODGE-TICK", ticks + 2).unwrap();
        assert_eq!(host.vm(name).unwrap()["status"]["resets"], 0);
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
