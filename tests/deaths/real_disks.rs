//! Stores on real file systems, in images on loop devices, that others fill up: ext4, XFS, btrfs, and tmpfs.
//!
//! Fails when: a full disk kills a process that writes to a store that was copied, dug into, or shares its blocks with a
//! copy; what is no copy can't be overwritten on a full disk; a record is lost by it; what is a hole on purpose takes
//! blocks; a file that is copied on write is opened for writing without a word.
//!
//! It needs root, and the tools that make the file systems; where one is missing, a test says that it was skipped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, Me, Worker};
use recstore::{Error, Options, Store};

/// So many are written; on btrfs fewer, for when it is full each page that is touched costs a search for room.
const RECORDS: u64 = 20_000;
const RECORDS_ON_BTRFS: u64 = 600;

/// A file system of its own. Gone when it is dropped.
struct Disk {
    dir: tempfile::TempDir,
    at: PathBuf,
}

impl Disk {
    /// A disk, or `None` where there can't be one, said aloud.
    fn new(kind: &str) -> Option<Self> {
        let skip = |why: String| {
            common::skipped(format_args!("no {kind}: {why}"));
            None
        };
        if common::user() != 0 {
            return skip("not root".to_owned());
        }
        let dir = common::scratch();
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            mount.args(["-t", "tmpfs", "-o", "size=64m", "none"]);
        } else {
            File::create(&image).unwrap().set_len(400 << 20).unwrap();
            match Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output() {
                Ok(made) if made.status.success() => {}
                Ok(made) => return skip(String::from_utf8_lossy(&made.stderr).into_owned()),
                Err(e) => return skip(e.to_string()),
            }
            mount.args(["-o", "loop"]).arg(&image);
        }
        let mounted = mount.arg(&at).output().unwrap();
        if !mounted.status.success() {
            return skip(String::from_utf8_lossy(&mounted.stderr).into_owned());
        }
        Some(Self { dir, at })
    }

    fn is_in_memory(&self) -> bool {
        !self.dir.path().join("image").exists()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Fills it up to the last block.
    fn fill(&self) {
        let stuffing = self.path("stuffing");
        for chunk in [1 << 20, 1 << 16, 1 << 12] {
            // What was not written out yet may need less room than was set aside for it.
            for _ in 0..2 {
                let mut file = OpenOptions::new().append(true).create(true).open(&stuffing).unwrap();
                while file.write_all(&vec![0x55; chunk]).is_ok() {}
                let _ = file.sync_all();
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path("stuffing")).unwrap();
        run("sync", &["-f", self.at.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A store that was used, and closed: replaced versions, deleted ones, and slots that were never used.
fn make(path: &Path, records: u64) {
    let store = Options::new().regions(4).record_size(64).create(path).unwrap();
    for id in 0..records {
        store.put(id, &value(id, 0)).unwrap();
    }
    store.sync().unwrap();
    store.close().unwrap();
}

/// Half of it zeros, which a copy makes holes of.
fn value(id: u64, round: u64) -> [u8; 64] {
    let mut value = [0; 64];
    value[..8].copy_from_slice(&id.to_le_bytes());
    value[8..16].copy_from_slice(&round.to_le_bytes());
    value
}

/// A worker that overwrites all records and says how it went, whenever it is told to.
fn writer(me: &mut Me) {
    let path = me.var("STORE");
    loop {
        let round: u64 = me.line().parse().unwrap();
        let store = match Store::open(&path) {
            Ok(store) => store,
            Err(Error::Full { .. }) => {
                me.say("no room to open");
                continue;
            }
            Err(Error::CopyOnWrite { .. }) => {
                me.say("copied on write");
                continue;
            }
            Err(e) => panic!("open: {e}"),
        };
        let records = store.len().unwrap();
        let mut refused = 0;
        for id in 0..records {
            match store.put(id, &value(id, round)) {
                Ok(_) => {}
                Err(Error::Full { .. }) => refused += 1,
                Err(e) => panic!("put: {e}"),
            }
        }
        let all_there = (0..records).all(|id| {
            let record = store.get(id).unwrap().unwrap();
            [round, 0].iter().any(|&round| record[..] == value(id, round))
        });
        assert!(all_there, "a record is lost");
        if store.close().is_err() {
            me.say("no room to close");
            continue;
        }
        me.say(if refused == 0 { "all written" } else { "no room to write" });
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "writer" => writer(&mut me),
        other => panic!("no role {other}"),
    }
}

/// Has a process overwrite all records: what it says. It is not killed.
fn overwrite(path: &Path, round: u64) -> String {
    let mut writer = Worker::spawn("writer", &[("STORE", text(path))]);
    writer.say(&round.to_string());
    match writer.line() {
        Some(said) => said,
        None => panic!("{}: the writer was killed: {}", path.display(), writer.wait()),
    }
}

/// On a full disk it is refused, or goes well; with room it goes well, and nothing was lost.
fn survives_a_full_disk(disk: &Disk, path: &Path) -> String {
    let records = Store::open_read_only(path).unwrap().len().unwrap();
    disk.fill();
    match Store::open_read_only(path) {
        Ok(reader) => assert_eq!(reader.iter().map(Result::unwrap).count() as u64, records),
        // There, to read a hole takes room.
        Err(Error::Full { .. }) => assert!(disk.is_in_memory(), "it can be read"),
        Err(e) => panic!("{e}"),
    }
    let said = overwrite(path, 1);
    disk.make_room();
    assert_eq!(overwrite(path, 2), "all written");
    let store = Store::open(path).unwrap();
    assert!(store.verify().unwrap().is_clean());
    assert!((0..records).all(|id| store.get(id).unwrap().unwrap()[..] == value(id, 2)));
    said
}

fn blocks(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks()
}

/// Fresh slots, and all that never was needed, are holes in a copy.
fn copied_with_holes(kind: &str) {
    let Some(disk) = Disk::new(kind) else { return };
    let outside = common::scratch();
    let original = outside.path().join("original");
    make(&original, RECORDS);
    for sparse in ["auto", "always"] {
        let path = disk.path("copy");
        run("cp", &[&format!("--sparse={sparse}"), text(&original), text(&path)]);
        survives_a_full_disk(&disk, &path);
        std::fs::remove_file(&path).unwrap();
    }
}

/// The file stays the same one, and its holes are dug in place.
fn dug_into(kind: &str) {
    let Some(disk) = Disk::new(kind) else { return };
    let path = disk.path("store");
    make(&path, RECORDS);
    let before = blocks(&path);
    run("fallocate", &["--dig-holes", text(&path)]);
    assert!(blocks(&path) < before, "no hole was dug: the test tests nothing");
    survives_a_full_disk(&disk, &path);
}

#[test]
fn a_copy_with_holes_survives_a_full_ext4() {
    copied_with_holes("ext4");
}

#[test]
fn a_copy_with_holes_survives_a_full_xfs() {
    copied_with_holes("xfs");
}

#[test]
fn a_store_with_holes_dug_into_it_survives_a_full_ext4() {
    dug_into("ext4");
}

#[test]
fn a_store_with_holes_dug_into_it_survives_a_full_xfs() {
    dug_into("xfs");
}

#[test]
fn a_store_with_holes_dug_into_it_survives_a_full_tmpfs() {
    dug_into("tmpfs");
}

#[test]
fn what_is_a_hole_on_purpose_stays_one() {
    for kind in ["ext4", "xfs"] {
        let Some(disk) = Disk::new(kind) else { continue };
        let (path, copy) = (disk.path("store"), disk.path("copy"));
        let store = Options::new().regions(1).record_size(64).create(&path).unwrap();
        for id in 0..RECORDS {
            store.put(id, &value(id, 0)).unwrap();
        }
        store.close().unwrap();
        run("cp", &["--sparse=always", "--reflink=never", text(&path), text(&copy)]);
        let (whole, sparse) = (blocks(&path), blocks(&copy));
        assert!(sparse < whole, "{kind}: the copy has no holes: the test tests nothing");
        // No version is kept here, so no links are needed.
        let store = Store::open(&copy).unwrap();
        store.put(RECORDS, &value(RECORDS, 0)).unwrap();
        drop(store);
        let now = blocks(&copy);
        // The file system's own blocks for the map of a file differ a little.
        assert!(now + 64 >= whole, "{kind}: {now} blocks of {whole}");
        assert!(now <= whole + 64, "{kind}: {now} blocks of {whole}: the links took some");
    }
}

#[test]
fn an_original_that_shares_its_blocks_with_a_copy_survives_a_full_xfs() {
    let Some(disk) = Disk::new("xfs") else { return };
    for name in ["original", "copy"] {
        let (original, copy) = (disk.path("original"), disk.path("copy"));
        make(&original, RECORDS);
        run("cp", &["--reflink=always", text(&original), text(&copy)]);
        let used = disk.path(name);
        survives_a_full_disk(&disk, &used);
        let other = disk.path(if name == "copy" { "original" } else { "copy" });
        let other = Store::open_read_only(&other).unwrap();
        assert!((0..RECORDS).all(|id| other.get(id).unwrap().unwrap()[..] == value(id, 0)));
        drop(other);
        for path in [original, copy] {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_store_on_btrfs_is_written_in_place_and_a_copy_that_is_not_is_refused() {
    let Some(disk) = Disk::new("btrfs") else { return };
    let (path, copy) = (disk.path("store"), disk.path("copy"));
    make(&path, RECORDS_ON_BTRFS);
    run("cp", &["--reflink=never", text(&path), text(&copy)]);
    disk.fill();
    overwrite(&path, 1);
    assert_eq!(overwrite(&copy, 1), "copied on write");
    assert_eq!(Store::open_read_only(&copy).unwrap().len().unwrap(), RECORDS_ON_BTRFS);
    match Store::open(&copy) {
        Err(e @ Error::CopyOnWrite { .. }) => {
            let said = e.to_string();
            assert!(
                said.contains("btrfs") && said.contains("chattr +C") && said.contains("allow_copy_on_write")
            );
        }
        other => panic!("{other:?}"),
    }
    disk.make_room();
    let allowed = Options::new().allow_copy_on_write(true).open(&copy).unwrap();
    allowed.put(1, &value(1, 7)).unwrap();
    drop(allowed);
    // As the message says.
    let directory = disk.path("in_place");
    std::fs::create_dir(&directory).unwrap();
    run("chattr", &["+C", text(&directory)]);
    let moved = directory.join("store");
    run("cp", &["--reflink=never", text(&path), text(&moved)]);
    survives_a_full_disk(&disk, &moved);
}

#[test]
fn a_store_that_shares_its_blocks_with_a_copy_survives_a_full_btrfs() {
    let Some(disk) = Disk::new("btrfs") else { return };
    let directory = disk.path("in_place");
    std::fs::create_dir(&directory).unwrap();
    run("chattr", &["+C", text(&directory)]);
    let (path, copy) = (directory.join("store"), directory.join("copy"));
    make(&path, RECORDS_ON_BTRFS);
    run("cp", &["--reflink=always", text(&path), text(&copy)]);
    survives_a_full_disk(&disk, &path);
    assert_eq!(Store::open_read_only(&copy).unwrap().get(5).unwrap().unwrap()[..], value(5, 0));
    survives_a_full_disk(&disk, &copy);
}
