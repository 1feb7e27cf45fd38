//! The config loader on arbitrary text: whatever it refuses it must be able to explain.

use lb_userspace::config::parse;

/// Loads one text; panics where a law is broken.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse("fuzz.yaml", text) {
        Ok(loaded) => {
            // What was merged is a config too, and the same one.
            let effective = loaded.effective();
            let again = parse("effective.yaml", &effective)
                .unwrap_or_else(|refused| panic!("{refused}\n{effective}"));
            assert_eq!(loaded.model, again.model, "{effective}");
        }
        Err(refused) => assert!(!refused.to_string().is_empty(), "an explanation"),
    }
}
