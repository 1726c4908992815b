//! Guests live: stock Debian kernels boot, reach each other, keep their data, and end with a reason.

use anyhow::Result;
use lodge_tests::artifacts;
use lodge_tests::host::Host;
use lodge_tests::machine::Builder;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;

fn reaches_init_and_powers_off(host: &Host) -> Result<()> {
    // The others have the same kernel unpacked.
    host.upload(&artifacts::guest_kernel(), "packed", "kernel")?;
    let options = ["--kernel", "packed", "--memory", "192MiB", "--cpus", "2"];
    host.create_guest("once", "facts,poweroff", &options)?;
    host.cli.ok(&["vm", "start", "once"])?;
    let console = GuestConsole::open(&host.cli, "once")?;
    console.wait("LODGE-GUEST-READY")?;
    console.wait("LODGE-FACTS generation_id=driven")?;
    console.wait("LODGE-FACTS cpus=2")?;
    console.wait("LODGE-GUEST-POWEROFF")?;
    let vm = host.wait_state("once", "stopped")?;
    assert!(vm["status"].get("pid").is_none(), "{vm}");
    Ok(())
}

fn guests_ping_each_other_and_the_host(host: &Host) -> Result<()> {
    host.cli.ok(&["network", "create", "inside"])?;
    for (name, address, actions) in [
        ("left", "10.9.0.1/24", "serve,sleep:100000"),
        (
            "right",
            "10.9.0.2/24",
            "ping:10.9.0.1:120,fetch:10.9.0.1,sleep:100000",
        ),
    ] {
        let cmdline = format!(
            "console=ttyS0 quiet lodge.name={name} lodge.ip={address} lodge.action={actions}"
        );
        host.create_guest(
            name,
            "",
            &[
                "--memory",
                "192MiB",
                "--nic",
                "inside",
                "--cmdline",
                &cmdline,
            ],
        )?;
        host.cli.ok(&["vm", "start", name])?;
    }
    let right = GuestConsole::open(&host.cli, "right")?;
    let answer = right.wait("LODGE-PING peer=10.9.0.1 ")?;
    assert!(answer.starts_with("ok"), "{answer}");
    let answer = right.wait("LODGE-FETCH peer=10.9.0.1 ")?;
    assert!(answer.starts_with("ok by=left"), "{answer}");

    // Out through the host's bridge, and to the host itself: its address on that bridge.
    let network = host.cli.json(&["network", "show", "default"])?;
    let own = network["addresses"][0]
        .as_str()
        .unwrap_or_default()
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let cmdline = format!(
        "console=ttyS0 quiet lodge.ip=dhcp lodge.action=ping:10.0.2.2:60,ping:{own}:60,sleep:100000"
    );
    host.create_guest(
        "outside",
        "",
        &[
            "--memory",
            "192MiB",
            "--nic",
            "default",
            "--cmdline",
            &cmdline,
        ],
    )?;
    host.cli.ok(&["vm", "start", "outside"])?;
    let outside = GuestConsole::open(&host.cli, "outside")?;
    outside.wait("LODGE-GUEST-NET dev=eth0 ip=10.0.2.")?;
    for peer in ["10.0.2.2", &own] {
        let answer = outside.wait(&format!("LODGE-PING peer={peer} "))?;
        assert!(answer.starts_with("ok"), "{answer}");
    }
    for name in ["left", "right", "outside"] {
        host.cli.ok(&["vm", "kill", name])?;
    }
    Ok(())
}

fn disk_writes_survive_a_reset(host: &Host) -> Result<()> {
    host.cli
        .ok(&["disk", "create", "scratch", "--size", "64MiB"])?;
    host.create_guest(
        "writer",
        "disk-cycle:/dev/vda:4:one,sleep:100000",
        &["--memory", "192MiB", "--disk", "scratch"],
    )?;
    host.cli.ok(&["vm", "start", "writer"])?;
    let console = GuestConsole::open(&host.cli, "writer")?;
    console.wait("LODGE-DISK-WRITE device=/dev/vda")?;
    console.wait("LODGE-GUEST-REBOOT")?;
    console.wait_count("LODGE-GUEST-READY", 2)?;
    let answer = console.wait("LODGE-DISK-CHECK device=/dev/vda mib=4 seed=one ")?;
    assert!(answer.starts_with("ok"), "{answer}");
    let vm = host.vm("writer")?;
    assert_eq!(vm["status"]["resets"], 1, "{vm}");
    // The reset button does the same from outside.
    host.cli.ok(&["vm", "reset", "writer"])?;
    console.wait_count("LODGE-DISK-CHECK device=/dev/vda mib=4 seed=one ok", 2)?;
    host.cli.ok(&["vm", "kill", "writer"])?;
    assert_eq!(host.vm("writer")?["status"]["state"], "stopped");
    Ok(())
}

