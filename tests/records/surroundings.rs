//! What others do to a file that is open, and what the system allows a process: limits, descriptors, names, core dumps,
//! address space.
//!
//! Fails when: a limit on the length of files kills a process; a file that is not the store's is extended, flushed or
//! closed; a flush into a file without a name says that all is well; a core dump would walk what is reserved; handles
//! and snapshots of one process run out of address space; records are refused though none is gone; a hole of any
//! length behind the last record is read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::{self, Me};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use recstore::{Durability, Error, Options, Store};

fn tiny() -> Options {
    Options::new().regions(1).record_size(64).slots_per_extent(64)
}

/// Every descriptor of this process that leads to the file.
fn descriptors_of(path: &Path) -> Vec<i32> {
    let path = path.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|entry| {
        let entry = entry.ok()?;
        (std::fs::read_link(entry.path()).ok()? == path).then(|| entry.file_name().to_str()?.parse().ok())?
    })
    .collect()
}

/// A worker whose files may not be longer than a limit, and whom SIGXFSZ would kill.
fn limited(me: &mut Me) {
    let dir = PathBuf::from(me.var("DIR"));
    let (path, copy) = (dir.join("store"), dir.join("copy"));
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let limit = |bytes| setrlimit(Resource::RLIMIT_FSIZE, bytes, hard).unwrap();

    limit(64 << 10);
    match tiny().create(&path) {
        Err(e @ Error::Full { .. }) => assert!(e.to_string().contains("ulimit -f"), "{e}"),
        other => panic!("created beyond the limit: {other:?}"),
    }
    assert!(!path.exists(), "a creation that failed left something");

    limit(400 << 10);
    let store = tiny().create(&path).unwrap();
    let mut put = 0;
    let refused = (0..100_000u64).find_map(|id| {
        put = id;
        store.put(id, &[7; 64]).err()
    });
    match refused {
        Some(e @ Error::Full { .. }) => assert!(e.to_string().contains("ulimit -f"), "{e}"),
        other => panic!("put beyond the limit: {other:?}"),
    }
    assert!(put > 1000, "{put} records in 400 KiB");
    assert!((0..put).all(|id| store.get(id).unwrap().is_some()));
    assert!(store.delete(0).unwrap());
    store.put(100_000, &[8; 64]).unwrap();

    limit(200 << 10);
    match store.backup(&copy) {
        Err(e @ Error::Full { .. }) => assert!(e.to_string().contains("ulimit -f"), "{e}"),
        other => panic!("copied beyond the limit: {other:?}"),
    }
    assert!(!copy.exists(), "a copy that failed left something");
    // What is there can be written though it lies beyond the limit.
    assert!(store.delete(1).unwrap());
    store.put(put - 1, &[9; 64]).unwrap();
    store.sync().unwrap();
    store.close().unwrap();

    // Pages of large records are made by writing zeros, which the limit forbids as well: inside of the file, too.
    let large = Options::new().regions(1).record_size(16 << 10).slots_per_extent(64);
    limit(hard);
    let store = large.create(dir.join("large")).unwrap();
    store.put(0, &[1; 16 << 10]).unwrap();
    limit(64 << 10);
    for id in 1..64 {
        store.put(id, &[1; 16 << 10]).unwrap();
    }
    match store.put(64, &[1; 16 << 10]) {
        Err(Error::Full { .. }) => {}
        other => panic!("put beyond the limit: {other:?}"),
    }
}

/// A worker whose descriptors are closed by other code, which opens another file under their number.
fn robbed(me: &mut Me) {
    let dir = PathBuf::from(me.var("DIR"));
    let (path, log) = (dir.join("store"), dir.join("log"));
    let store = tiny().create(&path).unwrap();
    store.put(0, b"before").unwrap();
    let owned = descriptors_of(&path);
    assert_eq!(owned.len(), 1, "a handle has one descriptor");
    // SAFETY: that this is not its own is the point; the store's file is never used through it again.
    unsafe { libc::close(owned[0]) };
    let mut other = OpenOptions::new().create(true).append(true).read(true).open(&log).unwrap();
    assert_eq!(other.as_raw_fd(), owned[0]);
    other.write_all(b"a line\n").unwrap();

    let refused = (1..10_000u64).find_map(|id| store.put(id, &[7; 64]).err());
    let refused = refused.expect("it grew by another file");
    assert!(refused.to_string().contains("closed descriptor"), "{refused}");
    for (what, result) in [
        ("sync", store.sync()),
        ("a durable put", store.put_with(0, b"x", Durability::Disk).map(drop)),
        ("snapshot", store.snapshot().map(drop)),
    ] {
        let error = result.expect_err(what);
        assert!(error.to_string().contains("closed descriptor"), "{what}: {error}");
    }
    assert!(store.get(0).unwrap().is_some(), "what is there can be read");
    assert!(store.close().is_err(), "closed by another file's descriptor");
    other.write_all(b"another line\n").expect("the other file's descriptor was closed");
    assert_eq!(std::fs::read(&log).unwrap(), b"a line\nanother line\n");
}

