//! The simulator's packet language on arbitrary text.
#![no_main]

#[path = "../../tests/src/fuzzing/language.rs"]
mod language;

libfuzzer_sys::fuzz_target!(|input: &[u8]| language::run(input));