fn a_paused_guest_stands_still(host: &Host) -> Result<()> {
    host.create_guest("clock", "tick:1", &["--memory", "192MiB"])?;
    host.cli.ok(&["vm", "start", "clock"])?;
    let console = GuestConsole::open(&host.cli, "clock")?;
    console.wait("LODGE-TICK 2 ")?;
    host.cli.ok(&["vm", "pause", "clock"])?;
    assert_eq!(host.vm("clock")?["status"]["state"], "paused");
    let used = |vm: serde_json::Value| vm["status"]["cpu_time_us"].as_u64().unwrap_or(0);
    let before = used(host.vm("clock")?);
    host.cli.ok(&["vm", "list"])?;
    let after = used(host.vm("clock")?);
    assert!(
        after - before < 200_000,
        "a paused guest used {} µs",
        after - before
    );
    host.cli.ok(&["vm", "resume", "clock"])?;
    let ticks = console.text().matches("LODGE-TICK").count();
    console.wait_count("LODGE-TICK", ticks + 2)?;
    Ok(())
}

fn stop_presses_the_power_button(host: &Host) -> Result<()> {
    let console = GuestConsole::open(&host.cli, "clock")?;
    host.cli.ok(&["vm", "stop", "clock", "--timeout", "300"])?;
    console.wait("LODGE-GUEST-POWER-BUTTON")?;
    assert_eq!(host.vm("clock")?["status"]["state"], "stopped");
    Ok(())
}

fn a_guest_lends_memory(host: &Host) -> Result<()> {
    host.create_guest("lender", "tick:1", &["--memory", "256MiB"])?;
    host.cli.ok(&["vm", "start", "lender"])?;
    let console = GuestConsole::open(&host.cli, "lender")?;
    // Its modules are loaded by now.
    console.wait("LODGE-TICK 1 ")?;
    let problem = host.cli.fails(&["vm", "balloon", "lender", "257MiB"])?;
    assert!(problem.contains("at most 256 MiB"), "{problem}");
    host.cli.ok(&["vm", "balloon", "lender", "96MiB"])?;
    let target = 96 << 20;
    // The guest's own clock: it must stay alive while it gives up most of its memory.
    for tick in 2..=120 {
        console.wait(&format!("LODGE-TICK {tick} "))?;
        let status = &host.vm("lender")?["status"];
        assert_eq!(status["balloon"]["target"], target, "{status}");
        let free = status["guest_memory"]["free"].as_u64();
        if status["balloon"]["actual"] == target && free.is_some_and(|free| free < target) {
            host.cli.ok(&["vm", "kill", "lender"])?;
            return Ok(());
        }
    }
    anyhow::bail!("the guest keeps its memory: {}", host.vm("lender")?)
}

fn a_guest_answers_without_a_network(host: &Host) -> Result<()> {
    host.create_guest("talker", "vsock,tick:1", &["--memory", "192MiB"])?;
    let problem = host.cli.fails(&["vm", "connect", "talker", "1024"])?;
    assert!(problem.contains("is stopped"), "{problem}");
    host.cli.ok(&["vm", "start", "talker"])?;
    let console = GuestConsole::open(&host.cli, "talker")?;
    let rest = console.wait("LODGE-VSOCK port=1024")?;
    assert_eq!(rest.trim(), "");
    let cid = host.vm("talker")?["status"]["vsock_cid"].clone();
    assert!(cid.as_u64().is_some_and(|cid| cid > 2), "{cid}");
    let answer = || host.cli.ok(&["vm", "connect", "talker", "1024"]);
    let first = answer()?;
    assert!(
        first.starts_with("LODGE-VSOCK-ANSWER name=talker boot="),
        "{first}"
    );
    // It is asked each time, and a pause breaks nothing.
    host.cli.ok(&["vm", "pause", "talker"])?;
    let problem = host.cli.fails(&["vm", "connect", "talker", "1024"])?;
    assert!(problem.contains("is paused"), "{problem}");
    host.cli.ok(&["vm", "resume", "talker"])?;
    let second = answer()?;
    let random = |line: &str| line.split(' ').nth(3).map(str::to_owned);
    assert!(random(&first).is_some_and(|word| word.starts_with("random=")));
    assert_ne!(random(&first), random(&second));
    let problem = host.cli.fails(&["vm", "connect", "talker", "1025"])?;
    assert!(problem.contains("nobody listens"), "{problem}");
    // The address stays, and so does the way to it, when the guest starts anew by itself.
    host.cli.ok(&["vm", "reset", "talker"])?;
    console.wait_count("LODGE-VSOCK port=1024", 2)?;
    assert_ne!(answer()?.split(' ').nth(2), first.split(' ').nth(2));
    host.cli.ok(&["vm", "kill", "talker"])?;
    host.cli.ok(&["vm", "start", "talker"])?;
    assert_eq!(host.vm("talker")?["status"]["vsock_cid"], cid);
    host.cli.ok(&["vm", "kill", "talker"])?;
    Ok(())
}

