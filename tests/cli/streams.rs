//! `dump` into `load`, readers that go away, outputs that take no more.

use std::fs::File;
use std::io::Read;

use crate::command::{Dir, args, command, dump, finish, run, run_with, store_of};

#[test]
fn what_is_dumped_is_loaded_byte_for_byte() {
    let dir = Dir::new();
    let every_byte: Vec<u8> = (0..=255).collect();
    let records: [(u64, &[u8]); 8] = [
        (0, b""),
        (1, b"plain"),
        (2, b"\xff\xfe\0"),
        (3, &every_byte),
        (4, b"lines\nand\r\n\ttabs \"quoted\" \\"),
        (5, "🦀 é \u{2028} \u{feff}".as_bytes()),
        (u64::MAX, b"\0"),
        (1 << 53 | 1, b"an id that a float can't hold"),
    ];
    let first = store_of(&dir, "first.rec", &records);
    let dumped = run(args!["dump", first]).done();
    assert_eq!(dumped.text().lines().count(), records.len());

    let second = dir.path("second.rec");
    run_with(args!["load", second, "--writers", "3"], &dumped.out)
        .refused(0, "8 records loaded by 3 writers");
    assert_eq!(dump(&second), dump(&first));
    for (id, data) in records {
        assert_eq!(crate::command::read(&second, id), data, "record {id}");
    }
    assert!(dumped.text().contains(r#"{"id":2,"base64":"//4A"}"#), "{}", dumped.text());
    assert!(dumped.text().contains(r#"{"id":1,"data":"plain"}"#), "{}", dumped.text());
}

#[test]
fn keys_are_written_read_deleted_dumped_and_loaded_beside_ids() {
    let dir = Dir::new();
    let store = store_of(&dir, "first.rec", &[(7, b"seven")]);
    for (key, data) in
        [("sessions/user:7", "in"), ("sessions/user:8", "out"), ("carts/a/b", "3 lamps"), ("s/", "")]
    {
        run(args!["write", store, key, data]).done();
        assert_eq!(run(args!["read", store, key]).done().out, data.as_bytes());
    }
    let library = recstore::Store::open(&store).unwrap();
    assert_eq!(library.spaces().unwrap(), ["carts", "s", "sessions"]);
    library.space("s").unwrap().put([0xff], [0xfe]).unwrap();
    drop(library);
    run(args!["delete", store, "sessions/user:8"]).done();
    run(args!["read", store, "sessions/user:8"]).refused(1, "no record sessions/user:8");
    let json = run(args!["read", store, "sessions/user:7", "--json"]).done();
    assert!(json.text().starts_with(r#"{"space":"sessions","key":"user:7","version":"#), "{json:?}");
    let dumped = run(args!["dump", store, "--sort", "id"]).done();
    assert_eq!(
        dumped.text().lines().collect::<Vec<_>>(),
        [
            r#"{"id":7,"data":"seven"}"#,
            r#"{"space":"carts","key":"a/b","data":"3 lamps"}"#,
            r#"{"space":"s","key":"","data":""}"#,
            r#"{"space":"s","key64":"/w==","base64":"/g=="}"#,
            r#"{"space":"sessions","key":"user:7","data":"in"}"#,
        ]
    );
    let second = dir.path("second.rec");
    run_with(args!["load", second, "--writers", "2", "--ack"], &dumped.out).ended(0, "5 records loaded");
    assert_eq!(run(args!["dump", second, "--sort", "id"]).done().out, dumped.out);
    let of_one = run(args!["dump", second, "--space", "sessions"]).done();
    assert_eq!(of_one.text(), "{\"space\":\"sessions\",\"key\":\"user:7\",\"data\":\"in\"}\n");
    assert_eq!(run(args!["diff", store, second, "--stat"]).done().text(), "-0 +0 ~0 =5\n");
    run(args!["write", second, "sessions/user:7", "away"]).done();
    run(args!["delete", second, "carts/a/b"]).done();
    let differs = run(args!["diff", store, second]);
    assert_eq!(differs.code, 1, "{differs:?}");
    let lines: Vec<&str> = differs.text().lines().collect();
    assert_eq!(lines, ["-  carts/a/b  3 lamps", "~ sessions/user:7  in  ->  away"]);
    let listed = run(args!["list", second, "--sort", "id"]).done();
    assert_eq!(listed.text().lines().count(), 4, "{listed:?}");
    assert!(listed.text().contains("sessions/user:7  "), "{listed:?}");
    run(args!["export", second]).ended(0, "without the keys of spaces (s, sessions)");
    run(args!["write", second, "sessions/user:7", "in"]).done();
    run(args!["write", second, "carts/a/b", "3 lamps"]).done();
    // The limit is one for all, and a range of ids has no keys.
    assert_eq!(run(args!["dump", second, "--limit", "3"]).done().text().lines().count(), 3);
    assert_eq!(run(args!["dump", second, "--from", "0"]).done().text().lines().count(), 1);
    run(args!["read", store, "sessions"]).refused(2, "SPACE/KEY");
    let line = format!("{{\"space\":\"s\",\"key\":\"k\",\"data\":\"{}\"}}", "x".repeat(300));
    let small = dir.path("small.rec");
    run(args!["create", small, "--record-size", "256"]).done_saying("created");
    run_with(args!["load", small, "-"], &line).refused(4, "record s/k is 310 bytes long");
    run_with(args!["load", second, "-"], r#"{"space":"a/b","key":"k","data":""}"#)
        .refused(2, "is not a name of a space");
}

#[test]
fn load_takes_what_read_prints_as_json() {
    let dir = Dir::new();
    let first = store_of(&dir, "first.rec", &[(7, b"seven")]);
    let object = run(args!["read", first, "7", "--json"]).done();
    let second = store_of(&dir, "second.rec", &[]);
    run_with(args!["load", second, "-"], object.out).ended(0, "1 record loaded by 1 writer");
    assert_eq!(dump(&second), dump(&first));
}

/// A store whose dump is larger than any pipe.
fn large_store(dir: &Dir) -> std::path::PathBuf {
    let lines: String = (0..20_000).map(|id| format!("{id},{}\n", "x".repeat(100))).collect();
    let store = dir.path("large.rec");
    run_with(args!["load", store, "--format", "delimited", "--writers", "2"], lines)
        .ended(0, "20000 records");
    store
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly_with_141() {
    let dir = Dir::new();
    let store = large_store(&dir);
    for args in [args!["dump", store], args!["list", store]] {
        let mut child = command(&args).spawn().expect("the command starts");
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut [0]).expect("a first byte");
        drop(out);
        let ended = finish(child);
        assert_eq!((ended.code, ended.err.as_str()), (141, ""), "{args:?}");
    }
    run(args!["verify", store]).done();
}

#[test]
fn an_output_that_is_full_is_exit_code_4() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one")]);
    for args in [
        args!["read", store, "1"].to_vec(),
        args!["list", store].to_vec(),
        args!["dump", store].to_vec(),
        args!["stat", store].to_vec(),
        args!["verify", store].to_vec(),
        args!["inspect", store].to_vec(),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("the full device");
        let child = command(&args).stdout(full).spawn().expect("the command starts");
        finish(child).ended(4, "standard output: No space left on device");
    }
}

#[test]
fn nobody_at_standard_error_is_no_failure() {
    let dir = Dir::new();
    let store = dir.path("new.rec");
    let full = || File::options().write(true).open("/dev/full").expect("the full device");
    let child = command(args!["write", store, "1", "x"]).stderr(full()).spawn().expect("the command starts");
    assert_eq!(finish(child).code, 0);
    let child = command(args!["read", store, "2"]).stderr(full()).spawn().expect("the command starts");
    assert_eq!(finish(child).code, 1);
}

#[test]
fn a_file_that_is_called_dash_is_a_stream_and_never_created() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"one"), (2, b"two")]);
    let here = |args: &[std::ffi::OsString], input: &str| {
        let input = dir.file("input", input);
        let mut command = command(args);
        command.current_dir(dir.path("")).stdin(File::open(input).expect("the input"));
        let ended = finish(command.spawn().expect("the command starts"));
        assert!(!dir.path("-").exists(), "{args:?} has made a file that is called -");
        ended
    };
    let exported = here(&args!["export", store, "-o", "-", "--format", "raw", "--separator", ";"], "");
    assert_eq!(exported.done().out, b"one;two;");
    assert!(here(&args!["map", store, "--svg", "-"], "").done().text().starts_with("<svg "));
    here(&args!["write", store, "3", "--file", "-"], "three").done();
    assert_eq!(crate::command::read(&store, 3), b"three");
    here(&args!["read", store, "--ids", "-"], "2\n").done();
    here(&args!["load", store, "-"], "{\"id\":4,\"data\":\"x\"}").ended(0, "1 record");
    here(&args!["load", store, "--on-error", "skip", "--rejects", "-"], "x\n")
        .refused(2, "--rejects needs a file");
    here(&args!["apply", store, "-"], "{\"id\":4,\"delete\":true}").ended(0, "1 change");
}

#[test]
fn there_is_no_progress_bar_in_a_pipe() {
    let dir = Dir::new();
    let store = large_store(&dir);
    for args in [args!["dump", store], args!["verify", store], args!["list", store]] {
        // Whatever is on standard error fails this.
        run(args).done();
    }
}
