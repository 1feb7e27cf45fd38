//! The config loader on arbitrary text.
#![no_main]

#[path = "../../tests/src/fuzzing/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|input: &[u8]| config::run(input));
