//! Replays the corpora of the fuzz targets, and what they once found, without libFuzzer.

use std::fs;
use std::path::Path;

use lb_tests::fuzzing::{config, engine, language};

/// Runs every file of a corpus; the panic of one that breaks a law names it.
fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut ran = 0;
    for entry in fs::read_dir(&directory).expect("a corpus") {
        let path = entry.expect("a directory that can be read").path();
        let input = fs::read(&path).expect("a file that can be read");
        println!("{}", path.display());
        run(&input);
        ran += 1;
    }
    println!("{target}: {ran} inputs replayed");
    assert!((20..300).contains(&ran), "{ran} files");
}

#[test]
fn the_engine_keeps_its_laws() {
    replay("engine", engine::run);
}

#[test]
fn the_config_loader_keeps_its_laws() {
    replay("config", config::run);
}

#[test]
fn the_packet_language_keeps_its_laws() {
    replay("language", language::run);
}