fn a_triple_fault_is_a_state_with_a_reason(host: &Host) -> Result<()> {
    host.create_guest("faulty", "triple-fault", &["--memory", "192MiB"])?;
    host.cli.ok(&["vm", "start", "faulty"])?;
    let vm = host.wait_state("faulty", "crashed")?;
    let reason = vm["status"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("triple-faulted"), "{vm}");
    // It can be started again.
    host.cli.ok(&[
        "vm",
        "set",
        "faulty",
        "--cmdline",
        "console=ttyS0 quiet lodge.ip=none lodge.action=poweroff",
    ])?;
    host.cli.ok(&["vm", "start", "faulty"])?;
    host.wait_state("faulty", "stopped")?;
    Ok(())
}

#[test]
fn guests_live() {
    let host = Shared::take().unwrap();
    reaches_init_and_powers_off(&host).unwrap();
    disk_writes_survive_a_reset(&host).unwrap();
    a_paused_guest_stands_still(&host).unwrap();
    stop_presses_the_power_button(&host).unwrap();
    a_triple_fault_is_a_state_with_a_reason(&host).unwrap();
    a_guest_lends_memory(&host).unwrap();
    a_guest_answers_without_a_network(&host).unwrap();
    guests_ping_each_other_and_the_host(&host).unwrap();
}

/// Starts these guests with one command, and waits until every one is up.
fn start_together(host: &Host, names: &[String]) -> Result<()> {
    let start: Vec<&str> = ["vm", "start", "--background"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    host.cli.ok(&start)?;
    for name in names {
        let vm = host.wait_state(name, "running")?;
        assert_eq!(vm["status"]["resets"], 0, "{vm}");
    }
    for name in names {
        let console = GuestConsole::open(&host.cli, name)?;
        host.while_it_works(name, || console.wait("LODGE-VSOCK port=1024"))?;
    }
    Ok(())
}

/// Some boot beside each other; the others go on from where one of those is, as every boot costs the emulator much.
fn twenty_run(host: &Host) -> Result<()> {
    const BOOTED: usize = 5;
    const CLONED: usize = 15;
    host.upload_unpacked_guest()?;
    let booted: Vec<String> = (1..=BOOTED).map(|n| format!("booted-{n}")).collect();
    for name in &booted {
        host.create_guest(name, "vsock,sleep:100000", &["--memory", "128MiB"])?;
    }
    start_together(host, &booted)?;
    host.cli.ok(&["snapshot", "create", &booted[0], "warm"])?;
    let cloned: Vec<String> = (1..=CLONED).map(|n| format!("cloned-{n}")).collect();
    for name in &cloned {
        host.cli.ok(&["snapshot", "clone", "warm", name])?;
    }
    for name in booted.iter().chain(&cloned) {
        let answer = host.cli.ok(&["vm", "connect", name, "1024"])?;
        assert!(answer.contains("boot="), "{name}: {answer}");
    }
    let filter = ["vm", "list", "--filter", "state eq running"];
    let running = host.cli.json(&filter)?;
    assert_eq!(running.as_array().map(Vec::len), Some(20), "{running}");
    let system = host.cli.json(&["system", "show"])?;
    assert_eq!(system["usage"]["vms_running"], 20, "{system}");
    Ok(())
}

#[test]
fn twenty_guests_at_once() {
    let host = Host::boot(Builder::new().memory_mib(6144)).unwrap();
    twenty_run(&host).unwrap();
    // The orderly end: every guest gets its power button.
    host.shut_down().unwrap();
}
