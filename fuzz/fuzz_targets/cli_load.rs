#![no_main]

#[path = "common/leaks.rs"]
mod leaks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| recstore_fuzz::cli_load::run(input));
