//! Fuzzes [`lodge_fuzz::chipset::cmos`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::cmos(data));
