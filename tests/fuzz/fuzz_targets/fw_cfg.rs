//! Fuzzes [`lodge_fuzz::chipset::fw_cfg`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::fw_cfg(data));
