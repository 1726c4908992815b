//! Fuzzes [`lodge_fuzz::nvme::disk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::nvme::disk(data));
