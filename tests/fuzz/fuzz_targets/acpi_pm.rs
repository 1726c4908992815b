//! Fuzzes [`lodge_fuzz::chipset::acpi_pm`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::acpi_pm(data));
