//! What is refused before anything is done, and what an absent store gives.

use crate::command::{Dir, args, run, run_with, store_of};

const COMMANDS: [&str; 26] = [
    "create",
    "write",
    "read",
    "delete",
    "add",
    "cas",
    "apply",
    "list",
    "count",
    "diff",
    "load",
    "dump",
    "export",
    "stat",
    "watch",
    "map",
    "top",
    "verify",
    "repair",
    "backup",
    "copy",
    "salvage",
    "shared",
    "inspect",
    "completions",
    "man",
];

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"x")]);
    let new = dir.path("new.rec");
    for wrong in [
        args![].to_vec(),
        args!["frobnicate", store].to_vec(),
        args!["read"].to_vec(),
        args!["read", store].to_vec(),
        args!["read", store, "one"].to_vec(),
        args!["read", store, "-1"].to_vec(),
        args!["read", store, "0x"].to_vec(),
        args!["read", store, "18446744073709551616"].to_vec(),
        args!["read", store, "1", "--json", "--separator", ";"].to_vec(),
        args!["read", store, "1", "--ids"].to_vec(),
        args!["list", store, "--match", "("].to_vec(),
        args!["list", store, "--reverse"].to_vec(),
        args!["list", store, "--limit", "-1"].to_vec(),
        args!["count", store, "--from", "x"].to_vec(),
        args!["add", store, "1", "one"].to_vec(),
        args!["add", store, "1", "9223372036854775808"].to_vec(),
        args!["cas", store, "1", "-1", "x"].to_vec(),
        args!["cas", store, "1", "none", "x"].to_vec(),
        args!["export", store, "--format", "jsonl", "--separator", ";"].to_vec(),
        args!["export", store, "--format", "csv", "--separator", "::"].to_vec(),
        args!["diff", store].to_vec(),
        args!["map", store, "--width", "19"].to_vec(),
        args!["top", store].to_vec(),
        args!["watch", store, "--limit", "x"].to_vec(),
        args!["top", store, "--interval", "0"].to_vec(),
        args!["stat", store, "--json", "--prometheus"].to_vec(),
        args!["completions", "tcsh"].to_vec(),
        args!["read", store, "1", "--lock-timeout", "soon"].to_vec(),
        args!["read", store, "1", "--lock-timeout", "-1"].to_vec(),
        args!["write", store, "1", "data", "--file", "x"].to_vec(),
        args!["create", new, "--record-size", "many"].to_vec(),
        args!["create", new, "--record-size", "0"].to_vec(),
        args!["create", new, "--regions", "0"].to_vec(),
        args!["create", new, "--max-size", "1"].to_vec(),
        args!["create", new, "--mode", "888"].to_vec(),
        args!["load", store, "--writers", "0"].to_vec(),
        args!["load", store, "--writers", "257"].to_vec(),
        args!["load", store, "--format", "xml"].to_vec(),
        args!["load", store, "--id-column", "1"].to_vec(),
        args!["load", store, "--format", "jsonl", "--delimiter", ";"].to_vec(),
        args!["load", store, "--format", "delimited", "--delimiter", "::"].to_vec(),
        args!["load", store, "--format", "delimited", "--id-column", "0"].to_vec(),
        args!["load", store, "--format", "delimited", "--id-radix", "8"].to_vec(),
        args!["load", store, "--format", "delimited", "--id-column", "name"].to_vec(),
        args!["load", store, "--format", "csv", "--no-header", "--data-column", "name"].to_vec(),
        args!["load", store, "--format", "csv", "--delimiter", "→"].to_vec(),
        args!["load", store, "--format", "csv", "--id-from", "hash"].to_vec(),
        args!["load", store, "--format", "csv", "--id-from", "line", "--id-column", "1"].to_vec(),
        args!["load", store, "--id-from", "line"].to_vec(),
        args!["load", store, "--data-column", "1"].to_vec(),
        args!["load", store, "--on-error", "go"].to_vec(),
        args!["load", store, "--rejects", "new"].to_vec(),
        args!["dump", store, "--format", "csv"].to_vec(),
        args!["inspect", store, "--slot", "first"].to_vec(),
    ] {
        let ended = run(&wrong);
        assert_eq!(ended.code, 2, "{wrong:?}: {ended:?}");
        assert!(ended.out.is_empty(), "{wrong:?}: {ended:?}");
        // It names what is wrong: an argument, or what is missing.
        let is_named = |argument: &std::ffi::OsString| ended.err.contains(argument.to_str().unwrap());
        let is_missing = [
            "required arguments were not provided",
            "Usage: recstore [OPTIONS] <COMMAND>",
            "needs a terminal",
        ]
        .iter()
        .any(|what| ended.err.contains(what));
        let named = wrong.iter().skip(1).filter(|argument| **argument != *store).any(is_named);
        assert!(named || is_missing, "{wrong:?}: {ended:?}");
    }
    assert!(!new.exists(), "a store was created from wrong options");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(["--help"]).done();
    for name in COMMANDS {
        assert!(help.text().contains(&format!("\n  {name} ")), "{name} is not in the help");
        let help = run([name, "--help"]).done();
        assert!(help.text().contains("Usage: recstore"), "{name}");
        assert!(help.text().contains("\nExamples:\n  ") || name == "help", "{name} has no examples");
    }
    assert!(help.text().contains("Exit codes:"));
    assert!(!help.text().contains("load-writer"), "what is for the program's own use is shown to users");
    assert_eq!(run(["--version"]).done().text(), concat!("recstore ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn quiet_leaves_what_went_wrong() {
    let dir = Dir::new();
    let (store, copy) = (dir.path("a.rec"), dir.path("b.rec"));
    run(args!["create", store, "-q"]).done();
    run_with(args!["load", store, "-q"], "{\"id\":1,\"data\":\"x\"}\n").done();
    run(args!["backup", store, copy, "-q"]).done();
    run(args!["salvage", store, dir.path("c.rec"), "-q"]).done();
    run(args!["write", dir.path("new.rec"), "1", "x", "-q"]).done();
    run(args!["create", store, "-q"]).refused(4, "exists");
}

#[test]
fn an_absent_store_is_exit_code_4_and_is_not_created_by_looking() {
    let dir = Dir::new();
    let store = dir.path("absent.rec");
    for name in ["list", "dump", "stat", "verify", "repair", "inspect"] {
        run(args![name, store]).refused(4, "absent.rec: no such store");
    }
    run(args!["read", store, "1"]).refused(4, "absent.rec: no such store");
    run(args!["delete", store, "1"]).refused(4, "absent.rec: no such store");
    assert!(!store.exists());
}

#[test]
fn a_file_that_can_not_be_read_is_exit_code_4_and_no_store_is_created() {
    let dir = Dir::new();
    let (store, absent) = (dir.path("new.rec"), dir.path("absent.txt"));
    run(args!["write", store, "1", "--file", absent]).refused(4, "absent.txt: No such file");
    run(args!["load", store, absent]).refused(4, "absent.txt: No such file");
    run(args!["load", store, dir.path("")]).refused(4, "is a directory");
    assert!(!store.exists());
    run(args!["create", dir.path("no/such/directory.rec")]).refused(4, "No such file");
}

#[test]
fn a_path_may_begin_with_a_dash_or_be_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = Dir::new();
    let name = OsStr::from_bytes(b"--\xff \n.rec");
    let here = dir.path("");
    let at_home = |args: &[&OsStr], input: &str| {
        let mut command = crate::command::command(["load", "--writers", "2", "--"]);
        command.args(args).current_dir(&here);
        let input = dir.file("input", input);
        command.stdin(std::fs::File::open(input).expect("the input"));
        crate::command::finish(command.spawn().expect("the command starts"))
    };
    at_home(&[name], "{\"id\":1,\"data\":\"x\"}\n").ended(0, "1 record loaded");
    assert_eq!(run(args!["read", here.join(name), "1"]).done().out, b"x");
}

#[test]
fn a_writer_that_is_started_by_hand_does_no_harm() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"kept")]);
    for nonsense in [&b""[..], b"short", &[0xff; 100], &[0; 8]] {
        let ended = run_with(args!["load-writer", store], nonsense);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    }
    let ended = run_with(args!["load-writer", store], [&[5, 0, 0, 0, 0, 0, 0, 0][..], b"abcde"].concat());
    assert_eq!(ended.code, 4, "{ended:?}");
    assert_eq!(run(args!["read", store, "1"]).done().out, b"kept");
}
