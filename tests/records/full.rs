//! No room is an error at the call that needed it, and only that: never SIGBUS, nothing lost, and
//! the store goes on. And what is not to be written is not.
//!
//! Fails when: a full file system or the ceiling kills a process, loses or spoils a record, or keeps
//! a store from working once there is room; a read-only file or mount is written or can't be read.
//! The mounts are of a namespace of our own; where that is not allowed the test says that it was skipped.

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::value::{parse, value};
use crate::common::{self, Me};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use recstore::{Error, Options, Store};

/// Mounts at `at`, or ends this worker, said aloud.
fn mount_or_skip(
    me: &mut Me,
    from: &Path,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) {
    let private = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    if let Err(e) = private.and_then(|()| mount(Some(from), at, kind, flags, data)) {
        me.say(&format!("{}can't mount: {e}", common::SKIPPED));
        std::process::exit(0);
    }
}

fn tmpfs(me: &mut Me, size: &str) -> std::path::PathBuf {
    let at = std::path::PathBuf::from(me.var("DIR"));
    mount_or_skip(me, Path::new("none"), &at, Some("tmpfs"), MsFlags::empty(), Some(&format!("size={size}")));
    at
}

/// Fills the file system up to the last byte.
fn stuff(path: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    for chunk in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0x55; chunk]).is_ok() {}
    }
}

fn assert_all(store: &Store, model: &BTreeMap<u64, u64>) {
    for (&id, &counter) in model {
        let record = store.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is lost"));
        assert_eq!(parse(id, &record), Ok((0, counter)));
    }
    assert_eq!(store.len().unwrap(), model.len() as u64);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Puts new records until there is no room in any region.
fn fill(store: &Store, model: &mut BTreeMap<u64, u64>, regions: u32, len: usize) {
    let mut full = vec![false; regions as usize];
    for id in 0.. {
        let region = store.region_of(id) as usize;
        if full.iter().all(|&f| f) {
            return;
        }
        if full[region] || model.contains_key(&id) {
            continue;
        }
        match store.put(id, &value(id, 0, id, len)) {
            Ok(_) => _ = model.insert(id, id),
            Err(Error::Full { region: r, path, .. }) => {
                assert_eq!((r as usize, path.as_path()), (region, store.path()));
                full[region] = true;
            }
            Err(e) => panic!("id {id}: {e}"),
        }
    }
}

/// Deletes a record here and there, and puts another in its place.
fn goes_on(store: &Store, model: &mut BTreeMap<u64, u64>, len: usize) {
    let old: Vec<u64> = model.keys().copied().step_by(7).collect();
    for (n, id) in old.into_iter().enumerate() {
        assert!(store.delete(id).unwrap());
        model.remove(&id);
        let region = store.region_of(id);
        let new = (1_000_000 * (n as u64 + 1)..).find(|&new| store.region_of(new) == region).unwrap();
        store.put(new, &value(new, 0, 5, len)).unwrap_or_else(|e| panic!("deleting made no room: {e}"));
        model.insert(new, 5);
    }
}

/// A full tmpfs, filled by the store itself.
fn full_by_itself(me: &mut Me) {
    let dir = tmpfs(me, "4m");
    let path = dir.join("store");
    let options = Options::new().regions(2).record_size(1000).slots_per_extent(64);
    let store = options.create(&path).unwrap();
    let second = options.open(&path).unwrap();
    let mut model = BTreeMap::new();
    fill(&store, &mut model, 2, 1000);
    assert!(model.len() > 1000, "{} records in 4 MiB", model.len());
    assert_all(&store, &model);
    assert_all(&second, &model);
    goes_on(&second, &mut model, 1000);
    assert_all(&store, &model);
    drop((store, second));
    let store = options.open(&path).unwrap();
    assert_all(&store, &model);
    goes_on(&store, &mut model, 800);
    assert_all(&store, &model);
}

/// A tmpfs that somebody else fills, at every moment of a store's life.
fn full_by_others(me: &mut Me) {
    let dir = tmpfs(me, "6m");
    let (path, stuffing) = (dir.join("store"), dir.join("stuffing"));
    let options = Options::new().regions(8).record_size(64).slots_per_extent(64);
    stuff(&stuffing);
    match options.create(&path) {
        Err(Error::Io { .. } | Error::Full { .. }) => {}
        other => panic!("created without room: {other:?}"),
    }
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["stuffing"], "a creation that failed left something");
    std::fs::remove_file(&stuffing).unwrap();
    let store = options.create(&path).unwrap();

    // Empty, in every region: whatever is a hole until it is needed may not be one.
    stuff(&stuffing);
    let mut model = BTreeMap::new();
    fill(&store, &mut model, 8, 64);
    assert_all(&store, &model);
    std::fs::remove_file(&stuffing).unwrap();
    for id in 0..400 {
        store.put(id, &value(id, 0, 1, 64)).unwrap();
        model.insert(id, 1);
    }
    stuff(&stuffing);
    fill(&store, &mut model, 8, 64);
    assert_all(&store, &model);

    // After a sync, replaced versions are kept, which needs room of another kind.
    store.sync().unwrap();
    let mut refused = 0;
    for id in 0..400 {
        match store.put(id, &value(id, 0, 2, 64)) {
            Ok(_) => _ = model.insert(id, 2),
            Err(Error::Full { .. }) => refused += 1,
            Err(e) => panic!("id {id}: {e}"),
        }
    }
    assert!(refused > 0, "nothing was refused: the test tests nothing");
    assert_all(&store, &model);
    // One that dies now is healed without room.
    let child = common::in_fork(|| {
        let store = options.open(&path).unwrap();
        store.update(1, |_| -> Option<Vec<u8>> { kill_myself() }).unwrap();
        0
    });
    assert_eq!(common::wait_for(child), common::End::Killed);
    assert_all(&store, &model);
    store.sync().unwrap();
    goes_on(&store, &mut model, 64);
    assert_all(&store, &model);

    // Room for the index to grow is needed as well.
    std::fs::remove_file(&stuffing).unwrap();
    for id in 0..6000 {
        store.put(id, &value(id, 0, 3, 64)).unwrap();
        model.insert(id, 3);
        if id % 500 == 499 {
            stuff(&stuffing);
            fill(&store, &mut model, 8, 64);
            std::fs::remove_file(&stuffing).unwrap();
        }
    }
    assert_all(&store, &model);
}

