//! One record at a time, and the commands that look at records and stores.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::command::{Dir, Talk, args, dump, read, run, run_with, store_of};

fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn a_record_comes_back_byte_for_byte_however_it_came_in() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let file = dir.file("bytes", every_byte());
    run(args!["write", store, "1", "from the command line"]).done();
    run_with(args!["write", store, "2"], every_byte()).done();
    run_with(args!["write", store, "3", "-"], "ends in a newline\n").done();
    run(args!["write", store, "4", "--file", file]).done();
    run(args!["write", store, "5", ""]).done();
    run(args!["write", store, "6", "--", "-x"]).done();
    assert_eq!(read(&store, 1), b"from the command line");
    assert_eq!(read(&store, 2), every_byte());
    assert_eq!(read(&store, 3), b"ends in a newline\n");
    assert_eq!(read(&store, 4), every_byte());
    assert_eq!(read(&store, 5), b"");
    assert_eq!(read(&store, 6), b"-x");
}

#[test]
fn the_last_write_is_what_is_read() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"old and longer"), (1, b"new")]);
    assert_eq!(read(&store, 1), b"new");
}

#[test]
fn write_creates_an_absent_store_and_says_so_once() {
    let dir = Dir::new();
    let store = dir.path("new.rec");
    run(args!["write", store, "1", "x"]).refused(0, "created, for records of up to 1048576 bytes");
    run(args!["write", store, "1", "y"]).done();
    let mode = fs::metadata(&store).expect("the store").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a store is private unless somebody says otherwise");
}

#[test]
fn an_id_is_any_number_in_decimal_or_hexadecimal() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(0, b"zero"), (u64::MAX, b"last")]);
    run(args!["write", store, "0x1F980", "crab"]).done();
    assert_eq!(read(&store, 129_408), b"crab");
    assert_eq!(run(args!["read", store, "0x0"]).done().out, b"zero");
    assert_eq!(run(args!["read", store, "0xffffffffffffffff"]).done().out, b"last");
}

#[test]
fn an_absent_record_is_exit_code_1() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"x")]);
    run(args!["read", store, "255"]).refused(1, "no record 255 (0xff)");
    run(args!["read", store, "255", "--json"]).refused(1, "no record 255 (0xff)");
    run(args!["delete", store, "255"]).refused(1, "no record 255 (0xff)");
}

#[test]
fn a_deleted_record_is_gone_and_the_others_are_not() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    assert!(run(args!["delete", store, "1"]).done().out.is_empty());
    run(args!["read", store, "1"]).refused(1, "no record 1");
    run(args!["delete", store, "1"]).refused(1, "no record 1");
    assert_eq!(dump(&store), [r#"{"id":2,"data":"two"}"#]);
}

#[test]
fn several_records_are_deleted_and_the_absent_ones_are_named() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4"), (5, b"5")]);
    let ended = run(args!["delete", store, "1", "9", "0x2", "8"]).refused(1, "no record 8");
    assert!(ended.err.contains("no record 9 (0x9)\n"), "{ended:?}");
    let ids = dir.file("ids", "3\n\n0x4\n");
    run(args!["rm", store, "--ids", ids]).done();
    assert_eq!(dump(&store), [r#"{"id":5,"data":"5"}"#]);
    run_with(args!["delete", store, "--ids", "-"], "5\nfive\n").refused(4, "line 2: `five` is not an id");
    assert_eq!(dump(&store).len(), 1, "nothing is deleted before all is understood");
    run(args!["delete", store]).refused(2, "required");
}

#[test]
fn read_gives_text_as_text_and_the_rest_as_base64_in_json() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, "crab 🦀\n".as_bytes()), (2, b"\xff\0")]);
    let text = &run(args!["read", store, "1", "--json"]).done().json()[0];
    assert_eq!((&text["id"], &text["data"], &text["length"]), (&1.into(), &"crab 🦀\n".into(), &10.into()));
    assert!(text["version"].is_u64() && text.get("base64").is_none(), "{text}");
    let bytes = &run(args!["read", store, "2", "--json"]).done().json()[0];
    assert_eq!((&bytes["base64"], &bytes["length"]), (&"/wA=".into(), &2.into()));
    assert!(bytes.get("data").is_none(), "{bytes}");
}

