//! `load`: several writer processes, acknowledgements, `kill -9`, Ctrl-C, lines that are no records.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::Signal;

use crate::command::{Dir, Talk, args, children, dump, read, run, run_with, send, store_of, wait_until_gone};

fn unicode_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/UnicodeData.txt")
}

/// The lines of a store that came from delimited lines, sorted.
fn lines_of(store: &Path) -> Vec<String> {
    let objects = run(args!["dump", store]).done().json();
    let mut lines: Vec<String> =
        objects.iter().map(|object| object["data"].as_str().expect("text").to_owned()).collect();
    lines.sort_unstable();
    lines
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn four_writers_load_the_unicode_data() {
    let dir = Dir::new();
    let (store, copy) = (dir.path("u.rec"), dir.path("copy.rec"));
    let file = unicode_data();
    let options = ["--format", "delimited", "--delimiter", ";", "--id-column", "1", "--id-radix", "16"];
    let load = args!["load", store, file, "--writers", "4"].into_iter().chain(options.map(Into::into));
    let loaded = run(load).refused(0, "u.rec: created");
    let expected = "34924 records loaded by 4 writers; 34924 lines in ";
    assert!(loaded.err.contains(expected) && loaded.err.ends_with(" records/s\n"), "{loaded:?}");

    assert_eq!(read(&store, 0x1F980), b"1F980;CRAB;So;0;ON;;;;;N;;;;;");
    assert_eq!(lines_of(&store), sorted_lines(&fs::read_to_string(&file).expect("the Unicode data")));
    assert_eq!(run(args!["stat", store, "--json"]).done().json()[0]["records"], 34_924);
    run(args!["verify", store]).done();

    let dumped = run(args!["dump", store]).done();
    run_with(args!["load", copy, "--writers", "2"], &dumped.out)
        .ended(0, "34924 records loaded by 2 writers");
    assert_eq!(dump(&copy), dumped.sorted());
}

#[test]
fn a_writer_killed_in_the_middle_loses_nothing() {
    let dir = Dir::new();
    let store = dir.path("u.rec");
    let file = unicode_data();
    let options = ["--format", "delimited", "--delimiter", ";", "--id-radix", "16", "--kill-one", "--ack"];
    let load = args!["load", store, file, "--writers", "4"].into_iter().chain(options.map(Into::into));
    let ended = run(load).ended(0, "was killed (signal 9)");
    assert!(ended.err.contains("34924 records loaded by 4 writers; 1 writer killed on the way"), "{ended:?}");
    assert!(!ended.err.contains(" 0 records taken over"), "it was not in the middle of anything: {ended:?}");

    let text = fs::read_to_string(&file).expect("the Unicode data");
    assert_eq!(lines_of(&store), sorted_lines(&text));
    run(args!["verify", store]).done();
    let acknowledged: HashSet<&str> = ended.text().lines().collect();
    assert_eq!((acknowledged.len(), ended.text().lines().count()), (34_924, 34_924), "each id once");
}

#[test]
fn one_writer_of_one_is_replaced_too_also_from_a_pipe() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let lines: String = (0..50_000).map(|id| format!("{id}\tline {id}\n")).collect();
    let load = args!["load", store, "--format", "delimited", "--delimiter", r"\t", "--kill-one"];
    run_with(load, &lines).ended(0, "50000 records loaded by 1 writer; 1 writer killed on the way");
    assert_eq!(lines_of(&store), sorted_lines(&lines));
}

#[test]
fn the_last_line_of_an_id_wins_also_when_its_writer_is_killed() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let lines: String = (0..40_000).map(|n| format!("{},line {n}\n", n % 10)).collect();
    let file = dir.file("lines.csv", lines);
    run(args!["load", store, file, "--format", "delimited", "--writers", "4", "--kill-one"])
        .ended(0, "40000 records loaded by 4 writers; 1 writer killed on the way");
    let expected: Vec<String> = (0..10).map(|id| format!("{id},line {}", 39_990 + id)).collect();
    assert_eq!(lines_of(&store), expected);
}

