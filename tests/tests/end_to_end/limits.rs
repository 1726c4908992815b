//! Guests are held to limits while they run: of processor time, of disks, of network interfaces.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lodge_tests::host::Host;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;
use serde_json::Value;

use crate::hotplug::{tell, until};

/// Runs a command in the guest; returns how long it took by the guest's clock.
fn timed(console: &mut GuestConsole, command: &str, name: &str) -> Result<Duration> {
    let now = "$(cut -d' ' -f1 /proc/uptime | tr -d .)";
    let line = format!("a={now}; {command}; b={now}; echo LODGE-\"\"TOOK {name} $((b-a))\n");
    console.write(&line)?;
    let hundredths = console.wait(&format!("LODGE-TOOK {name} "))?;
    let hundredths: u64 = hundredths.parse().with_context(|| hundredths.clone())?;
    Ok(Duration::from_millis(10 * hundredths))
}

/// A number of a guest's status.
fn status(host: &Host, vm: &str, field: &str) -> Result<u64> {
    let shown = host.vm(vm)?;
    let number = shown["status"][field].as_u64();
    number.with_context(|| format!("{field} of {shown}"))
}

/// Waits until a guest has used so much more processor time; returns how long that took.
fn uses(host: &Host, vm: &str, microseconds: u64) -> Result<Duration> {
    let (began, before) = (Instant::now(), status(host, vm, "cpu_time_us")?);
    while status(host, vm, "cpu_time_us")? < before + microseconds {
        ensure!(
            began.elapsed() < Duration::from_secs(300),
            "{vm} stands still"
        );
    }
    Ok(began.elapsed())
}

/// What a guest's cgroup says.
fn of_group(host: &Host, vm: &str, file: &str) -> Result<String> {
    let shown = host.vm(vm)?;
    let id = shown["id"].as_str().context("an id")?;
    let command = format!("cat /sys/fs/cgroup/lodge/{id}/{file}");
    Ok(host.machine.sh(&command)?.trim().to_owned())
}

fn set(host: &Host, vm: &str, options: &[&str]) -> Result<Value> {
    host.cli.ok(&[&["vm", "set", vm], options].concat())?;
    let shown = host.vm(vm)?;
    ensure!(shown["status"]["restart_pending"] == false, "{shown}");
    Ok(shown)
}

fn busy(host: &Host, name: &str) -> Result<GuestConsole> {
    host.create_guest(name, "shell", &["--memory", "192MiB"])?;
    host.cli.ok(&["vm", "start", name])?;
    let mut console = GuestConsole::open(&host.cli, name)?;
    console.wait("LODGE-GUEST-SHELL")?;
    tell(&mut console, "{ while :; do :; done & }", "busy")?;
    Ok(console)
}

fn processor_time_is_limited(host: &Host, console: &mut GuestConsole) -> Result<()> {
    let system = host.cli.json(&["system", "show"])?;
    let controls = &system["controls"];
    ensure!(
        controls["cpu"] == true && controls["processors"] == "0",
        "{controls}"
    );
    let problem = host
        .cli
        .fails(&["vm", "set", "held", "--cpu-affinity", "0,63"])?;
    ensure!(problem.contains("no processor 63"), "{problem}");
    tell(console, "{ while :; do :; done & }", "busy")?;
    set(host, "held", &["--cpu-limit", "20", "--cpu-affinity", "0"])?;
    ensure!(of_group(host, "held", "cpu.max")? == "20000 100000");
    ensure!(of_group(host, "held", "cpuset.cpus")? == "0");
    // A fifth of a processor gives a second in five.
    let took = uses(host, "held", 1_000_000)?;
    ensure!(took > Duration::from_secs(3), "a second in {took:?}");
    ensure!(status(host, "held", "cpu_throttled_us")? > 0);
    set(host, "held", &["--cpu-limit", "none"])?;
    ensure!(of_group(host, "held", "cpu.max")? == "max 100000");
    Ok(())
}

/// Both want all of the one processor.
fn shares_divide_a_processor(host: &Host) -> Result<()> {
    let _console = busy(host, "other")?;
    set(host, "held", &["--cpu-shares", "400"])?;
    ensure!(of_group(host, "held", "cpu.weight")? == "400");
    let used = |vm| status(host, vm, "cpu_time_us");
    let (held, other) = (used("held")?, used("other")?);
    uses(host, "held", 4_000_000)?;
    let (held, other) = (used("held")? - held, used("other")? - other);
    // Four to one, if it was exact.
    ensure!(other * 2 < held, "{held} and {other} microseconds");
    host.cli.ok(&["vm", "kill", "other"])?;
    let none = ["--cpu-shares", "none", "--cpu-affinity", "none"];
    set(host, "held", &none)?;
    ensure!(of_group(host, "held", "cpu.weight")? == "100");
    ensure!(of_group(host, "held", "cpuset.cpus")? == "0");
    Ok(())
}

