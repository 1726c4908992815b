//! Fuzzes [`lodge_fuzz::virtio::vsock`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::virtio::vsock(data));
