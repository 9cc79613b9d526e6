//! The fuzz targets' committed inputs, replayed on a stable toolchain: those that found something once, and
//! some that reach far. See `fuzz/README.md`.

#![cfg(all(feature = "testing", feature = "cli"))]

#[path = "../fuzz/bodies/mod.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use them from another crate")]
mod bodies;

use std::path::PathBuf;

/// Names that the fuzzer gives by itself have forty digits.
const NAME_OF_ITS_OWN: usize = 40;

fn replay(target: &str, body: fn(&[u8])) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&dir).expect("the corpus") {
        let path = entry.expect("an input").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.len() == NAME_OF_ITS_OWN {
            continue;
        }
        println!("{}", path.display());
        body(&std::fs::read(&path).expect("the input"));
        replayed += 1;
    }
    assert!(replayed > 0, "nothing in {}", dir.display());
}

#[test]
fn open_bytes_holds_for_its_corpus() {
    replay("open_bytes", bodies::open_bytes::run);
}

#[test]
fn damaged_store_holds_for_its_corpus() {
    replay("damaged_store", bodies::damaged_store::run);
}

#[test]
fn operations_hold_for_their_corpus() {
    replay("operations", bodies::operations::run);
}

#[test]
fn cli_load_holds_for_its_corpus() {
    replay("cli_load", bodies::cli_load::run);
}

#[test]
fn slot_codec_holds_for_its_corpus() {
    replay("slot_codec", bodies::slot_codec::run);
}
