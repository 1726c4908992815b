//! A machine whose processor cannot run guests says so, and does everything else.

use lodge_tests::host::Host;
use lodge_tests::machine::Builder;
use lodge_tests::terminal::Tmux;

#[test]
fn without_virtualization_everything_but_guests_works() {
    let host = Host::boot(Builder::new().without_virtualization().memory_mib(1536)).unwrap();
    let system = host.cli.json(&["system", "show"]).unwrap();
    assert_eq!(system["kvm"]["usable"], false, "{system}");
    let reason = system["kvm"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("AMD-V") || reason.contains("VT-x"),
        "{reason}"
    );
    assert!(
        host.machine.console.text().contains(reason),
        "the console does not say: {reason}"
    );
    let tmux = Tmux::run(&host.cli, &["tui", "lab:"]).unwrap();
    tmux.wait("memory only").unwrap();
    host.upload_guest().unwrap();
    host.create_guest("web", "shell", &[]).unwrap();
    let error = host.cli.fails(&["vm", "start", "web"]).unwrap();
    assert!(error.contains(reason), "{error}");
    assert_eq!(host.vm("web").unwrap()["status"]["state"], "stopped");
    host.shut_down().unwrap();
}