fn disks_are_limited(host: &Host, console: &mut GuestConsole) -> Result<()> {
    tell(console, "kill $!", "idle")?;
    let limit = |options: &[&str]| {
        let command = ["vm", "disk", "set", "held", "slow"];
        host.cli.ok(&[&command[..], options].concat())
    };
    let mut read = |blocks: &str, name: &str| {
        let command = format!("dd if=/dev/vda of=/dev/null {blocks} iflag=direct 2>/dev/null");
        timed(console, &command, name)
    };
    limit(&["--iops", "20", "--iops-burst", "1"])?;
    let slow = read("bs=4k count=60", "iops")?;
    ensure!(slow > Duration::from_millis(2500), "60 reads in {slow:?}");
    limit(&["--iops", "none", "--bandwidth", "1MiB"])?;
    let slow = read("bs=256k count=12", "bandwidth")?;
    ensure!(slow > Duration::from_millis(2000), "3 MiB in {slow:?}");
    limit(&["--bandwidth", "none"])?;
    let fast = read("bs=256k count=12", "free")?;
    ensure!(fast < slow, "{fast:?} without limits, {slow:?} with");
    let shown = host.vm("held")?;
    ensure!(shown["status"]["restart_pending"] == false, "{shown}");
    // It is looked at now and then.
    let began = Instant::now();
    while status(host, "held", "disk_throttled_us")? == 0 {
        ensure!(began.elapsed() < Duration::from_secs(60), "never held back");
    }
    let problem = host
        .cli
        .fails(&["vm", "disk", "set", "held", "slow", "--iops", "1"])?;
    ensure!(problem.contains("out of range"), "{problem}");
    Ok(())
}

fn network_interfaces_are_limited(host: &Host, console: &mut GuestConsole) -> Result<()> {
    let shown = host.vm("held")?;
    let mac = shown["nics"][0]["mac"].as_str().context("an address")?;
    let limit = |rate| {
        let command = ["vm", "nic", "set", "held", mac];
        let options = ["--receive", rate, "--transmit", rate];
        host.cli.ok(&[&command[..], &options].concat())
    };
    limit("10")?;
    let modules = host.machine.sh("cat /proc/modules")?;
    for module in ["sch_tbf", "sch_ingress", "cls_matchall", "act_police"] {
        ensure!(modules.contains(module), "{module} is not used: {modules}");
    }
    // What it has to say still gets through.
    tell(
        console,
        "ip link set eth0 up; udhcpc -n -q -t 20 -i eth0 -s /bin/true && echo leased=\"\"yes",
        "nic-asked",
    )?;
    ensure!(console.text().contains("leased=yes"), "{}", console.text());
    limit("none")?;
    let shown = host.vm("held")?;
    ensure!(shown["status"]["restart_pending"] == false, "{shown}");
    ensure!(shown["nics"][0].get("limits").is_none(), "{shown}");
    Ok(())
}

/// Whether the guest is given an address within some attempts of a second each.
fn leased(console: &mut GuestConsole, attempts: u32, name: &str) -> Result<bool> {
    let ask = format!("udhcpc -n -q -t {attempts} -T 1 -i eth0 -s /bin/true");
    console.write(&format!(
        "{ask} && got=yes || got=no; echo LODGE-\"\"LEASE {name} $got\n"
    ))?;
    Ok(console.wait(&format!("LODGE-LEASE {name} "))? == "yes")
}

/// The guest sees it, and nothing gets through.
fn a_cable_is_pulled_and_plugged_in(host: &Host, console: &mut GuestConsole) -> Result<()> {
    let shown = host.vm("held")?;
    let mac = shown["nics"][0]["mac"].as_str().context("an address")?;
    let link = |state| {
        let command = ["vm", "nic", "set", "held", mac, "--link", state];
        host.cli.ok(&command)
    };
    let carrier = |is| format!("[ \"$(cat /sys/class/net/eth0/carrier)\" = {is} ]");
    link("down")?;
    until(console, &carrier(0), "signal-lost")?;
    ensure!(!leased(console, 3, "without")?, "{}", console.text());
    let shown = host.vm("held")?;
    ensure!(shown["nics"][0]["link"] == "down", "{shown}");
    ensure!(shown["status"]["restart_pending"] == false, "{shown}");
    link("up")?;
    until(console, &carrier(1), "signal-back")?;
    ensure!(leased(console, 20, "with")?, "{}", console.text());
    Ok(())
}

#[test]
fn running_guests_are_held_to_limits() {
    let host = Shared::take().unwrap();
    let create = ["disk", "create", "slow", "--size", "16MiB"];
    host.cli.ok(&create).unwrap();
    let options = ["--memory", "192MiB", "--disk", "slow", "--nic", "default"];
    host.create_guest("held", "shell", &options).unwrap();
    host.cli.ok(&["vm", "start", "held"]).unwrap();
    let mut console = GuestConsole::open(&host.cli, "held").unwrap();
    console.wait("LODGE-GUEST-SHELL").unwrap();
    processor_time_is_limited(&host, &mut console).unwrap();
    shares_divide_a_processor(&host).unwrap();
    disks_are_limited(&host, &mut console).unwrap();
    network_interfaces_are_limited(&host, &mut console).unwrap();
    a_cable_is_pulled_and_plugged_in(&host, &mut console).unwrap();
}
