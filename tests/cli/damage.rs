//! Damaged stores and foreign files: exit code 3, each damage named, never wrong data.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Dir, args, dump, read, run, store_of};

const VICTIM: &[u8] = b"the record whose bytes are going to be damaged";

/// A store in which one bit of record 2 is flipped.
fn damaged_store(dir: &Dir) -> PathBuf {
    let store = store_of(dir, "a.rec", &[(1, b"one"), (2, VICTIM), (3, b"three")]);
    let mut bytes = fs::read(&store).expect("the store");
    let at: Vec<usize> =
        (0..bytes.len() - VICTIM.len()).filter(|&at| bytes[at..].starts_with(VICTIM)).collect();
    let [at] = at[..] else { panic!("the record's bytes are in the file once, not {at:?}") };
    bytes[at + 10] ^= 4;
    fs::write(&store, bytes).expect("the store");
    store
}

fn bytes(store: &Path) -> Vec<u8> {
    fs::read(store).expect("the store")
}

#[test]
fn a_flipped_bit_is_reported_and_never_read() {
    let dir = Dir::new();
    let store = damaged_store(&dir);
    run(args!["read", store, "2"]).refused(3, "0x2");
    run(args!["read", store, "2", "--json"]).refused(3, "0x2");
    assert_eq!(read(&store, 1), b"one");
    assert_eq!(read(&store, 3), b"three");
}

