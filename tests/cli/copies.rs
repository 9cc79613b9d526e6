//! `backup`, `copy`, `salvage` and `ls`: copies of a store that is in use or destroyed, and stores in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recstore::{Store, Ttl};

use crate::command::{Dir, args, dump, read, run, store_of};

const VICTIM: &[u8] = b"the record whose bytes are going to be damaged";

/// Flips a bit of the one place in a file that holds the victim.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("the store");
    let at = bytes.windows(VICTIM.len()).position(|w| w == VICTIM).expect("the victim is in the file");
    bytes[at + 10] ^= 4;
    fs::write(path, bytes).expect("the store");
}

#[test]
fn a_backup_has_the_records_while_the_store_is_in_use() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two"), (u64::MAX, b"last")]);
    let copy = dir.path("copy.rec");
    let in_use = Store::open(&store).expect("the store");
    in_use.put(3, b"by another process").expect("a write");
    assert!(in_use.delete(2).expect("a deletion"));
    run(args!["backup", store, copy]).refused(0, "3 records copied");
    in_use.put(3, b"later").expect("a write");
    run(args!["verify", copy]).done();
    assert_eq!(read(&copy, 3), b"by another process");
    assert_eq!(dump(&copy).len(), 3);
    run(args!["read", copy, "2"]).refused(1, "no record 2");
    assert_eq!(read(&store, 3), b"later");
    drop(in_use);
    run(args!["verify", store]).done();
}

#[test]
fn a_backup_never_replaces_a_file_and_leaves_nothing_when_it_fails() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, VICTIM)]);
    let there = dir.file("there", "something else");
    run(args!["backup", store, there]).refused(4, "exists already");
    assert_eq!(fs::read(&there).expect("the file"), b"something else");
    run(args!["backup", store, store]).refused(4, "exists already");
    let copy = dir.path("copy.rec");
    run(args!["backup", dir.path("absent.rec"), copy]).refused(4, "no such store");
    run(args!["backup", there, copy]).refused(5, "not a recstore file");
    run(args!["backup", store, dir.path("no/such/directory")]).refused(4, "");
    flip(&store);
    run(args!["backup", store, copy]).refused(3, "0x2");
    assert!(!copy.exists(), "a copy without a record is left");
    run(args!["backup", store]).refused(2, "COPY");
    assert_eq!(read(&store, 1), b"one");
}

