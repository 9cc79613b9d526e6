//! `load`: CSV, ids that are made, rows that are no records, and how a load that ended early goes on.

use std::fs;

use crate::command::{Dir, args, dump, read, run, run_with, store_of};

const PEOPLE: &str = "\u{feff}id,\"name\",note\r\n1,\"Ann \"\"A\"\"\",\"two\r\nlines\"\r\n\r\n2,Bob,\r\n";

#[test]
fn a_row_of_csv_is_a_record_as_it_stands_there() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    run_with(args!["load", store, "--format", "csv"], PEOPLE)
        .ended(0, "2 records loaded by 1 writer; 5 lines in ");
    assert_eq!(read(&store, 1), b"1,\"Ann \"\"A\"\"\",\"two\r\nlines\"");
    assert_eq!(read(&store, 2), b"2,Bob,");
}

#[test]
fn columns_of_csv_are_chosen_by_name_or_number() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let load = |more: &[&str]| {
        let args = args!["load", store, "--format", "csv"].into_iter();
        args.chain(more.iter().map(Into::into)).collect::<Vec<_>>()
    };
    run_with(load(&["--data-column", "name"]), PEOPLE).ended(0, "2 records");
    assert_eq!((read(&store, 1), read(&store, 2)), (b"Ann \"A\"".to_vec(), b"Bob".to_vec()));
    let text = "a;key\nx;0x1f\n";
    let options = ["--delimiter", ";", "--id-column", "key", "--id-radix", "16", "--data-column", "1"];
    run_with(load(&options), text).ended(0, "1 record");
    assert_eq!(read(&store, 31), b"x");
    run_with(load(&["--no-header", "--id-column", "2"]), "a,7\nb,8").ended(0, "2 records");
    assert_eq!((read(&store, 7), read(&store, 8)), (b"a,7".to_vec(), b"b,8".to_vec()));

    let refused = |more: &[&str], text: &str, why: &str| {
        run_with(load(more), text).refused(4, why);
    };
    refused(&[], "number,name\n1,x\n", "line 1: no column is called \"id\"; the columns are number, name");
    refused(&["--id-column", "3"], PEOPLE, "`two\\r\\nlines` in column 3 is not an id");
    refused(&["--id-column", "4"], PEOPLE, "line 1: there is no column 4");
    refused(&[], "id,x,id\n1,2,3\n", "two columns are called \"id\": give the number, 1 or 3");
    refused(
        &[],
        "id,x\n1,2\n3,4,5\n",
        "line 3: the row has 3 columns and the header has 2; 1 record was loaded",
    );
    refused(&[], "id,x\n1,2\n3,\"4\n5,6\n", "line 3: a quote begins in this row and does not end; 1 record");
    refused(&["--data-column", "y"], "id,x\n1,2\n", "no column is called \"y\"");
}

#[test]
fn what_is_exported_as_csv_is_loaded_byte_for_byte() {
    let dir = Dir::new();
    let every_byte: Vec<u8> = (0..=255).collect();
    let records: [(u64, &[u8]); 5] =
        [(0, b""), (1, b"a,\"b\"\r\nc"), (2, b"\xff"), (3, &every_byte), (u64::MAX, b" spaces ")];
    let first = store_of(&dir, "first.rec", &records);
    for separator in [",", ";", "\\t"] {
        let second = dir.path(&format!("{}.rec", separator.len() + separator.as_bytes()[0] as usize));
        let exported = run(args!["export", first, "--format", "csv", "--separator", separator]).done();
        run_with(args!["load", second, "--format", "csv", "--delimiter", separator], &exported.out)
            .ended(0, "5 records loaded");
        assert_eq!(dump(&second), dump(&first));
    }
}

#[test]
fn ids_are_made_from_the_line_or_from_a_text() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    run_with(args!["load", store, "--format", "csv", "--id-from", "hash:name"], PEOPLE).ended(0, "2 records");
    assert_eq!(run(args!["read", store, "hash:Bob"]).done().out, b"2,Bob,");
    run(args!["read", store, "hash:bob"]).refused(1, "no record");
    run_with(args!["load", store, "--format", "delimited", "--id-from", "line"], "a\n\nc\n")
        .ended(0, "2 records");
    assert_eq!((read(&store, 1), read(&store, 3)), (b"a".to_vec(), b"c".to_vec()));
}

