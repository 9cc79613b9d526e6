//! Several records at once, selections, counters, conditions, comparisons, exports, and what a shell is told.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Dir, args, dump, read, run, run_with, store_of};

const FRUIT: [(u64, &[u8]); 5] =
    [(3, b"cherry"), (1, b"apple pie"), (2, b"Banana"), (300, b"\xff\x00"), (0x1F980, "🦀".as_bytes())];

fn fruit(dir: &Dir) -> PathBuf {
    store_of(dir, "fruit.rec", &FRUIT)
}

fn lines(path: &Path, more: &[&str]) -> Vec<String> {
    let mut all = args!["dump", path].to_vec();
    all.extend(more.iter().map(Into::into));
    run(all).done().text().lines().map(String::from).collect()
}

fn ids(path: &Path, more: &[&str]) -> Vec<u64> {
    let id = |line: &String| {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_u64().expect("an id")
    };
    lines(path, more).iter().map(id).collect()
}

#[test]
fn several_records_are_read_in_the_order_of_the_arguments_with_a_separator() {
    let dir = Dir::new();
    let store = fruit(&dir);
    assert_eq!(run(args!["read", store, "3", "1"]).done().out, b"cherry\napple pie\n");
    assert_eq!(run(args!["get", store, "3", "1", "--separator", ""]).done().out, b"cherryapple pie");
    assert_eq!(run(args!["read", store, "3", "1", "--separator", "\\0"]).done().out, b"cherry\0apple pie\0");
    assert_eq!(run(args!["read", store, "3", "--separator", "\\n"]).done().out, b"cherry\n");
    assert_eq!(run(args!["read", store, "300"]).done().out, b"\xff\x00", "one record is given as it is");
    let objects = run(args!["read", store, "3", "0x1F980", "--json"]).done().json();
    assert_eq!((&objects[0]["data"], &objects[1]["data"]), (&"cherry".into(), &"🦀".into()));
}

#[test]
fn ids_come_from_a_file_too_and_a_wrong_line_is_named() {
    let dir = Dir::new();
    let store = fruit(&dir);
    let file = dir.file("ids", "3\n\n 0x1 \n");
    assert_eq!(run(args!["read", store, "--ids", file]).done().out, b"cherry\napple pie\n");
    assert_eq!(run_with(args!["read", store, "2", "--ids", "-"], "1\n").done().out, b"Banana\napple pie\n");
    let wrong = dir.file("wrong", "3\n1F\n");
    run(args!["read", store, "--ids", wrong]).refused(4, "wrong: line 2: `1F` is not an id");
    run(args!["read", store, "--ids", dir.path("absent")]).refused(4, "absent: No such file");
}

#[test]
fn of_several_records_those_that_are_there_are_printed_and_each_absent_one_is_named() {
    let dir = Dir::new();
    let store = fruit(&dir);
    let ended = run(args!["read", store, "7", "1", "8"]).ended(1, "no record 7 (0x7)");
    assert_eq!(ended.out, b"apple pie\n");
    assert!(ended.err.contains("no record 8 (0x8)"), "{ended:?}");
}

#[test]
fn an_id_that_is_hexadecimal_without_its_mark_is_guessed_at() {
    let dir = Dir::new();
    let store = fruit(&dir);
    run(args!["read", store, "1F980"]).refused(2, "`1F980` is not an id; use 0 to 18446744073709551615");
    run(args!["read", store, "1F980"]).refused(2, "Did you mean 0x1F980?");
    let other = run(args!["read", store, "crab"]).refused(2, "`crab` is not an id");
    assert!(!other.err.contains("Did you mean"), "{other:?}");
}

