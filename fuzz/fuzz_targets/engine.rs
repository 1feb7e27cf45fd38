//! The packet engine on raw frames with arbitrary tables.
#![no_main]

#[path = "../../tests/src/frames.rs"]
mod frames;
#[path = "../../tests/src/fuzzing/engine.rs"]
mod engine;
#[path = "../../tests/src/oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::run(input));