fn kill_myself() -> ! {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    unreachable!("SIGKILL")
}

/// A store on a read-only mount.
fn read_only_mount(me: &mut Me) {
    let dir = std::path::PathBuf::from(me.var("DIR"));
    let (writable, view) = (dir.join("writable"), dir.join("view"));
    std::fs::create_dir(&writable).unwrap();
    std::fs::create_dir(&view).unwrap();
    let (path, seen) = (writable.join("store"), view.join("store"));
    let store = Options::new().regions(2).create(&path).unwrap();
    store.put(1, b"one").unwrap();
    mount_or_skip(me, &writable, &view, None, MsFlags::MS_BIND, None);
    let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_or_skip(me, &writable, &view, None, remount, None);
    assert!(std::fs::write(view.join("x"), b"x").is_err(), "the mount is not read-only");

    let reader = Store::open_read_only(&seen).unwrap();
    assert_eq!(&reader.get(1).unwrap().unwrap()[..], b"one");
    // It sees what others write through the writable mount.
    store.put(2, b"two").unwrap();
    assert_eq!(&reader.get(2).unwrap().unwrap()[..], b"two");
    assert_writes_are_refused(&reader);
    assert!(reader.verify().unwrap().is_clean());
    match Store::open(&seen) {
        Err(e @ (Error::Io { .. } | Error::ReadOnly { .. })) => {
            assert!(e.to_string().to_lowercase().contains("read-only"), "{e}");
        }
        other => panic!("opened for writing: {other:?}"),
    }
    match Store::create(view.join("other")) {
        Err(Error::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::EROFS)),
        other => panic!("created: {other:?}"),
    }
}

fn assert_writes_are_refused(store: &Store) {
    let version = store.version(1).unwrap();
    let calls = [
        ("put", store.put(1, b"x").map(drop)),
        ("delete", store.delete(1).map(drop)),
        ("update", store.update(1, |_| Some(b"x")).map(drop)),
        ("compare_and_swap", store.compare_and_swap(1, version, b"x").map(drop)),
        ("write_many", store.write_many([(1, &b"x"[..])]).map(drop)),
    ];
    for (call, result) in calls {
        assert!(matches!(result, Err(Error::ReadOnly { .. })), "{call}: {result:?}");
    }
    assert!(store.is_read_only());
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"one");
}

/// As somebody else, so that the mode counts.
fn read_only_file(me: &mut Me) {
    let path = me.var("DIR") + "/store";
    if common::user() == 0 {
        // Root may write whatever the mode says; become nobody.
        // SAFETY: a system call that gives privileges up.
        let done = unsafe { libc::setgid(65534) == 0 && libc::setuid(65534) == 0 };
        assert!(done, "{}", std::io::Error::last_os_error());
    }
    match Store::open(&path) {
        Err(e @ (Error::Io { .. } | Error::ReadOnly { .. })) => assert!(e.to_string().contains(&path), "{e}"),
        other => panic!("opened for writing: {other:?}"),
    }
    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(&reader.get(1).unwrap().unwrap()[..], b"one");
    assert_writes_are_refused(&reader);
    assert_eq!(reader.len().unwrap(), 1);
    assert!(reader.verify().unwrap().is_clean());
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "full_by_itself" => full_by_itself(&mut me),
        "full_by_others" => full_by_others(&mut me),
        "read_only_mount" => read_only_mount(&mut me),
        "read_only_file" => read_only_file(&mut me),
        other => panic!("no role {other}"),
    }
}