#[test]
fn rows_that_are_no_records_are_passed_over_on_request_and_kept() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let rejects = dir.path("bad.csv");
    let text = "id,x\n1,a\nB,b\n3,c\n4\n5,e\n";
    let load = || args!["load", store, "--format", "csv", "--on-error", "skip", "--rejects", rejects];
    let ended = run_with(load(), text).ended(0, "3 records loaded by 1 writer; 2 lines rejected (see ");
    assert!(ended.err.contains("line 3: `B` in column id is not an id in decimal"), "{ended:?}");
    assert!(ended.err.contains("line 5: the row has 1 column and the header has 2 (rejected)"), "{ended:?}");
    assert_eq!(dump(&store).len(), 3);
    // With the header, so that it can be put right and loaded.
    assert_eq!(fs::read_to_string(&rejects).expect("the rejects"), "id,x\nB,b\n4\n");
    run_with(load(), text).refused(4, "bad.csv: exists already");
    let corrected =
        fs::read_to_string(&rejects).expect("the rejects").replace('B', "2").replace("4\n", "4,d\n");
    run_with(args!["load", store, "--format", "csv"], corrected).ended(0, "2 records loaded");

    // All formats; and no more than ten reasons.
    let json = "{\"id\":1,\"data\":\"x\"}\nno record\n".repeat(30);
    let ended = run_with(args!["load", store, "--on-error", "skip"], json).ended(0, "; 30 lines rejected; ");
    assert_eq!(ended.err.matches("(rejected)").count(), 10, "{ended:?}");
    let small = dir.path("small.rec");
    run(args!["create", small, "--record-size", "256"]).done_saying("created");
    let ended = run_with(
        args!["load", small, "--format", "delimited", "--on-error", "skip", "-q"],
        format!("1,x\nx,y\n2,{}\n", "x".repeat(300)),
    );
    let ended = ended.ended(0, "line 3: record 2 (0x2) is 302 bytes long");
    assert_eq!(ended.err.lines().count(), 2, "{ended:?}");
    run_with(args!["load", store, "--rejects", rejects], "").refused(2, "--on-error skip");
    let unwritable = dir.path("no/such/directory");
    run_with(args!["load", store, "--on-error", "skip", "--rejects", unwritable], "x\n")
        .refused(4, "no/such/directory: No such file");
}

#[test]
fn a_load_that_ended_early_goes_on_where_it_says() {
    let dir = Dir::new();
    let first = dir.path("small.rec");
    run(args!["create", first, "--regions", "1", "--slots-per-extent", "16", "--max-size", "1M"])
        .done_saying("created");
    let lines: String = (1..=20_000).map(|id| format!("{id},{}\n", "x".repeat(200))).collect();
    let file = dir.file("many.csv", format!("id,x\n{lines}"));
    for writers in ["1", "3"] {
        let ended =
            run(args!["load", first, file, "--format", "csv", "--writers", writers]).ended(4, "no room");
        let (_, skip) = ended.err.split_once("--skip-lines ").expect("how to go on");
        let skip: usize = skip.split([';', '\n']).next().expect("a number").parse().expect("a number");
        assert!(writers == "3" || skip > 1, "{ended:?}");
        // Every record of those lines is in.
        let ids: Vec<u64> = run(args!["list", first, "--json"])
            .done()
            .json()
            .iter()
            .map(|o| o["id"].as_u64().expect("an id"))
            .collect();
        for line in 2..=skip {
            assert!(ids.contains(&(line as u64 - 1)), "line {line} is not loaded: {ended:?}");
        }
        fs::remove_file(&first).expect("the store");
        run(args!["create", first, "--regions", "4", "--slots-per-extent", "16", "--max-size", "2M"])
            .done_saying("created");
    }
    let store = store_of(&dir, "b.rec", &[]);
    let text = "id,x\n1,a\nB,b\n3,c\n";
    run_with(args!["load", store, "--format", "csv"], text).refused(4, "with --skip-lines 2");
    run_with(args!["load", store, "--format", "csv", "--skip-lines", "2"], text.replace('B', "2"))
        .ended(0, "2 records loaded");
    assert_eq!(dump(&store).len(), 3);
}
