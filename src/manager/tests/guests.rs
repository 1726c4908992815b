//! Real guests of a few instructions under a real manager: started, stopped, crashed, and found again
//! by the next manager after the first was killed.
//!
//! This program is also the monitor (`guests vmm`), as `lodge` is, and the manager that gets killed
//! (`guests manager DIRECTORY VERB`). Hence it brings its own list of tests.

#[path = "support/elf.rs"]
mod elf;
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};

use lodge_api::ErrorCode;
use lodge_api::disk::DiskCreate;
use lodge_api::event::EventBody;
use lodge_api::image::ImageKind;
use lodge_api::network::NetworkCreate;
use lodge_api::operation::OperationStatus;
use lodge_api::page::ListParams;
use lodge_api::vm::{ConsoleParams, OnCrash, VmAction, VmState, VmStopOptions};
use lodge_manager::IfMatch;
use serde_json::json;
use support::{Host, act, admin, event, spec, state_event, wait, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Test = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! tests {
    ($list:ident: $($name:ident),* $(,)?) => {
        const $list: &[(&str, Test)] = &[$((stringify!($name), || Box::pin($name()))),*];
    };
}

tests!(
    WITHOUT_KVM:
    a_manager_killed_under_load_loses_no_acknowledged_change,
);

tests!(
    WITH_KVM:
    a_guest_runs_and_obeys_its_power_button,
    a_guest_that_does_not_power_off_is_reported_or_killed,
    waiting_for_a_stop_can_be_cancelled,
    a_guest_is_paused_resumed_and_reset,
    the_console_goes_both_ways,
    ends_nobody_asked_for_have_a_reason,
    a_killed_monitor_is_a_crash_and_the_guest_is_restarted,
    what_is_no_kernel_is_said_when_it_is_started,
    a_disk_is_written_by_one_guest_only,
    memory_that_is_not_there_is_not_given,
    a_running_guest_cannot_be_deleted_and_shows_what_is_pending,
    guests_survive_a_manager_that_is_killed,
    a_manager_killed_while_it_starts_guests_loses_none,
    guests_that_ended_meanwhile_are_told_apart,
    a_shutdown_powers_guests_off,
    guests_that_shall_start_by_themselves_do_so_once,
    guests_get_taps_on_their_network,
);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("vmm") => return lodge_vmm::main_from_birth_socket(),
        Some("network") => {
            runtime().block_on(network_scenario());
            return ExitCode::SUCCESS;
        }
        Some("manager") => return manager_process(args[2].as_ref(), &args[3]),
        _ => {}
    }
    let mut tests = WITHOUT_KVM.to_vec();
    if std::fs::File::open("/dev/kvm").is_ok() {
        tests.extend(WITH_KVM);
    } else {
        println!("SKIPPED: most tests, as there is no /dev/kvm on this machine");
    }
    let wanted = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = Vec::new();
    for (name, test) in tests {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let result = std::panic::catch_unwind(|| runtime().block_on(test()));
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        if result.is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {failed:?}");
        ExitCode::FAILURE
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn host_with(vm: &str, code: &[u8]) -> Host {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &elf::kernel(code))
        .await;
    host.manager.vm_create(&admin(), spec(vm)).await.unwrap();
    host
}

async fn attach(host: &Host, vm: &str) -> tokio::net::UnixStream {
    let caller = admin();
    let console = host
        .manager
        .vm_console(&caller, vm, ConsoleParams::default());
    console.await.unwrap()
}

/// Reads the console until `wanted` has come.
async fn reads(host: &Host, vm: &str, wanted: &str) {
    let mut console = attach(host, vm).await;
    let mut text = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert!(console.read_buf(&mut text).await.unwrap() > 0, "{text:?}");
        }
    })
    .await;
}

fn stop(seconds: u32, force: bool) -> VmStopOptions {
    VmStopOptions {
        timeout_s: Some(seconds),
        force,
    }
}

