//! Fuzzes [`lodge_fuzz::virtio::network`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::virtio::network(data));