#[test]
fn a_selection_and_an_order_hold_for_list_and_dump_and_count() {
    let dir = Dir::new();
    let store = fruit(&dir);
    assert_eq!(ids(&store, &["--sort", "id"]), [1, 2, 3, 300, 0x1F980]);
    assert_eq!(ids(&store, &["--sort", "id", "--reverse", "--limit", "2"]), [0x1F980, 300]);
    assert_eq!(ids(&store, &["--sort", "length"]), [300, 0x1F980, 2, 3, 1]);
    assert_eq!(ids(&store, &["--sort", "id", "--from", "2", "--to", "0x12c"]), [2, 3, 300]);
    assert_eq!(ids(&store, &["--match", "^[Bc]", "--sort", "id"]), [2, 3]);
    assert_eq!(ids(&store, &["--match", "(?i)PIE"]), [1]);
    assert_eq!(ids(&store, &["--match", r"(?-u)\xff"]), [300], "bytes that are no text are matched too");
    assert_eq!(ids(&store, &["--prefix", "app"]), [1]);
    assert_eq!(ids(&store, &["--limit", "3"]).len(), 3);
    assert!(ids(&store, &["--from", "5", "--to", "4"]).is_empty());

    let listed = run(args!["list", store, "--sort", "id", "--prefix", "ch"]).done();
    assert!(listed.text().contains("cherry") && listed.text().lines().count() == 1, "{listed:?}");
    let count = |more: &[&str]| {
        let mut all = args!["count", store].to_vec();
        all.extend(more.iter().map(Into::into));
        run(all).done().text().trim().parse::<u64>().expect("a number")
    };
    assert_eq!((count(&[]), count(&["--match", "an"]), count(&["--limit", "2"])), (5, 1, 2));
}

#[test]
fn a_counter_adds_and_tells_the_sum() {
    let dir = Dir::new();
    let store = dir.path("hits.rec");
    assert_eq!(run(args!["add", store, "1", "5"]).done_saying("created").text(), "5\n");
    assert_eq!(run(args!["add", store, "1"]).done().text(), "6\n");
    assert_eq!(run(args!["add", store, "1", "--", "-2"]).done().text(), "4\n");
    assert_eq!(run(args!["add", store, "1", "0"]).done().text(), "4\n");
    assert_eq!(run(args!["add", store, "2", "--", "-1"]).done().text(), format!("{}\n", u64::MAX));
    run(args!["write", store, "3", "text"]).done();
    run(args!["add", store, "3"]).refused(4, "4 bytes");
    assert_eq!(read(&store, 3), b"text");
    assert_eq!(run(args!["add", store, "pages/home", "5"]).done().text(), "5\n");
    assert_eq!(run(args!["add", store, "pages/home", "--", "-2"]).done().text(), "3\n");
    run(args!["write", store, "pages/title", "text"]).done();
    run(args!["add", store, "pages/title"]).refused(4, "is 4 bytes without a shape, and not a counter");
    let read = run(args!["read", store, "pages/home", "pages/title", "--json"]).done().json();
    assert_eq!((read[0]["shape"].as_str(), read[0]["count"].as_u64()), (Some("a counter"), Some(3)));
    assert_eq!((read[1].get("shape"), read[1]["data"].as_str()), (None, Some("text")));
}

#[test]
fn compare_and_swap_writes_only_over_the_version_that_was_read() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let first = run(args!["cas", store, "1", "absent", "one"]).done();
    let first = first.text().trim();
    run(args!["cas", store, "1", "absent", "other"])
        .refused(1, &format!("has version {first}; nothing was written"));
    let second = run_with(args!["cas", store, "1", first], "two").done();
    let second = second.text().trim();
    run(args!["cas", store, "1", first, "three"]).refused(1, &format!("has version {second}"));
    run(args!["cas", store, "2", first, "three"]).refused(1, "record 2 (0x2) is absent");
    assert_eq!(read(&store, 1), b"two");
}

#[test]
fn changes_are_applied_all_or_none() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    let changes = "{\"id\":1,\"delete\":true}\n\n{\"id\":3,\"base64\":\"/w==\",\"if_version\":null}\n{\"id\":2,\"data\":\"zwei\"}\n";
    run_with(args!["apply", store], changes).done_saying("3 changes applied");
    let after = [r#"{"id":2,"data":"zwei"}"#, r#"{"id":3,"base64":"/w=="}"#];
    assert_eq!(dump(&store), after);
    run_with(args!["apply", store], changes).refused(1, "record 3 (0x3) has version");
    assert_eq!(dump(&store), after);
    for (wrong, why) in [
        (
            "{\"id\":9,\"data\":\"x\"}\n{\"id\":1,\"dleete\":true}\n",
            "line 2: the field \"dleete\" is not known",
        ),
        ("{\"id\":9,\"data\":\"x\"}\nnine\n", "line 2: not a JSON object"),
        ("{\"id\":9}\n", "line 1: there is nothing to do"),
    ] {
        run_with(args!["apply", store], wrong).refused(4, why);
        assert_eq!(dump(&store), after, "{wrong}");
    }
    let file = dir.file("more", "{\"id\":4,\"data\":\"four\"}\n");
    let versions = &run(args!["apply", store, file, "--json"]).done().json()[0];
    assert!(versions["versions"]["4"].is_u64(), "{versions}");
}

