//! What is tried, in this order: from `ports` on it is of interest in machines with firmware, too, which have other devices there. `docs/hostile-guest.md` says which class of mistakes each is after.

mod addresses;
mod ahci;
mod bars;
mod chains;
mod configuration;
mod disk;
mod e1000e;
mod emulator;
mod firmware;
mod msix;
mod notifications;
mod nvme;
mod platform;
mod ports;
mod race;
mod registers;
mod rings;
mod start;

use crate::World;

/// One way into the monitor.
type Attack = fn(&mut World);

/// All of them, by their names.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("configuration", configuration::every_register),
    ("no-function", configuration::nobody),
    ("registers", bars::every_register),
    ("registers-in-use", bars::every_register_in_use),
    ("emulator", emulator::operands),
    ("status", start::status_order),
    ("features", start::features),
    ("frozen", start::frozen_queues),
    ("any-order", registers::any_order),
    ("selectors", registers::selectors),
    ("queue-addresses", addresses::rings_anywhere),
    ("chains", chains::broken),
    ("odd-chains", chains::odd),
    ("index-jumps", rings::index_jumps),
    ("own-rings", rings::written_by_the_device),
    ("double-fetch", race::double_fetch),
    ("two-processors", race::registers),
    ("notifications", notifications::endless),
    ("restarts", notifications::restarts),
    ("msix", msix::tables),
    ("moving", configuration::moving_bars),
    ("moving-ecam", configuration::moving_ecam),
    ("deaf", configuration::commands_during_requests),
    ("disk", disk::requests),
    ("ahci-registers", ahci::registers),
    ("ahci-lists", ahci::lists),
    ("nvme-registers", nvme::registers),
    ("nvme-commands", nvme::commands),
    ("e1000e-registers", e1000e::registers),
    ("e1000e-rings", e1000e::rings),
    ("ports", ports::every_port),
    ("strings", ports::strings),
    ("clock-memory", ports::clock_memory),
    ("platform", platform::pages),
    ("borders", platform::borders),
    ("firmware-items", firmware::items),
    ("firmware-dma", firmware::dma),
    ("screen", firmware::screen),
    ("flash", firmware::flash),
    ("keyboard", ports::keyboard),
];