/// A worker that holds a thousand snapshots, and opens the store 200 times.
fn many(me: &mut Me) {
    let path = me.var("STORE");
    let store = Options::new().regions(1).create(&path).unwrap();
    let mut snapshots = Vec::new();
    for n in 0..1000u64 {
        store.put(1, &n.to_le_bytes()).unwrap();
        snapshots.push(store.snapshot().unwrap());
    }
    store.put(1, b"now").unwrap();
    let handles: Vec<Store> = (0..200).map(|_| Store::open(&path).unwrap()).collect();
    let readers: Vec<Store> = (0..200).map(|_| Store::open_read_only(&path).unwrap()).collect();
    for (n, snapshot) in (0u64..).zip(&snapshots) {
        assert_eq!(snapshot.get(1).unwrap(), Some(&n.to_le_bytes()[..]));
    }
    for handle in handles.iter().chain(&readers) {
        assert_eq!(&handle.get(1).unwrap().unwrap()[..], b"now");
    }
    let attached = store.stats().unwrap().attached.iter().filter(|a| a.alive).count();
    assert_eq!(attached, 201, "a snapshot takes no seat");
    // In any order, and what the younger ones see stays.
    let kept = snapshots.split_off(500);
    drop(snapshots);
    store.sync().unwrap();
    for n in 0..2000u64 {
        store.put(1, &n.to_le_bytes()).unwrap();
    }
    for (n, snapshot) in (500u64..).zip(&kept) {
        assert_eq!(snapshot.get(1).unwrap(), Some(&n.to_le_bytes()[..]));
    }
    drop(kept);
    store.sync().unwrap();
    // What they kept is room again.
    let before = store.stats().unwrap().slots;
    for n in 0..before {
        store.put(1, &n.to_le_bytes()).unwrap();
    }
    assert_eq!(store.stats().unwrap().slots, before, "slots are kept for nobody");
}

/// A worker that has many stores open, in as little address space as a process is given by a careful administrator.
fn little_address_space(me: &mut Me) {
    let dir = PathBuf::from(me.var("DIR"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, (2 << 30).min(soft), hard).unwrap();
    let stores: Vec<Store> =
        (0..100).map(|n| Options::new().regions(1).create(dir.join(n.to_string())).unwrap()).collect();
    for (id, store) in (0..).zip(&stores) {
        for id in id..id + 5000 {
            store.put(id, &[id as u8; 256]).unwrap();
        }
    }
    for (id, store) in (0..).zip(&stores) {
        assert!((id..id + 5000).all(|id| store.get(id).unwrap().unwrap()[..] == [id as u8; 256]));
    }
}

/// A worker whose store outgrows what was reserved for it, while records are lent.
fn outgrown(me: &mut Me) {
    let path = me.var("STORE");
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let store = Options::new().regions(1).record_size(1 << 20).create(&path).unwrap();
    for id in 0..8 {
        store.put(id, vec![id as u8; 1 << 20]).unwrap();
    }
    store.close().unwrap();
    // Only the file itself can be mapped: nothing beyond it.
    let used = mapped_bytes(None);
    setrlimit(Resource::RLIMIT_AS, used + (64 << 20), hard).unwrap();
    let store = Store::open(&path).unwrap();
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    let reserved = mapped_bytes(Some(&path));
    let second = Store::open(&path).unwrap();
    assert_eq!(mapped_bytes(Some(&path)), reserved, "a second handle takes address space of its own");
    let pin = store.pin().unwrap();
    let lent = pin.get(3).unwrap().unwrap();
    let snapshot = store.snapshot().unwrap();
    let of_the_moment = snapshot.get(4).unwrap().unwrap();
    for id in 8..200 {
        store.put(id, vec![id as u8; 1 << 20]).unwrap();
    }
    assert!(
        mapped_bytes(Some(&path)) > reserved,
        "it did not outgrow what was reserved: the test tests nothing"
    );
    store.put(3, b"three").unwrap();
    second.put(4, b"four").unwrap();
    assert!(lent == vec![3; 1 << 20] && of_the_moment == vec![4; 1 << 20], "lent bytes changed");
    for id in (0..200).filter(|id| ![3, 4].contains(id)) {
        assert_eq!(second.get(id).unwrap().unwrap()[..], vec![id as u8; 1 << 20]);
    }
    drop((pin, snapshot));
    drop((store, second));
    assert_eq!(mapped_bytes(Some(&path)), 0, "a mapping is left");
}

/// Bytes of address space that this process has mapped, of a file or of all.
fn mapped_bytes(path: Option<&str>) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_file = maps.lines().filter(|line| path.is_none_or(|path| line.ends_with(path)));
    of_file
        .map(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            u64::from_str_radix(to, 16).unwrap().saturating_sub(u64::from_str_radix(from, 16).unwrap())
        })
        .sum()
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "limited" => limited(&mut me),
        "robbed" => robbed(&mut me),
        "many" => many(&mut me),
        "little_address_space" => little_address_space(&mut me),
        "outgrown" => outgrown(&mut me),
        other => panic!("no role {other}"),
    }
}