#[test]
fn a_version_rises_with_every_write() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"x")]);
    let version = || run(args!["read", store, "1", "--json"]).done().json()[0]["version"].as_u64();
    let first = version();
    assert_eq!(version(), first);
    run(args!["write", store, "1", "x"]).done();
    assert!(version() > first);
}

#[test]
fn list_shows_every_record_and_no_control_byte() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (300, b"\x1b[31mred\n"), (2, &[b'x'; 100])]);
    let listed = run(args!["list", store]).done();
    assert!(listed.out.iter().all(|&b| b == b'\n' || b >= b' '), "{listed:?}");
    let lines = listed.sorted();
    assert_eq!(lines.len(), 3, "{listed:?}");
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let red = lines.iter().map(|line| words(line)).find(|words| words[0] == "300").expect("record 300");
    assert_eq!((red[2].as_str(), red[3].as_str()), ("9", "\\u{1b}[31mred\\n"));

    let mut objects = run(args!["list", store, "--json"]).done().json();
    objects.sort_by_key(|object| object["id"].as_u64());
    let ids: Vec<u64> = objects.iter().filter_map(|object| object["id"].as_u64()).collect();
    assert_eq!(ids, [1, 2, 300]);
    assert_eq!((&objects[0]["length"], &objects[0]["preview"]), (&3.into(), &"one".into()));
    assert!(objects.iter().all(|object| object["version"].is_u64()), "{objects:?}");
}

#[test]
fn an_empty_store_lists_and_dumps_nothing() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    assert!(run(args!["list", store]).done().out.is_empty());
    assert!(run(args!["list", store, "--json"]).done().out.is_empty());
    assert!(run(args!["dump", store]).done().out.is_empty());
    run(args!["verify", store]).done();
}

#[test]
fn create_takes_the_geometry_and_the_mode() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    let created = run(args![
        "create",
        store,
        "--record-size",
        "1K",
        "--regions",
        "3",
        "--max-size",
        "64M",
        "--mode",
        "640"
    ]);
    created.refused(0, "created, for records of up to 1024 bytes, in 3 regions");
    assert_eq!(fs::metadata(&store).expect("the store").permissions().mode() & 0o777, 0o640);
    let stats = &run(args!["stat", store, "--json"]).done().json()[0];
    assert_eq!(stats["record_size"], 1024);
    assert_eq!(stats["regions"].as_array().map(Vec::len), Some(3));
    assert_eq!(stats["max_size"], 64 << 20);
    run_with(args!["write", store, "1"], [b'x'; 1024]).done();
    run_with(args!["write", store, "1"], [b'x'; 1025]).refused(4, "1025");
}

#[test]
fn a_store_is_not_created_over_a_file() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"kept")]);
    run(args!["create", store]).refused(4, "exists already");
    assert_eq!(read(&store, 1), b"kept");
}

#[test]
fn a_record_that_is_too_long_is_refused_with_both_lengths() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    run(args!["create", store, "--record-size", "256"]).done_saying("created");
    run_with(args!["write", store, "1"], b"kept").done();
    let refused = run_with(args!["write", store, "1"], [0; 257]).refused(4, "257");
    assert!(refused.err.contains("256"), "{refused:?}");
    assert_eq!(read(&store, 1), b"kept");

    // A store that is created for a record is created for one of its length.
    let absent = dir.path("absent.rec");
    let len = (1 << 20) + 1;
    run_with(args!["write", absent, "1"], vec![7; len]).refused(0, &format!("records of up to {len} bytes"));
    assert_eq!(read(&absent, 1), vec![7; len]);
}

#[test]
fn stat_counts_records_and_names_who_is_attached() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    let mut load = Talk::new(args!["load", store, "--ack"]);
    load.say(r#"{"id":3,"data":"three"}"#);
    assert_eq!(load.hear(), "3");

    let stats = &run(args!["stat", store, "--json"]).done().json()[0];
    assert_eq!(stats["records"], 3);
    let pids: Vec<_> = stats["attached"].as_array().expect("a list").iter().map(|a| &a["pid"]).collect();
    assert!(pids.contains(&&load.pid().into()), "{stats}");
    let sum: u64 =
        stats["regions"].as_array().expect("a list").iter().filter_map(|r| r["records"].as_u64()).sum();
    assert_eq!(sum, 3);
    let text = run(args!["stat", store]).done();
    for part in ["records     3", "geometry", "region", "attached"] {
        assert!(text.text().contains(part), "{part} is not in {}", text.text());
    }
    load.end().1.ended(0, "1 record loaded");
}

