//! The fuzz targets' committed inputs, replayed on a stable toolchain: those that found something once, and
//! some that reach far. See `fuzz/README.md`.

#![cfg(all(feature = "testing", feature = "cli"))]

#[path = "../fuzz/bodies/mod.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use them from another crate")]
mod bodies;
mod common;

use std::path::PathBuf;

use rand::Rng;

/// Names that the fuzzer gives by itself have forty digits.
const NAME_OF_ITS_OWN: usize = 40;

fn replay(target: &str, body: fn(&[u8])) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
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

/// Fuzzing from nothing rarely writes a quote where it matters.
#[test]
fn cli_load_holds_for_texts_of_marks_that_matter() {
    const PIECES: [&str; 24] = [
        "\"",
        "\"\"",
        ",",
        ";",
        "\n",
        "\r\n",
        "\r",
        "1",
        "2",
        "17",
        "0x",
        "f",
        " ",
        "\u{feff}",
        "id",
        "data",
        "base64",
        "version",
        "/w==",
        "{\"id\":1,\"data\":\"x\"}",
        "\"id\":2",
        "é",
        "\0",
        "x",
    ];
    let mut rng = common::seeded();
    for _ in 0..4000 {
        let mut input: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.random()).collect();
        if rng.random_ratio(1, 3) {
            input.extend_from_slice(
                ["id,data\n", "id,version,data,base64\n"][rng.random_range(0..2)].as_bytes(),
            );
        }
        for _ in 0..rng.random_range(0..40) {
            input.extend_from_slice(PIECES[rng.random_range(0..PIECES.len())].as_bytes());
        }
        bodies::cli_load::run(&input);
    }
}

#[test]
fn slot_codec_holds_for_its_corpus() {
    replay("slot_codec", bodies::slot_codec::run);
}

/// Inputs that are named after a mistake catch it, when the store is made to make it.
#[test]
fn a_store_that_makes_a_mistake_fails_the_input_that_is_named_after_it() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/operations");
    let mut caught = 0;
    for entry in std::fs::read_dir(dir).expect("the corpus") {
        let path = entry.expect("an input").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(fault) = name.strip_prefix("catches_") else { continue };
        // A mistake is made by a whole process.
        let child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["one_input", "--exact", "--ignored"])
            .env("RECSTORE_INPUT", &path)
            .env("RECSTORE_FAULT", fault)
            .output()
            .expect("a child");
        let said = String::from_utf8_lossy(&child.stdout);
        let is_caught = said.contains("1 failed") && !said.contains("RECSTORE_FAULT");
        assert!(!child.status.success() && is_caught, "{fault} goes unseen: {said}");
        caught += 1;
    }
    assert!(caught >= 5, "{caught} mistakes");
}

/// For the test above, and for looking into one input of `operations`.
#[test]
#[ignore = "needs RECSTORE_INPUT, the path of an input"]
fn one_input() {
    let path = std::env::var_os("RECSTORE_INPUT").expect("RECSTORE_INPUT");
    bodies::operations::run(&std::fs::read(path).expect("the input"));
}