#[test]
fn a_copy_has_the_records_that_were_chosen_in_the_geometry_that_was_asked_for() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two"), (30, b"thirty")]);
    run(args!["write", store, "sessions/user:7", "logged in", "--ttl", "1h"]).done();
    run(args!["write", store, "pages/home", "two"]).done();
    let in_use = Store::open(&store).expect("the store");
    let copy = dir.path("copy.rec");
    run(args!["copy", store, copy, "--regions", "3", "--record-size", "4K"])
        .refused(0, "5 records copied; it takes ");
    assert_eq!(dump(&copy), dump(&store));
    let stat = run(args!["stat", copy, "--json"]).done().json().remove(0);
    assert_eq!((stat["regions"].as_array().map(Vec::len), &stat["record_size"]), (Some(3), &4096.into()));
    drop(in_use);
    for (n, (options, lines)) in [
        (&["--space", "pages"][..], &[r#"{"space":"pages","key":"home","data":"two"}"#][..]),
        (&["--from", "2", "--to", "29"], &[r#"{"id":2,"data":"two"}"#]),
        (&["--match", "^T"], &[]),
        (
            &["--prefix", "tw"],
            &[r#"{"id":2,"data":"two"}"#, r#"{"space":"pages","key":"home","data":"two"}"#],
        ),
        (&["--space", "absent", "--slots-per-extent", "64"], &[]),
        (
            &["--match", "(?i)^T", "--space", "pages", "--slots-per-extent", "none", "--mode", "640"],
            &[r#"{"space":"pages","key":"home","data":"two"}"#],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let copy = dir.path(&format!("copy{n}.rec"));
        let mut all = args!["copy", store, copy].to_vec();
        all.extend(options.iter().map(Into::into));
        let copied = run(&all).done_saying("copied; it takes ");
        assert!(copied.err.contains(&format!("{} record", lines.len())), "{copied:?}");
        assert_eq!(dump(&copy), lines, "{options:?}");
    }
}

#[test]
fn a_copy_with_a_limit_has_so_many_records_and_keys() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two"), (30, b"thirty")]);
    let sessions = Store::open(&store).expect("the store");
    let sessions = sessions.space("sessions").expect("a name");
    for key in ["a", "b"] {
        sessions.put_with(key, b"value", Ttl::after(Duration::from_secs(60))).expect("a write");
        sessions.touch(key, Ttl::after(Duration::from_secs(600))).expect("a later deadline");
    }
    for (limit, expected) in [(0, 0), (1, 1), (4, 4), (5, 5), (100, 5)] {
        let copy = dir.path(&format!("copy{limit}.rec"));
        run(args!["copy", store, copy, "--limit", limit.to_string()]).done_saying("copied; it takes ");
        assert_eq!(dump(&copy).len(), expected);
        let keys = dir.path(&format!("keys{limit}.rec"));
        run(args!["copy", store, keys, "--limit", limit.to_string(), "--space", "sessions"])
            .done_saying("copied");
        let copied = dump(&keys);
        assert_eq!(copied.len(), expected.min(2));
        let whole = dump(&store);
        assert!(copied.iter().all(|line| whole.contains(line)), "{copied:?}, and the store has {whole:?}");
    }
}

#[test]
fn a_copy_never_replaces_a_file_and_of_a_damaged_store_it_names_the_command_that_helps() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, VICTIM)]);
    let there = dir.file("there", "something else");
    run(args!["copy", store, there]).refused(4, "exists already");
    run(args!["copy", store, store]).refused(4, "exists already");
    run(args!["copy", dir.path("absent.rec"), dir.path("b.rec")]).refused(4, "no such store");
    let copy = dir.path("copy.rec");
    run(args!["copy", store, copy, "--record-size", "5"]).refused(4, "at most 5");
    run(args!["copy", store, copy, "--slots-per-extent", "some"]).refused(2, "`some` is no number of slots");
    run(args!["copy", store, copy, "--regions", "0"]).refused(2, "0");
    flip(&store);
    run(args!["copy", store, copy]).refused(3, "`recstore salvage ");
    assert!(!copy.exists(), "a copy without a record is left");
    assert_eq!(read(&store, 1), b"one");
}

#[test]
fn a_copy_of_a_store_in_use_is_told_from_the_store() {
    let dir = Dir::new();
    let path = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    let store = Store::open(&path).expect("the store");
    store.put(1, b"newer").expect("a write");
    let copy = dir.path("copy.rec");
    fs::copy(&path, &copy).expect("a copy of the file");
    run(args!["verify", copy]).ended(3, "copy of a file that was in use");
}

#[test]
fn salvage_saves_what_is_whole_and_names_what_is_not() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, VICTIM), (3, b"three")]);
    flip(&store);
    let before = fs::read(&store).expect("the store");
    let out = dir.path("out.rec");
    let salvaged = run(args!["salvage", store, out]).ended(3, "1 record is lost");
    assert!(salvaged.err.contains("2 records saved"), "{salvaged:?}");
    assert_eq!(salvaged.text().lines().count(), 1, "{salvaged:?}");
    assert!(salvaged.text().starts_with("lost: ") && salvaged.text().contains("0x2"), "{salvaged:?}");
    assert_eq!(dump(&out), [r#"{"id":1,"data":"one"}"#, r#"{"id":3,"data":"three"}"#]);
    run(args!["verify", out]).done();
    assert!(fs::read(&store).expect("the store") == before, "what is salvaged from is changed");

    run(args!["salvage", store, out]).refused(4, "exists already");
    assert_eq!(dump(&out).len(), 2);
    let report = &run(args!["salvage", store, dir.path("json.rec"), "--json"]).ended(3, "lost").json()[0];
    assert_eq!(report["records"], 2);
    assert_eq!(report["lost"].as_array().expect("a list").len(), 1, "{report}");
    assert_eq!(report["lost"][0]["id"], 2);
}

/// The count in a line as `missing: region 3: 7 records missing: ...`.
fn missing_in(line: &str) -> u64 {
    let count = line.strip_prefix("missing: region ").and_then(|rest| rest.split_whitespace().nth(1));
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn repair_of_a_store_with_a_wiped_extent_counts_what_is_gone_and_ends_with_3() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let lines: String = (10..3000).map(|id| format!("{{\"id\":{id},\"data\":\"record {id}\"}}\n")).collect();
    run(args!["load", store, dir.file("lines", lines)]).done_saying("2990 records loaded");
    let mut bytes = fs::read(&store).expect("the store");
    let begins: Vec<usize> =
        (0..bytes.len()).step_by(4096).filter(|&at| bytes[at..].starts_with(b"rec-extn")).collect();
    bytes[begins[1]..begins[2]].fill(0);
    fs::write(&store, &bytes).expect("the store");
    let verified = run(args!["verify", store, "--json"]).ended(3, "damaged");
    let told: u64 = verified.json()[0]["missing"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|missing| missing["records"].as_u64().expect("a count"))
        .sum();
    let repaired = run(args!["repair", store]).ended(3, "lost");
    let missing: u64 = repaired.text().lines().filter(|l| l.starts_with("missing: ")).map(missing_in).sum();
    assert!(missing > 0);
    assert_eq!(missing, told);
    assert_eq!(dump(&store).len() as u64 + missing, 2991, "{repaired:?}");
    assert!(run(args!["repair", store]).done().text().starts_with("healthy"), "once is enough");
}

#[test]
fn salvage_takes_a_file_that_does_not_open() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let lines: String = (10..3000).map(|id| format!("{{\"id\":{id},\"data\":\"record {id}\"}}\n")).collect();
    run(args!["load", store, dir.file("lines", lines)]).done_saying("2990 records loaded");
    let whole = fs::read(&store).expect("the store");

    // Shorter than it was, by its last extents.
    let cut = dir.file("cut.rec", &whole[..whole.len() * 2 / 3]);
    run(args!["read", cut, "1"]).refused(3, "cut off");
    let out = dir.path("of-cut.rec");
    let salvaged = run(args!["salvage", cut, out]).ended(3, "records are lost");
    let saved = dump(&out);
    // The end of the file may lie in a slot, whose header names the record.
    let (cut_slots, others): (Vec<_>, Vec<_>) =
        salvaged.text().lines().partition(|line| line.starts_with("lost: "));
    assert!(cut_slots.len() <= 1, "{salvaged:?}");
    let missing: u64 = others.into_iter().map(missing_in).sum();
    assert_eq!((saved.len() + cut_slots.len()) as u64 + missing, 2991, "{salvaged:?}");
    let json = &run(args!["salvage", cut, dir.path("json.rec"), "--json"]).ended(3, "lost").json()[0];
    let told = json["missing"].as_array().expect("a list").iter();
    assert_eq!(told.map(|m| m["records"].as_u64().expect("a count")).sum::<u64>(), missing, "{json}");
    assert!(saved.len() > 500 && saved.len() < 2991, "{} records", saved.len());
    let all = dump(&store);
    assert!(saved.iter().all(|line| all.contains(line)), "salvage makes nothing up");

    // Nothing is left but the slots.
    let mut bytes = whole.clone();
    let first = whole.windows(8).position(|w| w == b"rec-extn").expect("an extent");
    bytes[..first].fill(0xff);
    let beheaded = dir.file("beheaded.rec", bytes);
    run(args!["verify", beheaded]).refused(5, "not a recstore file");
    let out = dir.path("of-beheaded.rec");
    run(args!["salvage", beheaded, out]).refused(0, "2991 records saved");
    assert_eq!(dump(&out), all);

    let none = dir.path("none.rec");
    run(args!["salvage", dir.file("text", "no store at all".repeat(1000)), none]).refused(5, "text");
    run(args!["salvage", dir.path("absent"), none]).refused(4, "no such store");
    run(args!["salvage", store, none, "--record-size", "many"]).refused(2, "many");
    assert!(!none.exists());
}