#[test]
fn verify_and_repair_find_a_healthy_store_healthy_also_while_it_is_in_use() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    let mut load = Talk::new(args!["load", store, "--ack"]);
    load.say(r#"{"id":3,"data":"three"}"#);
    assert_eq!(load.hear(), "3");

    let before = dump(&store);
    assert!(run(args!["verify", store]).done().text().starts_with("clean: 3 records"));
    let report = &run(args!["verify", store, "--json"]).done().json()[0];
    assert_eq!(
        (&report["clean"], &report["records"], &report["damage"]),
        (&true.into(), &3.into(), &serde_json::json!([]))
    );
    assert_eq!(run(args!["repair", store]).done().text(), "healthy: 3 records, nothing to repair\n");
    assert_eq!(dump(&store), before);

    load.say(r#"{"id":4,"data":"four"}"#);
    assert_eq!(load.hear(), "4");
    load.end().1.ended(0, "2 records loaded");
    assert_eq!(read(&store, 4), b"four");
    assert_eq!(run(args!["repair", store]).done().text(), "healthy: 4 records, nothing to repair\n");
}

#[test]
fn inspect_shows_regions_and_slots() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    run(args!["create", store, "--regions", "2"]).done_saying("created");
    run(args!["write", store, "1", "one"]).done();
    let all = run(args!["inspect", store]).done();
    let of_regions: Vec<_> =
        ["0", "1"].map(|r| run(args!["inspect", store, "--region", r]).done().out).concat();
    assert_eq!(all.out, of_regions);
    let slot = run(args!["inspect", store, "--slot", "0"]).done();
    assert!(slot.text().starts_with("slot 0 at offset "), "{slot:?}");
    run(args!["inspect", store, "--region", "2"]).refused(2, "region");
    run(args!["inspect", store, "--slot", "4294967295"]).refused(2, "slot");
}

#[test]
fn a_key_with_a_time_to_live_shows_its_deadline_and_keeps_it_through_dump_and_load() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"x")]);
    run(args!["write", store, "s/hour", "value", "--ttl", "1h"]).done();
    run(args!["write", store, "s/over", "value", "--ttl", "0s"]).done();
    run(args!["write", store, "s/stays", "value"]).done();
    run(args!["read", store, "s/over"]).refused(1, "no record s/over");
    fn shown<const N: usize>(args: [std::ffi::OsString; N]) -> String {
        String::from_utf8(run(args).done().out).expect("text")
    }
    let end_in = |text: &str| -> u64 {
        let (_, at) = text.split_once("\"expires_ms\":").unwrap_or_else(|| panic!("no deadline in {text}"));
        at.split(|c: char| !c.is_ascii_digit()).next().expect("a number").parse().expect("a number")
    };
    let read = shown(args!["read", store, "s/hour", "--json"]);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let at = end_in(&read);
    assert!((now..=now + 3_600_000).contains(&at), "{at} at {now}");
    assert!(!shown(args!["read", store, "s/stays", "--json"]).contains("expires_ms"));
    let listed = shown(args!["list", store, "--json"]);
    assert_eq!((end_in(&listed), listed.matches("expires_ms").count()), (at, 1));
    let dumped = shown(args!["dump", store]);
    assert_eq!((dumped.lines().count(), dumped.matches("expires_ms").count()), (3, 1));
    let copy = dir.path("copy.rec");
    run_with(args!["load", copy, "-", "--format", "jsonl"], &dumped[..]).ended(0, "3 records loaded");
    assert_eq!(end_in(&shown(args!["dump", copy])), at);
    run(args!["write", store, "1", "x", "--ttl", "1h"]).refused(2, "only keys expire; write SPACE/KEY");
    run(args!["write", store, "s/k", "x", "--ttl", "soon"]).refused(2, "use one such as 30s, 10m, 12h or 7d");
}
