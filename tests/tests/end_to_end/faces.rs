//! The faces: the command line's small courtesies, and the full-screen console at 80 by 24.

use lodge_tests::host::{Host, PASSWORD};
use lodge_tests::shared::Shared;
use lodge_tests::terminal::{GuestConsole, Tmux};

fn the_console_in_a_terminal(host: &Host) {
    let tmux = Tmux::run(&host.cli, &["tui", "lab:"]).unwrap();
    let screen = tmux.wait("web").unwrap();
    assert!(screen.contains("lodge-test"), "{screen}");
    assert!(screen.contains("stopped"), "{screen}");
    tmux.keys(&["s"]).unwrap();
    tmux.wait("1 of 1 running").unwrap();
    tmux.keys(&["Enter"]).unwrap();
    tmux.wait("Console of web").unwrap();
    tmux.wait("LODGE-GUEST-SHELL").unwrap();
    tmux.keys(&["echo so-it-$((40+2))-is", "Enter"]).unwrap();
    tmux.wait("so-it-42-is").unwrap();
    tmux.keys(&["C-]"]).unwrap();
    tmux.wait("NAME").unwrap();
    tmux.keys(&["Tab"]).unwrap();
    tmux.wait("vm_start").unwrap();
    tmux.keys(&["Tab"]).unwrap();
    tmux.wait("serve").unwrap();
    tmux.keys(&["q"]).unwrap();
}

fn the_console_on_the_serial_line(host: &Host) {
    let console = &host.machine.console;
    let begin = console.position();
    console.write("\r").unwrap();
    console.wait_after(begin, "q quit").unwrap();
    console.wait_after(begin, "web ").unwrap();
    let text = console.text()[begin..].to_owned();
    assert!(text.contains("not logged in"), "{text}");
    console.write("q").unwrap();
}

fn the_command_line(host: &Host) {
    let cli = &host.cli;
    let table = cli.ok(&["vm", "list"]).unwrap();
    assert!(
        table.starts_with("NAME") && table.contains("web"),
        "{table}"
    );
    let yaml = cli.ok(&["vm", "show", "lab:web", "-o", "yaml"]).unwrap();
    assert!(yaml.contains("name: web"), "{yaml}");
    let debug = cli.outcome(&["vm", "list", "--debug"], "").unwrap();
    assert!(debug.stderr.contains("> GET /v1/vms"), "{}", debug.stderr);
    let raw = cli.ok(&["query", "GET", "/v1/vms/web"]).unwrap();
    assert!(raw.contains("\"name\": \"web\""), "{raw}");
    let document = cli.json(&["query", "GET", "/v1/openapi.json"]).unwrap();
    assert!(
        document["paths"]["/v1/vms/{vm}:start"]["post"]["x-privilege"].is_string(),
        "{document}"
    );
    assert!(
        cli.ok(&["completion", "bash"])
            .unwrap()
            .contains("complete -F")
    );
    let error = cli.fails(&["vm", "show", "nobody"]).unwrap();
    assert!(error.contains("there is no guest \"nobody\""), "{error}");
    let error = cli.fails(&["vm", "show", "other:web"]).unwrap();
    assert!(error.contains("lodge remote"), "{error}");
    let events = cli
        .ok(&["event", "monitor", "--since", "0", "--count", "3"])
        .unwrap();
    assert_eq!(events.lines().count(), 3, "{events}");
    let log = cli.ok(&["system", "log"]).unwrap();
    assert!(log.contains("audit"), "{log}");
    let metrics = cli.ok(&["query", "GET", "/metrics"]).unwrap();
    assert!(metrics.contains("lodge_vm_up{"), "{metrics}");
}

fn users_and_tokens(host: &Host) {
    let cli = &host.cli;
    let create = [
        "user",
        "create",
        "eve",
        "--role",
        "viewer",
        "--password-stdin",
    ];
    cli.outcome(&create, "a-viewers-word\n")
        .unwrap()
        .success()
        .unwrap();
    let url = format!("https://127.0.0.1:{}", host.machine.port);
    let add = [
        "remote",
        "add",
        "as-eve",
        &url,
        "--fingerprint",
        &host.fingerprint,
        "--user",
        "eve",
        "--password-stdin",
    ];
    cli.outcome(&add, "a-viewers-word\n")
        .unwrap()
        .success()
        .unwrap();
    assert!(cli.ok(&["vm", "list", "as-eve:"]).unwrap().contains("web"));
    let error = cli.fails(&["vm", "kill", "as-eve:web"]).unwrap();
    assert!(error.contains("vm_power"), "{error}");
    let token = cli
        .ok(&[
            "token", "create", "robot", "--role", "operator", "--days", "1",
        ])
        .unwrap();
    let add = [
        "remote",
        "add",
        "robot",
        &url,
        "--fingerprint",
        &host.fingerprint,
        "--token",
        token.trim(),
    ];
    cli.ok(&add).unwrap();
    cli.ok(&["vm", "list", "robot:"]).unwrap();
    cli.ok(&["token", "delete", "lab:robot"]).unwrap();
    cli.fails(&["vm", "list", "robot:"]).unwrap();
    cli.ok(&["user", "delete", "eve"]).unwrap();
    cli.fails(&["vm", "list", "as-eve:"]).unwrap();
    host.add_remote("again", PASSWORD).unwrap();
}

#[test]
fn the_faces() {
    let host = Shared::take().unwrap();
    host.create_guest("web", "shell", &["--memory", "192MiB"])
        .unwrap();
    the_console_in_a_terminal(&host);
    the_command_line(&host);
    users_and_tokens(&host);
    the_console_on_the_serial_line(&host);
    GuestConsole::open(&host.cli, "web")
        .unwrap()
        .wait("LODGE-GUEST-SHELL")
        .unwrap();
}