#[test]
fn an_id_is_acknowledged_at_once_and_its_record_is_there() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack", "--writers", "3"]);
    for id in 0..20_u64 {
        load.say(&format!(r#"{{"id":{id},"data":"record {id}"}}"#));
        // The input stays open: an acknowledgement that waits for more of it hangs here.
        assert_eq!(load.hear(), id.to_string());
        assert_eq!(read(&store, id), format!("record {id}").into_bytes());
    }
    load.say(r#"{"id":"0x1F980","data":"in decimal, however it was written"}"#);
    assert_eq!(load.hear(), "129408");
    let (rest, ended) = load.end();
    ended.ended(0, "21 records loaded by 3 writers");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_writer_killed_from_outside_is_replaced() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack"]);
    load.say(r#"{"id":1,"data":"one"}"#);
    assert_eq!(load.hear(), "1");
    for round in 2..8_u64 {
        let [writer] = children(load.pid())[..] else { panic!("one writer") };
        send(writer, Signal::SIGKILL);
        // Dead or dying: either way the record goes to a live one in the end.
        load.say(&format!(r#"{{"id":{round},"data":"round {round}"}}"#));
        assert_eq!(load.hear(), round.to_string());
        assert_eq!(read(&store, round), format!("round {round}").into_bytes());
    }
    let (_, ended) = load.end();
    let ended = ended.ended(0, "7 records loaded by 1 writer; 6 writers killed on the way");
    assert!(ended.err.contains("writer 1 (process "), "{ended:?}");
}

#[test]
fn the_writers_end_when_the_one_that_deals_is_killed() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack", "--writers", "3"]);
    load.say(r#"{"id":1,"data":"one"}"#);
    assert_eq!(load.hear(), "1");
    let writers = children(load.pid());
    assert_eq!(writers.len(), 3);
    send(load.pid(), Signal::SIGKILL);
    assert_eq!(load.wait().1.code, -9);
    for writer in writers {
        wait_until_gone(writer);
    }
    assert_eq!(read(&store, 1), b"one");
    run(args!["verify", store]).done();
}

#[test]
fn ctrl_c_ends_a_load_that_waits_for_input() {
    let dir = Dir::new();
    for (signal, code) in [(Signal::SIGINT, 2), (Signal::SIGTERM, 15)] {
        let store = store_of(&dir, &format!("{code}.rec"), &[]);
        let mut load = Talk::new(args!["load", store, "--ack", "--writers", "2"]);
        for id in 1..=3 {
            load.say(&format!(r#"{{"id":{id},"data":"x"}}"#));
            load.hear();
        }
        load.interrupt(signal);
        let (rest, ended) = load.wait();
        // By the signal itself: a shell's loop around it ends too.
        let ended =
            ended.ended(-code, "interrupted; 3 records were loaded; to go on, load the same input with");
        assert!(rest.is_empty() && ended.err.lines().count() == 1, "{ended:?}");
        assert_eq!(dump(&store).len(), 3);
    }
}

#[test]
fn ctrl_c_in_the_middle_leaves_whole_records_and_an_exact_count() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack", "--writers", "3", "--format", "delimited"]);
    let mut input = load.take_input();
    let feeding = thread::spawn(move || {
        // Without end, until the load hangs up.
        (0_u64..).take_while(|id| writeln!(input, "{id},the record of {id}").is_ok()).count()
    });
    let mut acknowledged: Vec<String> = (0..1000).map(|_| load.hear()).collect();
    load.interrupt(Signal::SIGINT);
    let (rest, ended) = load.wait();
    acknowledged.extend(rest);
    feeding.join().expect("the input is fed");
    ended.ended(-2, &format!("interrupted; {} records were loaded", acknowledged.len()));

    let mut expected: Vec<String> =
        acknowledged.iter().map(|id| format!("{id},the record of {id}")).collect();
    expected.sort_unstable();
    assert_eq!(lines_of(&store), expected);
    run(args!["verify", store]).done();
}

#[test]
fn a_listener_that_goes_away_ends_the_load_quietly_with_141() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack", "--format", "delimited", "--writers", "2"]);
    let mut input = load.take_input();
    let feeding = thread::spawn(move || (0_u64..).take_while(|id| writeln!(input, "{id},x").is_ok()).count());
    load.hear();
    let ended = load.hang_up();
    assert_eq!((ended.code, ended.err.as_str()), (141, ""));
    feeding.join().expect("the input is fed");
    run(args!["verify", store]).done();
}

#[test]
fn a_bad_line_ends_the_load_with_its_number_after_the_lines_before_it() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let before: String = (1..=5000).map(|id| format!("{id},x\n")).collect();
    let file = dir.file("bad.csv", format!("{before}five,x\n6000,x\n"));
    let ended = run(args!["load", store, file, "--format", "delimited", "--writers", "3"]);
    let ended = ended.refused(4, "bad.csv: line 5001: `five` in column 1 is not an id");
    assert!(ended.err.contains("; 5000 records were loaded"), "{ended:?}");
    assert_eq!(dump(&store).len(), 5000);
    run(args!["read", store, "6000"]).refused(1, "no record");

    let lines = "{\"id\":1,\"data\":\"x\"}\n\n{\"id\":2,\"data\":\n";
    let ended = run_with(args!["load", store], lines).refused(4, "standard input: line 3: not a JSON object");
    assert!(ended.err.contains("; 1 record was loaded"), "{ended:?}");
    let heading = run_with(args!["load", store, "--format", "delimited", "--id-column", "2"], "id\n1\n");
    heading.refused(4, "line 1: there is no column 2");
}

#[test]
fn a_record_that_is_too_long_is_refused_with_line_id_and_both_lengths() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    run(args!["create", store, "--record-size", "256"]).done_saying("created");
    let long = format!("1,fits\n255,{}\n2,after\n", "x".repeat(300));
    let ended = run_with(args!["load", store, "--format", "delimited"], long);
    let ended = ended.refused(4, "line 2: record 255 (0xff) is 304 bytes long and the store takes 256");
    assert!(ended.err.contains("; 1 record was loaded"), "{ended:?}");
    // A line without end: it is not read to its end, and not kept in memory either.
    let endless = vec![b'x'; 8 << 20];
    run_with(args!["load", store], endless).refused(4, "line 1: longer than");
}

#[test]
fn a_full_store_ends_the_load_with_the_line_and_keeps_what_was_acknowledged() {
    let dir = Dir::new();
    let store = dir.path("small.rec");
    run(args!["create", store, "--regions", "1", "--slots-per-extent", "16", "--max-size", "1M"])
        .done_saying("created");
    let lines: String = (1..=20_000).map(|id| format!("{id},{}\n", "x".repeat(200))).collect();
    let file = dir.file("many.csv", lines);
    let ended = run(args!["load", store, file, "--format", "delimited", "--writers", "2", "--ack"]);
    let ended = ended.ended(4, "many.csv: line ");
    assert!(ended.err.contains("no room") && ended.err.lines().count() == 1, "{ended:?}");
    let acknowledged: Vec<&str> = ended.text().lines().collect();
    assert!(ended.err.contains(&format!("; {} records were loaded", acknowledged.len())), "{}", ended.err);
    let there: HashSet<String> = run(args!["list", store, "--json"])
        .done()
        .json()
        .iter()
        .map(|object| object["id"].to_string())
        .collect();
    assert!(!acknowledged.is_empty());
    for id in acknowledged {
        assert!(there.contains(id), "{id} was acknowledged and is not there");
    }
    run(args!["verify", store]).done();
}

#[test]
fn a_last_line_without_newline_and_blank_lines_are_understood() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let load = args!["load", store, "--format", "delimited", "--delimiter", ";", "--id-column", "2"];
    run_with(load, "\na;1\r\n \n\r\nb; 2 ;c\nd;3").ended(0, "3 records loaded");
    // The carriage return belongs to the end of the line.
    assert_eq!(read(&store, 1), b"a;1");
    assert_eq!(read(&store, 2), b"b; 2 ;c");
    assert_eq!(read(&store, 3), b"d;3");
}

#[test]
fn skipped_lines_are_counted_and_not_loaded() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let load = |n: &str| args!["load", store, "--format", "delimited", "--skip-lines", n];
    run_with(load("2"), "id,name\n\n3,c\n4,d\n").ended(0, "2 records loaded");
    assert_eq!((read(&store, 3), read(&store, 4)), (b"3,c".to_vec(), b"4,d".to_vec()));
    // The number in a message is that of the file's line.
    run_with(load("1"), "id,name\n5,e\nsix,f\n").refused(4, "line 3: `six` in column 1");
    run_with(load("9"), "id,name\n5,e").ended(0, "0 records loaded");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    run_with(args!["load", store, "--format", "delimited"], "\u{feff}1,a\n2,\u{feff}\n")
        .ended(0, "2 records loaded");
    assert_eq!((read(&store, 1), read(&store, 2)), (b"1,a".to_vec(), "2,\u{feff}".into()));
    run_with(args!["load", store], "\u{feff}{\"id\":3,\"data\":\"c\"}").ended(0, "1 record loaded");
    assert_eq!(read(&store, 3), b"c");
}

#[test]
fn an_empty_input_loads_nothing_into_a_new_store() {
    let dir = Dir::new();
    let store = dir.path("new.rec");
    let ended = run(args!["load", store, "--writers", "8", "--kill-one"]).refused(0, "created");
    assert!(
        ended.err.contains("0 records loaded by 8 writers; the input was too short to kill"),
        "{ended:?}"
    );
}

#[test]
fn records_longer_than_a_pipe_are_loaded() {
    let dir = Dir::new();
    let store = dir.path("large.rec");
    run(args!["create", store, "--record-size", "3M", "--regions", "2"]).done_saying("created");
    let data: Vec<String> = (0..6).map(|id| id.to_string().repeat(2 << 20)).collect();
    let lines: String =
        data.iter().enumerate().map(|(id, data)| format!("{{\"id\":{id},\"data\":\"{data}\"}}\n")).collect();
    let file = dir.file("large.jsonl", lines);
    run(args!["load", store, file, "--writers", "2", "--kill-one"]).ended(0, "6 records loaded by 2 writers");
    for (id, data) in data.iter().enumerate() {
        assert!(read(&store, id as u64) == data.as_bytes(), "record {id} differs");
    }
}

#[test]
fn a_load_into_a_full_store_counts_what_is_in_it() {
    let dir = Dir::new();
    let store = dir.path("full.rec");
    run(args!["create", store, "--max-size", "4M", "--record-size", "64"]).done_saying("created");
    let lines: String = (1..100_000).map(|id| format!("{{\"id\":{id},\"data\":\"x\"}}\n")).collect();
    for writers in ["1", "3"] {
        let before = &run(args!["stat", store, "--json"]).done().json()[0]["records"];
        let ended = run_with(args!["load", store, "--writers", writers], &lines).ended(4, "no room");
        let after = &run(args!["stat", store, "--json"]).done().json()[0]["records"];
        if before != after {
            assert!(ended.err.contains(&format!("had {before} records, and has {after}:")), "{ended:?}");
        } else {
            assert!(writers == "3" && !ended.err.contains("and has"), "{ended:?}");
        }
    }
}

#[test]
fn a_load_of_lines_that_have_one_id_says_how_many_were_new() {
    let dir = Dir::new();
    let store = dir.path("one.rec");
    let lines = "{\"id\":7,\"data\":\"x\"}\n".repeat(100);
    run_with(args!["load", store], &lines)
        .ended(0, "100 records loaded by 1 writer; 1 of them new, the others replaced records");
}

#[test]
fn a_failed_load_says_that_it_leaves_an_empty_store() {
    let dir = Dir::new();
    let store = dir.path("new.rec");
    run_with(args!["load", store], "no record\n").ended(4, "was created, and is empty");
}

#[test]
fn a_field_that_is_not_known_or_is_there_twice_is_named_with_its_line() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let first = r#"{"id":1,"data":"a"}"#;
    for (line, reason) in [
        (r#"{"id":2,"data":"b","date":"c"}"#, "line 2: the field \"date\" is not known"),
        (r#"{"id":2,"data":"b","data":"c"}"#, "line 2: the field \"data\" is there twice"),
    ] {
        run_with(args!["load", store], format!("{first}\n{line}\n")).refused(4, reason);
        assert_eq!(run(args!["count", store]).done().text().trim(), "1", "{line}");
    }
}
