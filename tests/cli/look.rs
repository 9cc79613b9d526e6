//! What a look at a store tells: the verdict, processes that are stopped or dead, the map, metrics.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use crate::command::{Dir, Talk, args, run, run_with, send, store_of, wait_until_gone};

fn verdict(store: &Path) -> String {
    let shown = run(args!["stat", store]).done();
    shown.text().lines().next().expect("a verdict").to_owned()
}

#[test]
fn the_first_line_of_stat_is_a_verdict() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    assert_eq!(verdict(&store), "healthy; no process is attached; all of it is on disk");
    let mut load = Talk::new(args!["load", store, "--ack"]);
    load.say(r#"{"id":3,"data":"three"}"#);
    assert_eq!(load.hear(), "3");
    let used = verdict(&store);
    assert!(used.starts_with("healthy; in use by 2 processes; writes since the last flush"), "{used}");
    assert_eq!(run(args!["stat", store, "--json"]).done().json()[0]["verdict"], used.as_str());

    send(load.pid(), Signal::SIGSTOP);
    let shown = run(args!["stat", store]).done();
    let attached = shown.text().lines().find(|line| line.contains(&format!(" {} ", load.pid())));
    let attached = attached.unwrap_or_else(|| panic!("{shown:?}"));
    assert!(attached.contains("stopped") && attached.contains("--ack"), "{attached}");
    send(load.pid(), Signal::SIGKILL);
    wait_until_gone(load.pid());
    let left = verdict(&store);
    assert!(left.contains("not safe from a loss of power"), "{left}");
}

#[test]
fn regions_are_shown_when_they_are_asked_for() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let lines = |more: &[&str]| {
        let mut all = args!["stat", store].to_vec();
        all.extend(more.iter().map(Into::into));
        run(all).done().text().lines().count()
    };
    assert_eq!(lines(&["--regions"]), lines(&[]) + 18, "a blank line, a heading, sixteen regions");
}

#[test]
fn metrics_have_a_type_each_and_the_store_as_their_label() {
    let dir = Dir::new();
    let store = store_of(&dir, "a \"b\".rec", &[(1, b"one"), (2, b"two")]);
    let shown = run(args!["stat", store, "--prometheus"]).done();
    let text = shown.text();
    assert!(text.contains("# TYPE recstore_records gauge\n"), "{text}");
    let label = store.to_string_lossy().replace('"', "\\\"");
    assert!(text.contains(&format!("recstore_records{{store=\"{label}\"}} 2\n")), "{text}");
    let (samples, types) =
        (text.lines().filter(|l| !l.starts_with('#')).count(), text.matches("# TYPE").count());
    assert!(samples == types && samples > 10, "{text}");
}

#[test]
fn the_map_fits_its_width_and_has_a_cell_for_every_extent() {
    let dir = Dir::new();
    let store = dir.path("a.rec");
    run(args!["create", store, "--regions", "2", "--slots-per-extent", "16", "--record-size", "64"])
        .done_saying("created");
    let lines: String = (0..1000).map(|id| format!("{{\"id\":{id},\"data\":\"record {id}\"}}\n")).collect();
    run_with(args!["load", store], lines).done_saying("1000 records");
    let extents = run(args!["stat", store, "--json"]).done().json()[0]["extents"].as_u64().expect("a number");
    for (more, width) in [(&["--width", "60"][..], 60), (&["--width", "20", "--ascii"], 20), (&[], 80)] {
        let mut all = args!["map", store].to_vec();
        all.extend(more.iter().map(Into::into));
        let shown = run(all).done();
        let rows: Vec<&str> = shown.text().lines().collect();
        let cells = &rows[1..rows.len() - 1];
        assert!(cells.iter().all(|row| row.chars().count() <= width), "{shown:?}");
        assert!(!shown.text().contains('\x1b'), "no colour but on a terminal");
        let count: usize = cells.iter().map(|row| row.trim().chars().count()).sum();
        assert_eq!(count as u64, extents, "{shown:?}");
        assert_eq!(more.contains(&"--ascii"), shown.text().is_ascii(), "{shown:?}");
    }
}

#[test]
fn the_map_shows_where_the_damage_is() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"a record that is going to be damaged"), (2, b"two")]);
    let mut bytes = fs::read(&store).expect("the store");
    let at = bytes.windows(9).position(|part| part == b"a record ").expect("the record");
    bytes[at] ^= 1;
    fs::write(&store, bytes).expect("the store");
    let shown = run(args!["map", store, "--verify", "--ascii"]).ended(3, "damaged in 1 place");
    let rows: Vec<&str> = shown.text().lines().collect();
    assert!(rows[1].contains('X'), "{shown:?}");
    assert!(rows.last().is_some_and(|line| line.starts_with("damaged: region ")), "{shown:?}");
}

#[test]
fn the_map_is_drawn_into_a_new_file() {
    let dir = Dir::new();
    let store = store_of(&dir, "<a&b>.rec", &[(1, b"one")]);
    for by in ["region", "fill", "age"] {
        let picture = dir.path(&format!("{by}.svg"));
        run(args!["map", store, "--svg", picture, "--by", by]).done_saying("drawn");
        let text = fs::read_to_string(&picture).expect("the picture");
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
        assert!(text.contains("&lt;a&amp;b&gt;") && text.matches("<rect").count() > 1, "{text}");
        run(args!["map", store, "--svg", picture]).refused(4, "File exists");
    }
}