async fn a_guest_runs_and_obeys_its_power_button() {
    let host = host_with("web", elf::OBEDIENT).await;
    let mut events = host.listen();
    host.done("web", VmAction::Start).await;
    state_event(&mut events, "web", VmState::Starting).await;
    state_event(&mut events, "web", VmState::Running).await;
    reads(&host, "web", "r").await;
    let status = host.vm("web").status;
    assert_eq!(status.state, VmState::Running);
    assert!(
        status.pid.is_some() && status.memory_used.bytes() > 0,
        "{status:?}"
    );
    let again = host
        .manager
        .vm_action(&admin(), "web", VmAction::Start, VmStopOptions::default())
        .await;
    assert_eq!(again.unwrap_err().code, ErrorCode::WrongState);
    host.done("web", VmAction::Stop).await;
    let reason = state_event(&mut events, "web", VmState::Stopped).await;
    assert_eq!(reason, None, "somebody asked for it");
    let status = host.vm("web").status;
    assert_eq!((status.state, status.pid), (VmState::Stopped, None));
    let left = std::fs::read_dir(host.config.run_dir.join("vms")).unwrap();
    assert_eq!(left.count(), 0);
    host.done("web", VmAction::Start).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

async fn a_guest_that_does_not_power_off_is_reported_or_killed() {
    let host = host_with("web", elf::IDLE).await;
    host.done("web", VmAction::Start).await;
    let operation = act(&host.manager, "web", VmAction::Stop, stop(1, false)).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    let problem = operation.error.unwrap();
    assert!(problem.detail.contains("did not power off"), "{problem}");
    assert_eq!(host.state("web"), VmState::Running);
    let operation = act(&host.manager, "web", VmAction::Stop, stop(1, true)).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
    assert_eq!(host.state("web"), VmState::Stopped);
    host.manager.close().await;
}

async fn waiting_for_a_stop_can_be_cancelled() {
    let host = host_with("web", elf::IDLE).await;
    host.done("web", VmAction::Start).await;
    let mut events = host.listen();
    let operation = host
        .manager
        .vm_action(&admin(), "web", VmAction::Stop, stop(3600, false))
        .await
        .unwrap();
    state_event(&mut events, "web", VmState::Stopping).await;
    let operation = host
        .manager
        .operation_cancel(&admin(), operation.id)
        .await
        .unwrap();
    assert_eq!(operation.status, OperationStatus::Cancelled);
    state_event(&mut events, "web", VmState::Running).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

async fn a_guest_is_paused_resumed_and_reset() {
    let host = host_with("web", elf::OBEDIENT).await;
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    host.done("web", VmAction::Pause).await;
    assert_eq!(host.state("web"), VmState::Paused);
    let stopping = host
        .manager
        .vm_action(&admin(), "web", VmAction::Stop, VmStopOptions::default())
        .await;
    assert!(stopping.unwrap_err().hint.unwrap().contains("resume"));
    host.done("web", VmAction::Resume).await;
    let mut events = host.listen();
    host.done("web", VmAction::Reset).await;
    event(&mut events, |body| {
        matches!(body, EventBody::VmReset { .. })
    })
    .await;
    reads(&host, "web", "rr").await;
    assert_eq!(host.vm("web").status.resets, 1);
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}

async fn the_console_goes_both_ways() {
    let host = host_with("web", elf::ECHO).await;
    host.done("web", VmAction::Start).await;
    let mut console = attach(&host, "web").await;
    console.write_all(b"a").await.unwrap();
    assert_eq!(within(console.read_u8()).await.unwrap(), b'b');
    let params = ConsoleParams {
        scrollback: Some(1 << 30),
        port: None,
    };
    let problem = host
        .manager
        .vm_console(&admin(), "web", params)
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("?scrollback"));
    host.done("web", VmAction::Kill).await;
    let mut rest = Vec::new();
    within(console.read_to_end(&mut rest)).await.unwrap();
    host.manager.close().await;
}

async fn ends_nobody_asked_for_have_a_reason() {
    let host = host_with("off", elf::OFF).await;
    let mut events = host.listen();
    host.act("off", VmAction::Start).await;
    let reason = state_event(&mut events, "off", VmState::Stopped)
        .await
        .unwrap();
    assert!(reason.contains("powered itself off"), "{reason}");
    host.upload("faulty", ImageKind::Kernel, &elf::kernel(elf::TRIPLE_FAULT))
        .await;
    let patch = json!({"name": "faulty", "boot": {"kernel": "faulty"}});
    host.manager
        .vm_merge(&admin(), "off", patch, IfMatch::Any)
        .await
        .unwrap();
    host.act("faulty", VmAction::Start).await;
    let reason = state_event(&mut events, "faulty", VmState::Crashed)
        .await
        .unwrap();
    assert!(reason.contains("triple-faulted"), "{reason}");
    let mut host = host;
    host.restart().await;
    let status = host.vm("faulty").status;
    assert_eq!(
        (status.state, status.reason),
        (VmState::Crashed, Some(reason))
    );
    host.manager.close().await;
}

async fn a_killed_monitor_is_a_crash_and_the_guest_is_restarted() {
    let host = host_with("web", elf::OBEDIENT).await;
    let patch = json!({"on_crash": OnCrash::Restart});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host.done("web", VmAction::Start).await;
    let first = host.vm("web").status.pid.unwrap();
    let mut events = host.listen();
    kill(first);
    let reason = state_event(&mut events, "web", VmState::Crashed)
        .await
        .unwrap();
    assert!(reason.contains("crashed or was killed"), "{reason}");
    state_event(&mut events, "web", VmState::Running).await;
    assert_ne!(host.vm("web").status.pid, Some(first));
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn what_is_no_kernel_is_said_when_it_is_started() {
    let host = Host::new().await;
    // Passes for a compressed kernel, and is none inside.
    host.upload("kernel", ImageKind::Kernel, b"\x1f\x8b\x08\0 nothing in it")
        .await;
    host.manager.vm_create(&admin(), spec("web")).await.unwrap();
    let operation = host.act("web", VmAction::Start).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    let problem = operation.error.unwrap();
    assert_eq!(
        problem.pointer.as_deref(),
        Some("/boot/kernel"),
        "{problem}"
    );
    let status = host.vm("web").status;
    assert_eq!(status.state, VmState::Stopped);
    assert!(status.reason.unwrap().contains("could not be started"));
    let left = std::fs::read_dir(host.config.run_dir.join("vms")).unwrap();
    assert_eq!(left.count(), 0);
    host.manager.close().await;
}

async fn a_disk_is_written_by_one_guest_only() {
    let host = host_with("one", elf::OBEDIENT).await;
    let create: DiskCreate =
        serde_json::from_value(json!({"name": "data", "size": "1MiB"})).unwrap();
    let operation = host.manager.disk_create(&admin(), create).await.unwrap();
    wait(&host.manager, &operation).await;
    host.manager.vm_create(&admin(), spec("two")).await.unwrap();
    for vm in ["one", "two"] {
        let patch = json!({"disks": [{"disk": "data"}]});
        host.manager
            .vm_merge(&admin(), vm, patch, IfMatch::Any)
            .await
            .unwrap();
    }
    host.done("one", VmAction::Start).await;
    let operation = host.act("two", VmAction::Start).await;
    let problem = operation.error.expect("refused");
    assert_eq!(problem.code, ErrorCode::InUse);
    assert!(problem.detail.contains("\"one\""), "{problem}");
    assert_eq!(problem.pointer.as_deref(), Some("/disks/0/disk"));
    let patch = serde_json::from_value(json!({"size": "2MiB"})).unwrap();
    let problem = host
        .manager
        .disk_patch(&admin(), "data", patch, IfMatch::Any)
        .await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::InUse);
    host.done("one", VmAction::Stop).await;
    host.done("two", VmAction::Start).await;
    host.done("two", VmAction::Stop).await;
    host.manager.close().await;
}

async fn memory_that_is_not_there_is_not_given() {
    let host = host_with("web", elf::IDLE).await;
    let all = host.manager.system().hardware.memory.bytes() >> 20;
    let patch = json!({"memory": format!("{all}MiB")});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    let operation = host.act("web", VmAction::Start).await;
    let problem = operation.error.expect("refused");
    assert_eq!(problem.code, ErrorCode::InsufficientResources);
    host.manager.close().await;
}

async fn a_running_guest_cannot_be_deleted_and_shows_what_is_pending() {
    let host = host_with("web", elf::OBEDIENT).await;
    host.done("web", VmAction::Start).await;
    let problem = host
        .manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    let patch = json!({"autostart": true});
    let vm = host
        .manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    assert!(!vm.status.restart_pending);
    let patch = json!({"vcpus": 2});
    let vm = host
        .manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    assert!(vm.status.restart_pending);
    host.done("web", VmAction::Stop).await;
    assert!(!host.vm("web").status.restart_pending);
    host.manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    host.manager.close().await;
}

// A manager in a process of its own, to be killed.

/// Opens the manager, does what it is told, says so, and waits for its end.
fn manager_process(directory: &Path, verb: &str) -> ExitCode {
    let config = support::config(directory);
    runtime().block_on(async {
        let manager = support::open(&config).await;
        println!("open");
        let vms = manager.vm_list(&ListParams::default()).unwrap().items;
        for vm in vms.iter().filter(|_| verb == "start") {
            let name = vm.spec.name.as_str();
            // A guest that runs already is fine.
            let options = VmStopOptions::default();
            if let Ok(operation) = manager
                .vm_action(&admin(), name, VmAction::Start, options)
                .await
            {
                println!("accepted {name}");
                let operation = wait(&manager, &operation).await;
                println!("{} {name}", operation.status.as_str());
            }
        }
        if verb == "churn" {
            churn(&manager).await;
        }
        println!("done");
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// Creates, changes and deletes guests, four at a time, and says what was acknowledged.
async fn churn(manager: &lodge_manager::Manager) {
    let round = std::process::id();
    let work = (0..4).map(|worker| async move {
        for number in 0.. {
            let name = format!("vm-{round}-{worker}-{number}");
            manager.vm_create(&admin(), spec(&name)).await.unwrap();
            println!("acknowledged created {name}");
            let patch = json!({"vcpus": 7});
            manager
                .vm_merge(&admin(), &name, patch, IfMatch::Any)
                .await
                .unwrap();
            println!("acknowledged changed {name}");
            if number % 3 == 0 {
                manager
                    .vm_delete(&admin(), &name, IfMatch::Any)
                    .await
                    .unwrap();
                println!("acknowledged deleted {name}");
            }
        }
    });
    futures_util::future::join_all(work).await;
}

async fn a_manager_killed_under_load_loses_no_acknowledged_change() {
    let mut host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &elf::kernel(elf::IDLE))
        .await;
    // Where guests can run, one does all the while.
    let pid = if std::fs::File::open("/dev/kvm").is_ok() {
        host.manager
            .vm_create(&admin(), spec("runs"))
            .await
            .unwrap();
        host.done("runs", VmAction::Start).await;
        host.vm("runs").status.pid
    } else {
        None
    };
    host.manager.close().await;
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    let rounds = std::env::var("LODGE_TEST_KILLS").map_or(8, |count| count.parse().unwrap());
    for round in 1..=rounds {
        let mut process = ManagerProcess::start(&host, "churn");
        let mut count = 0;
        // What is still in the pipe after the kill is read to its end.
        while let Some(Ok(line)) = process.lines.next() {
            if let Some((change, name)) = line
                .strip_prefix("acknowledged ")
                .and_then(|rest| rest.split_once(' '))
            {
                acknowledged.insert(name.to_owned(), change.to_owned());
                count += 1;
            }
            if count == 13 * (1 + round % 8) {
                process.child.kill().unwrap();
            }
        }
        process.child.wait().unwrap();
        host.manager = support::open(&host.config).await;
        if pid.is_some() {
            assert_eq!(host.vm("runs").status.pid, pid);
        }
        for (name, change) in &acknowledged {
            let found = host.manager.vm_view(name);
            match change.as_str() {
                // A later change may have happened and not been acknowledged any more.
                "created" => drop(found.unwrap_or_else(|_| panic!("{name} is lost"))),
                "changed" if to_be_deleted(name) && found.is_err() => {}
                "changed" => assert_eq!(found.unwrap().spec.vcpus, 7, "{name}"),
                _ => assert!(found.is_err(), "{name} is back"),
            }
        }
        host.manager.close().await;
    }
    assert!(acknowledged.len() > 20);
    host.manager = support::open(&host.config).await;
    if pid.is_some() {
        host.done("runs", VmAction::Kill).await;
    }
    host.manager.close().await;
}

fn to_be_deleted(name: &str) -> bool {
    let number = name
        .rsplit('-')
        .next()
        .and_then(|number| number.parse::<u64>().ok());
    number.is_some_and(|number| number % 3 == 0)
}

struct ManagerProcess {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl ManagerProcess {
    fn start(host: &Host, verb: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("manager")
            .arg(host.directory.path())
            .arg(verb)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn wait_for(&mut self, wanted: &str) {
        let found = self.lines.any(|line| line.unwrap() == wanted);
        assert!(found, "the manager never said \"{wanted}\"");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn guests_survive_a_manager_that_is_killed() {
    let mut host = host_with("web", elf::ECHO).await;
    host.manager.close().await;
    let mut process = ManagerProcess::start(&host, "start");
    process.wait_for("succeeded web");
    process.kill();
    host.manager = support::open(&host.config).await;
    let first = host.vm("web").status;
    assert_eq!(first.state, VmState::Running);
    for _ in 0..3 {
        // Only one can have the store open.
        host.manager.close().await;
        let mut process = ManagerProcess::start(&host, "nothing");
        process.wait_for("done");
        process.kill();
        host.manager = support::open(&host.config).await;
        let status = host.vm("web").status;
        assert_eq!((status.state, status.pid), (VmState::Running, first.pid));
        assert_eq!(status.since, first.since);
    }
    let mut console = attach(&host, "web").await;
    console.write_all(b"x").await.unwrap();
    assert_eq!(within(console.read_u8()).await.unwrap(), b'y');
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

async fn a_manager_killed_while_it_starts_guests_loses_none() {
    let mut host = host_with("a", elf::OBEDIENT).await;
    host.manager.vm_create(&admin(), spec("b")).await.unwrap();
    host.manager.close().await;
    for round in 0..4 {
        let mut process = ManagerProcess::start(&host, "start");
        match round {
            0 => process.wait_for("accepted a"),
            1 => process.wait_for("accepted b"),
            2 => process.wait_for("open"),
            _ => process.wait_for("done"),
        }
        process.kill();
        host.manager = support::open(&host.config).await;
        for vm in ["a", "b"] {
            let state = host.state(vm);
            assert!(
                !matches!(state, VmState::Starting | VmState::Stopping),
                "{vm}: {state:?}"
            );
            if state == VmState::Running {
                reads(&host, vm, "r").await;
                host.done(vm, VmAction::Stop).await;
            }
        }
        let running = ListParams {
            filter: Some("status eq running".to_owned()),
            ..ListParams::default()
        };
        let running = host.manager.operation_list(&running).unwrap();
        assert_eq!(running.items, [], "interrupted operations have ended");
        host.manager.close().await;
    }
}

async fn guests_that_ended_meanwhile_are_told_apart() {
    let mut host = host_with("killed", elf::OBEDIENT).await;
    host.done("killed", VmAction::Start).await;
    let pid = host.vm("killed").status.pid.unwrap();
    host.manager.close().await;
    let process = lodge_host::process::PidFd::open(i32::try_from(pid).unwrap()).unwrap();
    let process = process.into_async().unwrap();
    kill(pid);
    within(process.ended()).await.unwrap();
    host.manager = support::open(&host.config).await;
    let status = host.vm("killed").status;
    assert_eq!(status.state, VmState::Crashed, "{status:?}");
    host.done("killed", VmAction::Start).await;
    host.done("killed", VmAction::Stop).await;
    host.manager.close().await;
}

async fn a_shutdown_powers_guests_off() {
    let mut host = host_with("obedient", elf::OBEDIENT).await;
    host.upload("idle", ImageKind::Kernel, &elf::kernel(elf::IDLE))
        .await;
    let mut stubborn = spec("stubborn");
    stubborn.boot.kernel = support::name("idle");
    host.manager.vm_create(&admin(), stubborn).await.unwrap();
    host.done("obedient", VmAction::Start).await;
    host.done("stubborn", VmAction::Start).await;
    host.done("stubborn", VmAction::Pause).await;
    reads(&host, "obedient", "r").await;
    within(host.manager.shutdown(std::time::Duration::from_secs(5))).await;
    host.manager = support::open(&host.config).await;
    for vm in ["obedient", "stubborn"] {
        let status = host.vm(vm).status;
        assert_eq!(
            (status.state, status.reason),
            (VmState::Stopped, None),
            "{vm}"
        );
    }
    host.manager.close().await;
}

async fn guests_that_shall_start_by_themselves_do_so_once() {
    let mut host = host_with("web", elf::OBEDIENT).await;
    let patch = json!({"autostart": true});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host.restart().await;
    assert_eq!(
        host.state("web"),
        VmState::Stopped,
        "not a boot of the host"
    );
    host.manager.close().await;
    std::fs::remove_dir_all(&host.config.run_dir).unwrap();
    host.manager = support::open(&host.config).await;
    let mut events = host.listen();
    if host.state("web") != VmState::Running {
        state_event(&mut events, "web", VmState::Running).await;
    }
    host.done("web", VmAction::Stop).await;
    host.restart().await;
    assert_eq!(host.state("web"), VmState::Stopped);
    host.manager.close().await;
}

/// In a network namespace of its own, so that the machine's own network stays as it is.
async fn guests_get_taps_on_their_network() {
    let allowed = Command::new("unshare").args(["--net", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("SKIPPED: this machine allows no network namespaces");
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .arg("network")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Taps in this process's network namespace (which /sys need not show).
fn taps() -> usize {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let taps = text.lines().filter(|line| line.trim().starts_with("lgt"));
    taps.count()
}

async fn network_scenario() {
    let mut host = Host::new().await;
    host.manager.close().await;
    host.config.manage_network = true;
    host.manager = support::open(&host.config).await;
    let warnings = host.manager.warnings();
    if warnings.iter().any(|warning| warning.contains("network")) {
        println!("SKIPPED: this machine makes no bridges: {warnings:?}");
        host.manager.close().await;
        return;
    }
    let lan = NetworkCreate {
        name: support::name("lan"),
        uplink: None,
    };
    host.manager.network_create(&admin(), lan).await.unwrap();
    host.upload("kernel", ImageKind::Kernel, &elf::kernel(elf::OBEDIENT))
        .await;
    let mut wanted = spec("web");
    wanted.nics = serde_json::from_value(json!([{}, {"network": "lan"}])).unwrap();
    host.manager.vm_create(&admin(), wanted).await.unwrap();
    host.done("web", VmAction::Start).await;
    assert_eq!(taps(), 2);
    let problem = host
        .manager
        .network_delete(&admin(), "lan", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    host.restart().await;
    assert_eq!(host.state("web"), VmState::Running);
    assert_eq!(taps(), 2, "kept over a restart of the manager");
    // At once again: the taps have just been released.
    host.done("web", VmAction::Kill).await;
    host.done("web", VmAction::Start).await;
    host.done("web", VmAction::Stop).await;
    host.manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .network_delete(&admin(), "lan", IfMatch::Any)
        .await
        .unwrap();
    host.manager.close().await;
}
