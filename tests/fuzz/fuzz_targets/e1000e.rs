//! Fuzzes [`lodge_fuzz::e1000e::card`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::e1000e::card(data));