#[test]
fn top_gives_a_sample_with_rates_and_who_is_attached() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut load = Talk::new(args!["load", store, "--ack"]);
    load.say(r#"{"id":3,"data":"three"}"#);
    assert_eq!(load.hear(), "3");
    let mut input = load.take_input();
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let feeding = std::thread::spawn(move || {
        for id in (0..50).cycle() {
            let line = format!("{{\"id\":{id},\"data\":\"x\"}}\n");
            if is_done.load(Ordering::Relaxed) || input.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let sample = loop {
        let sample = run(args!["top", store, "--json", "--interval", "0.05"]).done().json().remove(0);
        if sample["writes_per_second"].as_f64().is_some_and(|rate| rate > 0.0) {
            break sample;
        }
    };
    let pids: Vec<_> = sample["processes"].as_array().expect("a list").iter().map(|p| &p["pid"]).collect();
    assert!(pids.contains(&&load.pid().into()), "{sample}");
    done.store(true, Ordering::Relaxed);
    feeding.join().expect("the input is fed");
    send(load.pid(), Signal::SIGKILL);
}

#[test]
fn watch_tells_what_is_there_and_then_every_change_until_its_reader_goes() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    let mut all = Talk::new(args!["watch", store, "--json"]);
    assert!(all.hear().starts_with(r#"{"id":1,"change":"written","version":1,"data":"one"}"#));
    let mut one = Talk::new(args!["watch", store, "2"]);
    let mut new = Talk::new(args!["watch", store, "--json", "--from-now", "--limit", "2"]);
    // It has begun when it tells of a change; each is told of at most once.
    let mut n = 0;
    let heard = std::thread::scope(|scope| {
        let hearing = scope.spawn(|| new.hear());
        while !hearing.is_finished() {
            n += 1;
            run(args!["write", store, "7", n.to_string()]).done();
        }
        hearing.join().expect("a line")
    });
    assert!(heard.starts_with(r#"{"id":7,"change":"written""#), "what was there before is not told: {heard}");
    run(args!["write", store, "2", "two"]).done();
    let written = one.hear();
    assert!(written.starts_with("written") && written.ends_with(" two"), "{written}");
    run(args!["delete", store, "2"]).done();
    assert!(one.hear().split_whitespace().eq(["deleted", "2"]));
    new.wait().1.done();
    while all.hear() != r#"{"id":2,"change":"deleted"}"# {}
    all.interrupt(Signal::SIGTERM); // A test that runs in the background passes SIGINT on as ignored.
    let (_, ended) = all.wait();
    assert_eq!(ended.code, -15, "{ended:?}");
    run(args!["write", store, "2", "again"]).done();
    let _ = one.hear();
    send(one.pid(), Signal::SIGKILL);
}

#[test]
fn stat_shows_data_and_idle_room_by_the_length_of_the_slots_and_the_cost_of_a_record() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, &[b'x'; 60]), (2, &[b'x'; 64]), (3, &[b'x'; 900])]);
    let cheap = run(args!["stat", store, "--json"]).done().json().remove(0);
    let classes = cheap["classes"].as_array().expect("a list");
    assert!(
        classes.iter().all(|class| class["used_slots"].is_null() && class["idle_bytes"].is_null()),
        "{cheap}"
    );
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no number"));
    assert_eq!(number(&cheap["bytes_per_record"]), number(&cheap["allocated_size"]) / 3);

    let object = run(args!["stat", store, "--json", "--classes"]).done().json().remove(0);
    let classes = object["classes"].as_array().expect("a list");
    let sum = |key: &str| classes.iter().map(|class| number(&class[key])).sum::<u64>();
    assert_eq!((sum("data_bytes"), sum("used_slots"), sum("slots")), (1024, 3, number(&object["slots"])));
    assert_eq!(sum("fresh_slots"), number(&object["free_slots"]));
    let used: Vec<(u64, u64)> =
        classes.iter().map(|class| (number(&class["slot_size"]), number(&class["used_slots"]))).collect();
    assert_eq!(used, [(96, 2), (960, 1)]);
    for class in classes {
        let [slot, slots, used] = ["slot_size", "slots", "used_slots"].map(|key| number(&class[key]));
        assert_eq!(number(&class["idle_bytes"]), (slots - used) * slot);
        assert!(number(&class["bytes"]) > slots * slot, "{class}");
    }

    let text = run(args!["stat", store, "--classes"]).done();
    let cost = format!("cost        {} bytes on disk for each record", number(&object["bytes_per_record"]));
    assert!(text.text().lines().any(|line| line == cost), "{text:?}");
    let line =
        text.text().lines().find(|line| line.trim_start().starts_with("96 ")).expect("a line for 96 bytes");
    assert_eq!(line.split_whitespace().nth(3), Some("2"), "{text:?}");
    run(args!["delete", store, "3"]).done();
    let object = run(args!["stat", store, "--json", "--classes"]).done().json().remove(0);
    let idle: Vec<u64> =
        object["classes"].as_array().expect("a list").iter().map(|c| number(&c["used_slots"])).collect();
    assert!(idle[1] <= 1 && idle[0] >= 2, "{object}");
}