fn play(role: &str) {
    let dir = common::scratch();
    common::alone_in(CloneFlags::CLONE_NEWNS, role, &[("DIR", dir.path().to_str().unwrap())]);
}

#[test]
fn a_file_system_that_the_store_filled_is_an_error_and_deleting_makes_room() {
    play("full_by_itself");
}

#[test]
fn a_file_system_that_others_filled_is_an_error_whatever_the_store_was_about_to_do() {
    play("full_by_others");
}

#[test]
fn a_read_only_mount_can_be_read() {
    play("read_only_mount");
}

#[test]
fn a_file_that_may_not_be_written_can_be_read() {
    let dir = common::scratch();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("store");
    Options::new().regions(1).create(&path).unwrap().put(1, b"one").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let before = std::fs::read(&path).unwrap();
    common::alone("read_only_file", &[("DIR", dir.path().to_str().unwrap())]);
    assert!(before == std::fs::read(&path).unwrap(), "reading wrote");
}

#[test]
fn the_ceiling_is_an_error_and_deleting_makes_room() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let options = Options::new().regions(2).record_size(100).slots_per_extent(16).max_size(400 << 10);
    let store = options.create(&path).unwrap();
    let mut model = BTreeMap::new();
    fill(&store, &mut model, 2, 100);
    assert!(model.len() > 500, "{} records in 400 KiB", model.len());
    assert!(std::fs::metadata(&path).unwrap().len() <= 400 << 10, "the ceiling was passed");
    match store.put(u64::MAX, &[0; 100]) {
        Err(e @ Error::Full { limit, .. }) => {
            assert_eq!(limit, 400 << 10);
            assert!(e.to_string().contains(path.to_str().unwrap()), "{e}");
        }
        other => panic!("{other:?}"),
    }
    assert_all(&store, &model);
    goes_on(&store, &mut model, 100);
    assert_all(&store, &model);
    // A refused put costs nothing, however often it is tried.
    let free = |s: &Store| s.stats().unwrap().free_slots;
    let before = free(&store);
    for id in 5_000_000..5_000_500 {
        match store.put(id, &[1; 100]) {
            Ok(_) => assert!(store.delete(id).unwrap()),
            Err(Error::Full { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(free(&store), before);
    assert_all(&store, &model);
}

#[test]
fn replacing_at_the_ceiling_works_again_after_a_sync() {
    let dir = common::scratch();
    let options = Options::new().regions(1).record_size(100).slots_per_extent(16).max_size(200 << 10);
    let store = options.create(dir.path().join("store")).unwrap();
    let mut model = BTreeMap::new();
    fill(&store, &mut model, 1, 100);
    let ids: Vec<u64> = model.keys().copied().collect();
    store.delete(ids[0]).unwrap();
    model.remove(&ids[0]);
    for round in 1..=50 {
        store.sync().unwrap();
        let id = ids[1 + round as usize % (ids.len() - 1)];
        store.put(id, &value(id, 0, round, 100)).unwrap_or_else(|e| panic!("round {round}: {e}"));
        model.insert(id, round);
    }
    assert_all(&store, &model);
}

#[test]
fn a_file_that_somebody_cut_off_is_refused() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(2).record_size(64).slots_per_extent(16).create(&path).unwrap();
    for id in 0..500 {
        store.put(id, &value(id, 0, 0, 64)).unwrap();
    }
    let whole = std::fs::metadata(&path).unwrap().len();
    store.sync().unwrap(); // What was never on disk is missed by nobody: a copy is recovered as after a loss of power.
    drop(store);
    let copy = dir.path().join("copy");
    for len in [whole - 1, whole - 4096, whole / 2, whole / 4, 80_000, 4096, 200] {
        std::fs::copy(&path, &copy).unwrap();
        OpenOptions::new().write(true).open(&copy).unwrap().set_len(len).unwrap();
        for opened in [Store::open(&copy), Store::open_read_only(&copy)] {
            match opened {
                Err(e @ Error::Truncated { len: is, needed, .. }) => {
                    assert!(is == len && needed > len && needed <= whole, "{is} {needed}");
                    assert!(e.to_string().contains("cut off"), "{e}");
                }
                other => panic!("cut off at {len} of {whole} bytes: {other:?}"),
            }
        }
    }
}
