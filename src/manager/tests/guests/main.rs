//! Real guests of a few instructions under a real manager: started, stopped, crashed, and found again
//! by the next manager after the first was killed.
//!
//! This program is also the monitor (`guests vmm`), as `lodge` is, and the manager that gets killed
//! (`guests manager DIRECTORY VERB`), and what stands between the two (`guests relay FRONT BEHIND`). Hence it brings its own list of tests.
#![allow(unsafe_code, reason = "guests are assembled into this program")]

mod balloon;
#[path = "../../../vmm/tests/support/code.rs"]
mod code;
mod common;
mod configuration;
mod display;
mod hostile_monitor;
mod life;
mod limits;
mod manager_process;
mod network;
mod nvram;
mod plug;
mod programs;
mod refusals;
mod relay;
mod restored_network;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod survival;
mod viewer;

use std::pin::Pin;
use std::process::ExitCode;

type Test = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! tests {
    ($list:ident: $($module:ident: [$($name:ident),* $(,)?]),* $(,)?) => {
        const $list: &[(&str, Test)] = &[$($((stringify!($name), || Box::pin($module::$name()))),*),*];
    };
}

tests!(
    WITHOUT_KVM:
    survival: [a_manager_killed_under_load_loses_no_acknowledged_change],
);

tests!(
    WITH_KVM:
    configuration: [a_guest_runs_on_when_its_configuration_comes_back],
    life: [
        a_guest_runs_and_obeys_its_power_button,
        a_guest_that_does_not_power_off_is_reported_or_killed,
        waiting_for_a_stop_can_be_cancelled,
        a_guest_is_paused_resumed_and_reset,
        a_guest_is_asked_again_to_power_off,
        the_console_goes_both_ways,
        ends_nobody_asked_for_have_a_reason,
        a_killed_monitor_is_a_crash_and_the_guest_is_restarted,
        a_device_that_breaks_is_an_event,
        a_system_that_crashes_is_an_event_and_its_guest_stays,
        a_guest_that_neglects_its_watchdog_is_caught,
    ],
    nvram: [
        variables_of_a_guest_at_rest_are_read_and_changed,
        a_guest_without_uefi_has_no_variables,
    ],
    display: [
        a_guest_with_firmware_is_seen_and_typed_on,
        a_guest_without_firmware_has_neither,
    ],
    refusals: [
        what_is_no_kernel_is_said_when_it_is_started,
        a_disk_is_written_by_one_guest_only,
        memory_that_is_not_there_is_not_given,
        a_running_guest_cannot_be_deleted_and_shows_what_is_pending,
    ],
    survival: [
        guests_survive_a_manager_that_is_killed,
        a_manager_killed_while_it_starts_guests_loses_none,
        guests_that_ended_meanwhile_are_told_apart,
        a_shutdown_powers_guests_off,
        guests_that_shall_start_by_themselves_do_so_once,
    ],
    balloon: [
        a_running_guest_is_asked_for_memory,
    ],
    plug: [
        a_disk_comes_to_a_running_guest_and_leaves_it,
        waiting_for_a_device_can_be_cancelled_and_a_reset_takes_it,
        a_manager_killed_while_devices_come_and_go_leaves_no_doubt,
        what_is_told_late_of_a_device_takes_no_other_out,
    ],
    limits: [
        processor_time_is_limited_while_a_guest_runs_or_that_is_refused,
        disks_are_limited_while_a_guest_runs,
    ],
    snapshots: [
        a_running_guest_goes_back_to_where_it_was,
        a_guest_is_paused_and_resumed_while_it_is_copied,
        a_warm_template_makes_guests_that_go_on_apart,
        a_stopped_guest_has_disks_only,
        files_of_unfinished_snapshots_are_removed,
        a_snapshot_has_what_was_plugged_in,
    ],
    hostile_monitor: [
        a_monitor_that_turns_hostile_gets_nowhere_and_is_told_on,
        a_guest_whose_monitor_turned_hostile_is_not_started_again,
    ],
    network: [
        guests_get_taps_on_their_network,
    ],
);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("vmm") => {
            hostile_monitor::prepare();
            return lodge_vmm::main_from_birth_socket();
        }
        Some("network") => {
            runtime().block_on(network::network_scenario());
            return ExitCode::SUCCESS;
        }
        Some("relay") => return relay::run(args[2].as_ref(), args[3].as_ref()),
        Some("manager") => return manager_process::run(args[2].as_ref(), &args[3]),
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