#[test]
fn diff_names_what_differs_and_its_exit_code_is_that_of_diff() {
    let dir = Dir::new();
    let a = store_of(&dir, "a.rec", &[(1, b"same"), (2, b"old"), (3, b"only here")]);
    let b = store_of(&dir, "b.rec", &[(4, b"only there"), (2, b"new"), (1, b"same")]);
    assert!(run(args!["diff", a, a]).done().out.is_empty());
    let ended = run(args!["diff", a, b]);
    assert_eq!((ended.code, ended.err.as_str()), (1, ""), "{ended:?}");
    let shown: Vec<Vec<&str>> = ended.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(shown[0], ["~", "2", "old", "->", "new"]);
    assert_eq!((&shown[1][..2], &shown[2][..2], shown.len()), (&["-", "3"][..], &["+", "4"][..], 3));
    assert_eq!(run(args!["diff", a, b, "--stat"]).text(), "-1 +1 ~1 =1\n");
    let objects = run(args!["diff", a, b, "--json"]).json();
    assert_eq!(objects[0], serde_json::json!({"id": 2, "change": "changed"}));
    let counts = &run(args!["diff", a, b, "--stat", "--json"]).json()[0];
    assert_eq!(*counts, serde_json::json!({"removed": 1, "added": 1, "changed": 1, "equal": 1}));
    assert!(run(args!["diff", a, b, "--to", "1"]).done().out.is_empty());
    run(args!["diff", a, dir.path("absent.rec")]).refused(4, "absent.rec: no such store");
}

#[test]
fn an_export_is_what_other_programs_read() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(2, b"say \"hi\", twice\n"), (1, b"one"), (3, b"\xff")]);
    let csv = run(args!["export", store, "--format", "csv"]).done();
    let mut reader = csv::Reader::from_reader(&csv.out[..]);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    let cell = |row: usize, column: usize| rows[row].get(column).expect("a cell");
    assert_eq!((cell(0, 0), cell(0, 2), cell(1, 2)), ("1", "one", "say \"hi\", twice\n"));
    assert_eq!((cell(2, 0), cell(2, 2), cell(2, 3)), ("3", "", "/w=="));
    assert!(cell(0, 1).parse::<u64>().is_ok());
    let tabs = run(args!["export", store, "--format", "csv", "--separator", "\\t"]).done();
    assert!(tabs.text().starts_with("id\tversion\tdata\tbase64\n"), "{tabs:?}");

    assert_eq!(run(args!["export", store, "--format", "raw"]).done().out, b"onesay \"hi\", twice\n\xff");
    assert_eq!(run(args!["export", store]).done().text().lines().collect::<Vec<_>>().len(), 3);
    let file = dir.path("out.jsonl");
    run(args!["export", store, "-o", file]).done_saying("3 records exported");
    assert_eq!(fs::read_to_string(&file).expect("the export").lines().count(), 3);
    run(args!["export", store, "-o", file]).refused(4, "out.jsonl: File exists");
    let copy = dir.path("copy.rec");
    run(args!["load", copy, file]).done_saying("3 records");
    assert!(run(args!["diff", store, copy]).done().out.is_empty());
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    run_with(args!["-q", "apply", store_of(&dir, "b.rec", &[])], "{\"id\":1,\"data\":\"x\"}").done();
    run(args!["read", store, "1", "--quiet"]).refused(4, "no such store");
}

#[test]
fn a_shell_and_man_are_told_of_every_command() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(args!["completions", shell]).done();
        for word in ["load", "apply", "completions"] {
            assert!(script.text().contains(word), "{word} for {shell}");
        }
    }
    let pages = dir.path("man/man1");
    run(args!["man", pages]).done_saying("manual pages written");
    let load = fs::read_to_string(pages.join("recstore-load.1")).expect("the page of load");
    assert!(load.contains("\\-\\-writers"), "{load}");
    assert!(pages.join("recstore.1").exists() && !pages.join("recstore-load-writer.1").exists());
}