fn play(role: &str) {
    let dir = common::scratch();
    let store = dir.path().join("store");
    common::alone(role, &[("DIR", dir.path().to_str().unwrap()), ("STORE", store.to_str().unwrap())]);
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_that_names_it() {
    play("limited");
}

#[test]
fn a_descriptor_that_others_closed_is_an_error_and_the_file_that_has_its_number_stays_as_it_is() {
    play("robbed");
}

#[test]
fn a_thousand_snapshots_and_hundreds_of_handles_fit_into_one_process() {
    play("many");
}

#[test]
fn a_hundred_stores_fit_into_two_gibibytes_of_address_space() {
    play("little_address_space");
}

#[test]
fn a_store_outgrows_its_mapping_and_what_was_lent_stays_where_it_is() {
    play("outgrown");
}

#[test]
fn a_core_dump_leaves_the_mapping_out() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let _store = tiny().create(&path).unwrap();
    let _reader = Store::open_read_only(&path).unwrap();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut flags = Vec::new();
    let mut is_ours = false;
    for line in smaps.lines() {
        if line.contains('-') && !line.starts_with("VmFlags") {
            is_ours = line.ends_with(path.to_str().unwrap());
        }
        if let Some(found) = line.strip_prefix("VmFlags:").filter(|_| is_ours) {
            flags.push(found.to_owned());
        }
    }
    assert_eq!(flags.len(), 2, "a mapping for writing and one for reading: {flags:?}");
    assert!(flags.iter().all(|flags| flags.split(' ').any(|flag| flag == "dd")), "{flags:?}");
}

#[track_caller]
fn assert_unlinked(result: Result<(), Error>, what: &str) {
    match result {
        Err(e @ Error::Unlinked { .. }) => assert!(e.to_string().contains(what), "{e}"),
        other => panic!("into nowhere: {other:?}"),
    }
}

#[test]
fn a_flush_says_that_the_file_was_removed() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = tiny().create(&path).unwrap();
    store.put(1, b"one").unwrap();
    std::fs::remove_file(&path).unwrap();
    store.put(2, b"two").unwrap();
    assert_unlinked(store.sync(), "removed");
    assert_unlinked(store.put_with(3, b"three", Durability::Disk).map(drop), "removed");
    // The flush was done all the same, and the records are there to be copied.
    let copy = dir.path().join("copy");
    assert_eq!(store.backup(&copy).unwrap(), 3);
    assert_unlinked(store.close(), "removed");
    assert_eq!(Store::open(&copy).unwrap().len().unwrap(), 3);
}

