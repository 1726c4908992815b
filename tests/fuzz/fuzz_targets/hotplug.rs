//! Fuzzes [`lodge_fuzz::chipset::hotplug`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::hotplug(data));