#[test]
fn list_and_dump_show_what_is_whole_and_name_what_is_not() {
    let dir = Dir::new();
    let store = damaged_store(&dir);
    let dumped = run(args!["dump", store]).ended(3, "0x2");
    assert_eq!(dumped.sorted(), [r#"{"id":1,"data":"one"}"#, r#"{"id":3,"data":"three"}"#]);
    assert!(dumped.err.contains("not shown for damage: 1 record"), "{dumped:?}");
    assert_eq!(run(args!["list", store]).ended(3, "0x2").text().lines().count(), 2);
    assert_eq!(run(args!["list", store, "--json"]).ended(3, "0x2").json().len(), 2);
}

#[test]
fn verify_lists_the_damage_and_changes_nothing() {
    let dir = Dir::new();
    let store = damaged_store(&dir);
    let before = bytes(&store);
    let verified = run(args!["verify", store]).ended(3, "recstore repair");
    assert_eq!(verified.text().lines().count(), 1, "{verified:?}");
    assert!(verified.text().contains("record 2 (0x2)"), "{verified:?}");

    let report = &run(args!["verify", store, "--json"]).ended(3, "damaged in 1 place").json()[0];
    assert_eq!(report["clean"], false);
    let damage = report["damage"].as_array().expect("a list");
    assert_eq!(damage.len(), 1, "{report}");
    assert_eq!(damage[0]["id"], 2);
    assert!(damage[0]["region"].is_u64() && damage[0]["slot"].is_u64(), "{report}");

    // The slot that it names can be looked at.
    run(args!["inspect", store, "--slot", damage[0]["slot"].to_string()]).done();
    run(args!["inspect", store, "--region", damage[0]["region"].to_string()]).done();
    run(args!["inspect", store]).done();
    run(args!["stat", store]).done();
    run(args!["stat", store, "--json"]).done();
    run(args!["list", store]).ended(3, "0x2");
    run(args!["read", store, "2"]).ended(3, "0x2");
    assert!(bytes(&store) == before, "looking at a store has changed it");
}

#[test]
fn repair_says_what_it_drops_and_leaves_the_rest() {
    let dir = Dir::new();
    let store = damaged_store(&dir);
    let repaired = run(args!["repair", store]).ended(3, "repaired; 1 record or version is lost");
    assert!(repaired.text().contains("dropped: ") && repaired.text().contains("0x2"), "{repaired:?}");
    run(args!["verify", store]).done();
    run(args!["read", store, "2"]).refused(1, "no record 2");
    assert_eq!(dump(&store), [r#"{"id":1,"data":"one"}"#, r#"{"id":3,"data":"three"}"#]);
    assert_eq!(run(args!["repair", store]).done().text(), "healthy: 2 records, nothing to repair\n");
}

#[test]
fn a_damaged_record_is_healed_by_writing_it_anew() {
    let dir = Dir::new();
    let store = damaged_store(&dir);
    run(args!["write", store, "2", "anew"]).done();
    assert_eq!(read(&store, 2), b"anew");
    run(args!["verify", store]).done();
}

#[test]
fn a_file_that_is_no_store_has_an_exit_code_of_its_own_and_stays_as_it_is() {
    let dir = Dir::new();
    let whole = bytes(&store_of(&dir, "whole.rec", &[(1, b"x")]));
    for (name, content, code) in [
        ("empty.rec", Vec::new(), 5),
        ("text.rec", b"just a text\n".repeat(10_000), 5),
        ("picture.png", b"\x89PNG\r\n\x1a\n and so on".to_vec(), 5),
        ("zeros.rec", vec![0; 1 << 20], 5),
        ("cut.rec", whole[..whole.len() / 2].to_vec(), 3),
        ("short.rec", whole[..100].to_vec(), 5),
    ] {
        let file = dir.file(name, &content);
        for command in ["list", "dump", "stat", "verify", "repair", "inspect"] {
            run(args![command, file]).refused(code, name);
        }
        run(args!["read", file, "1"]).refused(code, name);
        run(args!["write", file, "1", "x"]).refused(code, name);
        run(args!["delete", file, "1"]).refused(code, name);
        run(args!["load", file]).refused(code, name);
        let report = &run(args!["verify", file, "--json"]).ended(code, name).json()[0];
        assert_eq!(report["clean"], false);
        assert!(report["error"].as_str().is_some_and(|error| error.contains(name)), "{report}");
        assert!(bytes(&file) == content, "{name} was changed");
    }
}

#[test]
fn one_superblock_of_two_is_enough() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let mut content = bytes(&store);
    content[..512].fill(0xff);
    fs::write(&store, &content).expect("the store");
    assert_eq!(read(&store, 1), b"one");
    run(args!["verify", store]).ended(3, "recstore repair");
    let repaired = run(args!["repair", store]).done();
    assert!(repaired.text().contains("superblock"), "{repaired:?}");
    run(args!["verify", store]).done();
    assert_eq!(read(&store, 1), b"one");
}

/// Run with `--features testing`.
#[cfg(feature = "testing")]
#[test]
fn after_a_crash_of_the_system_reading_needs_no_manual_step() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    recstore::testing::set_boot_id(&store).expect("the store");
    let before = bytes(&store);
    for command in ["stat", "verify", "inspect"] {
        run(args![command, store]).ended(3, "needs repair");
    }
    assert!(bytes(&store) == before, "looking at a store has changed it");
    let ended = run(args!["read", store, "1"]).ended(0, "the system went down while it was in use");
    assert_eq!(ended.out, b"one");
    // Once is enough.
    assert_eq!(read(&store, 2), b"two");
    run(args!["verify", store]).done();

    recstore::testing::set_boot_id(&store).expect("the store");
    let repaired = run(args!["repair", store]).done();
    assert!(repaired.text().contains("the system went down"), "{repaired:?}");
    recstore::testing::set_boot_id(&store).expect("the store");
    run(args!["write", store, "3", "three"]).refused(0, "the system went down");
    recstore::testing::set_boot_id(&store).expect("the store");
    assert_eq!(run(args!["dump", store]).ended(0, "the system went down").text().lines().count(), 3);
}

#[test]
fn a_byte_damaged_in_both_superblocks_gives_a_clear_end() {
    // Damage is 3, another version of the format is 4, no store 5; no panic, no signal, no hang, no wrong data.
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let whole = bytes(&store);
    let second = (1..whole.len() / 512)
        .find(|n| whole[n * 512..].starts_with(&whole[..64]))
        .expect("a second superblock");
    for at in 0..128 {
        let mut content = whole.clone();
        content[at] ^= 0x55;
        content[second * 512 + at] ^= 0x55;
        fs::write(&store, &content).expect("the store");
        let ended = run(args!["read", store, "1"]);
        assert!([0, 3, 4, 5].contains(&ended.code), "byte {at}: {ended:?}");
        assert!(ended.code != 0 || ended.out == b"one", "byte {at}: {ended:?}");
    }
}
