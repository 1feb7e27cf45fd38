//! The simulator's packet language on arbitrary text: a refusal explains itself, and what a line gives is described.

use lb_userspace::simulate::language::{describe, parse};

/// Reads one line; panics where a law is broken.
pub fn run(input: &[u8]) {
    let Ok(line) = std::str::from_utf8(input) else { return };
    match parse(line) {
        Ok(frame) => {
            // Only bytes as they are may be no frame at all.
            assert!(frame.len() >= 14 || line.contains("raw"), "an Ethernet header");
            assert!(!describe(&frame).is_empty(), "a description");
        }
        Err(refused) => assert!(!refused.to_string().is_empty(), "an explanation"),
    }
    // Frames come from capture files too.
    assert!(!describe(input).is_empty(), "a description");
}