#[test]
fn a_flush_says_that_another_file_was_put_in_its_place() {
    let dir = common::scratch();
    let (path, other, kept) = (dir.path().join("store"), dir.path().join("other"), dir.path().join("kept"));
    let store = tiny().create(&path).unwrap();
    store.put(1, b"one").unwrap();
    // By its old name it is still there.
    std::fs::rename(&path, &kept).unwrap();
    store.sync().expect("renamed is not lost");
    tiny().create(&other).unwrap().close().unwrap();
    std::fs::rename(&other, &path).unwrap();
    store.put(2, b"two").unwrap();
    assert_unlinked(store.sync(), "another file");
    assert_unlinked(store.close(), "another file");
    assert_eq!(Store::open(&kept).unwrap().len().unwrap(), 2, "and flushed it was");
}

#[test]
fn a_store_that_is_known_by_another_name_is_flushed_without_an_error() {
    let dir = common::scratch();
    let (path, link) = (dir.path().join("store"), dir.path().join("link"));
    tiny().create(&path).unwrap().close().unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let store = Store::open(&link).unwrap();
    store.put(1, b"one").unwrap();
    // What the link leads to next is no matter of this store.
    std::fs::remove_file(&link).unwrap();
    tiny().create(&link).unwrap().close().unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    let name = format!("surroundings-{}", std::process::id());
    let shared = tiny().shared(&name).unwrap();
    shared.put(1, b"one").unwrap();
    std::fs::remove_file(shared.path()).unwrap();
    shared.sync().expect("what lies in memory has no name to lose");
}

#[test]
fn a_file_that_others_extended_and_cut_back_is_whole() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let set_len = |len| OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
    let len = || std::fs::metadata(&path).unwrap().len();
    let store = tiny().create(&path).unwrap();
    for id in 0..1000 {
        store.put(id, &[1; 64]).unwrap();
    }
    store.close().unwrap();
    set_len(len() + (10 << 20));
    let store = Store::open(&path).unwrap();
    let used = store.stats().unwrap().extents;
    for id in 1000..3000 {
        store.put(id, &[1; 64]).unwrap();
    }
    store.sync().unwrap();
    let used = store.inspect_region(0).unwrap().matches("  extent ").count() as u64 + u64::from(used == 0);
    assert!(used < 100);
    let store_len = len();
    store.close().unwrap();
    // Down to what is in use, and a little more.
    set_len(store_len - (8 << 20));
    for opened in [Store::open(&path), Store::open_read_only(&path)] {
        let store = opened.unwrap_or_else(|e| panic!("nothing is gone: {e}"));
        assert_eq!(store.iter().map(Result::unwrap).count(), 3000);
        assert!(store.verify().unwrap().is_clean());
    }
    // What is in use is missed.
    set_len(200 << 10);
    assert!(matches!(Store::open(&path), Err(Error::Truncated { .. })));
}

#[test]
fn a_hole_behind_the_last_record_is_not_read() {
    let dir = common::scratch();
    for path in
        [dir.path().join("store"), PathBuf::from(format!("/dev/shm/surroundings-{}", std::process::id()))]
    {
        let store = tiny().create(&path).unwrap();
        for id in 0..1000 {
            store.put(id, &[1; 64]).unwrap();
        }
        store.close().unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() + (16 << 30)).unwrap();
        let blocks = |file: &File| file.metadata().unwrap().blocks();
        let before = blocks(&file);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.iter().map(Result::unwrap).count(), 1000);
        assert_eq!(store.stats().unwrap().records, 1000);
        assert!(store.verify().unwrap().is_clean());
        let reader = Store::open_read_only(&path).unwrap();
        assert_eq!(reader.iter().map(Result::unwrap).count(), 1000);
        let read: u64 = touched_pages(&path);
        assert!(read < 1000, "{read} pages of the hole are in memory");
        assert!(blocks(&file) < before + 1000, "reading took {} blocks", blocks(&file) - before);
        // And it is room.
        for id in 1000..2000 {
            store.put(id, &[1; 64]).unwrap();
        }
        assert_eq!(store.iter().map(Result::unwrap).count(), 2000);
        drop((store, reader));
        std::fs::remove_file(&path).unwrap();
    }
}

/// Pages of the file that this process has touched.
fn touched_pages(path: &Path) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_ours = false;
    let mut kib = 0;
    for line in smaps.lines() {
        if line.contains('-') && !line.starts_with("VmFlags") {
            is_ours = line.ends_with(path.to_str().unwrap());
        }
        if let Some(rss) = line.strip_prefix("Rss:").filter(|_| is_ours) {
            kib += rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    kib / 4
}
