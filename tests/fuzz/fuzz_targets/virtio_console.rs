//! Fuzzes [`lodge_fuzz::virtio::console`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::virtio::console(data));