/// A name of a store in memory that nobody else has, whose file goes when this is dropped.
struct Name(String);

impl Name {
    fn new(of: &str) -> Self {
        Self(format!("test-cli-{of}-{}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/recstore.{}", self.0))
    }

    /// What `ls` says of it, if anything.
    fn listed(&self) -> Option<String> {
        let listed = run(["shared"]).done();
        let mut lines = listed.text().lines().filter(|line| line.starts_with(&format!("{}  ", self.0)));
        let line = lines.next().map(str::to_owned);
        assert_eq!(lines.next(), None, "listed twice");
        line
    }

    fn as_json(&self) -> Option<serde_json::Value> {
        run(["shared", "--json"]).done().json().into_iter().find(|object| object["name"] == *self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

#[test]
fn ls_shows_who_is_attached_and_what_the_dead_have_left() {
    let name = Name::new("ls");
    assert_eq!(name.listed(), None);
    let store = Store::shared(&name.0).expect("a store in memory");
    store.put(1, b"one").expect("a write");
    store.put(2, b"two").expect("a write");
    let us = std::process::id();
    let line = name.listed().expect("a line");
    assert!(line.contains("  2 records  ") && line.ends_with(&format!("attached: {us}")), "{line}");
    let object = name.as_json().expect("an object");
    assert_eq!(object["records"], 2);
    assert_eq!(object["attached"], serde_json::json!([us]));
    assert_eq!(object["path"], name.path().to_str().expect("text"));
    assert!(object["allocated_size"].as_u64() > Some(0), "{object}");
    drop(store);
    assert_eq!(name.listed(), None, "it is gone with its last user");

    // As the dead leave one: it is there, and nobody is attached.
    let left = Store::create(name.path()).expect("a file");
    left.put(1, b"left").expect("a write");
    drop(left);
    let line = name.listed().expect("a line");
    assert!(line.contains("  1 record  ") && line.ends_with("no process attached"), "{line}");
    assert_eq!(name.as_json().expect("an object")["attached"], serde_json::json!([]));
}

#[test]
fn ls_says_why_a_store_does_not_open() {
    let name = Name::new("foreign");
    fs::write(name.path(), "no store").expect("a file");
    let line = name.listed().expect("a line");
    assert!(line.contains("not a recstore file"), "{line}");
    let error = name.as_json().expect("an object")["error"].to_string();
    assert!(error.contains("not a recstore file"), "{error}");
    run(args!["shared", "surplus"]).refused(2, "surplus");
}
