//! Fuzzes [`lodge_fuzz::virtio::rng`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::virtio::rng(data));
