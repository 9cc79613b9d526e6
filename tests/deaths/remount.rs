//! The file system is shut down under load and mounted again, in one boot: what had not reached the disk is gone, as after a
//! loss of power. Nothing that was synced is missing or older; what a batch wrote is there as a whole or not at all.
//!
//! `RECSTORE_LONG=1` makes it 50 rounds for each file system; `RECSTORE_SEED=n` replays the choices of one. Skipped, and says
//! so, without root, loop devices, or the tools of a file system.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, Me, Worker};
use rand::{Rng, SeedableRng};
use recstore::{Commit, Durability, Options, Store};

const IDS: u64 = 300;
/// `XFS_IOC_GOINGDOWN`, which ext4 has as well.
const SHUT_DOWN: libc::c_ulong = 0x8004_587d;
/// Nothing more is written, the log included.
const NO_FLUSH: u32 = 2;

fn value(number: u64) -> [u8; 48] {
    let mut value = [0; 48];
    value.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&number.to_le_bytes()));
    value
}

fn number(data: &[u8]) -> u64 {
    let number = u64::from_le_bytes(data[..8].try_into().unwrap());
    assert_eq!(data, value(number), "torn");
    number
}

/// Writes rising numbers, and says which are durable: `d id number` for one, `s number` for all up to that.
fn writer(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    let mut rng = rand::rngs::StdRng::seed_from_u64(me.var("WRITER_SEED").parse().unwrap());
    let mut next: u64 = me.var("FROM").parse().unwrap();
    loop {
        for _ in 0..rng.random_range(1..400) {
            next += 1;
            let id = rng.random_range(0..IDS);
            if rng.random_bool(0.02) {
                let mut batch = store.batch();
                for id in [IDS, IDS + 1, IDS + 2] {
                    batch.put(id, value(next).to_vec()).unwrap();
                }
                assert!(matches!(batch.commit().unwrap(), Commit::Done(_)));
                continue;
            }
            if rng.random_bool(0.05) {
                match store.put_with(id, &value(next), Durability::Disk) {
                    Ok(_) => me.say(&format!("d {id} {next}")),
                    Err(_) => return,
                }
            } else if store.put(id, &value(next)).is_err() {
                return;
            }
            me.say(&format!("w {id} {next}"));
        }
        match store.sync() {
            Ok(()) => me.say(&format!("s {next}")),
            Err(_) => return,
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    assert_eq!(me.role, "writer");
    writer(&mut me);
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A mounted file system in a file, unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(kind: &str) -> Option<Self> {
        let skip = |why: &str| {
            common::skipped(format_args!("{kind}: {why}"));
            None
        };
        if common::user() != 0 {
            return skip("only root may mount");
        }
        let disk = Self { dir: common::scratch() };
        let image = std::fs::File::create(disk.image()).unwrap();
        image.set_len(400 << 20).unwrap();
        if !run(&format!("mkfs.{kind}"), &["-q", disk.image().to_str().unwrap()]) {
            return skip("there is no tool that makes such a file system");
        }
        std::fs::create_dir(disk.root()).unwrap();
        if disk.mount() { Some(disk) } else { skip("it can't be mounted by a loop device") }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", self.image().to_str().unwrap(), self.root().to_str().unwrap()])
    }

    fn unmount(&self) -> bool {
        run("umount", &[self.root().to_str().unwrap()])
    }

    /// Unmounts it and mounts it again.
    fn remount(&self) {
        assert!(self.unmount(), "unmounted");
        // A process that unshares its mounts has a copy of this one, as long as it lives.
        common::until("nobody has it mounted", || !self.is_mounted_by_others());
        assert!(self.mount(), "mounted again");
    }

    /// Whether a loop device still has the image.
    fn is_mounted_by_others(&self) -> bool {
        let image = self.image().canonicalize().unwrap();
        let devices = std::fs::read_dir("/sys/block").unwrap();
        let mut files = devices.map(|device| device.unwrap().path().join("loop/backing_file"));
        files.any(|file| std::fs::read_to_string(file).is_ok_and(|of| Path::new(of.trim_end()) == image))
    }

    fn shut_down(&self) {
        let root = std::fs::File::open(self.root()).unwrap();
        let mut flags = NO_FLUSH;
        // SAFETY: the descriptor is open, and the call reads one number.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUT_DOWN, &mut flags) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Has the kernel write some pages back, as it does when it likes.
fn write_back_some(path: &Path, rng: &mut impl Rng) {
    let file = std::fs::File::open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for _ in 0..rng.random_range(0..24) {
        let (at, count) = (rng.random_range(0..pages), rng.random_range(1..64));
        // SAFETY: the descriptor is open; the call changes no content.
        unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64 * 4096, count * 4096, 7) };
    }
}

fn rounds(kind: &str) {
    let mut rng = common::seeded();
    let Some(disk) = Disk::new(kind) else { return };
    let path = disk.root().join("store");
    Options::new().regions(4).record_size(48).slots_per_extent(64).create(&path).unwrap();
    let count = if common::number_from_env("RECSTORE_LONG").is_some_and(|n| n != 0) { 50 } else { 4 };
    let (mut from, mut floor, mut recovered) = (0, HashMap::new(), 0);
    for round in 0..count {
        let (seed, first) = (rng.random::<u64>().to_string(), from.to_string());
        let with = [("STORE", path.to_str().unwrap()), ("WRITER_SEED", &seed), ("FROM", &first)];
        let mut worker = Worker::spawn("writer", &with);
        let mut written: HashMap<u64, u64> = HashMap::new();
        let mut durable_by: HashMap<u64, String> =
            floor.keys().map(|id| (*id, "earlier".to_owned())).collect();
        let last_words = rng.random_range(200..4000);
        for n in 0.. {
            if n == last_words {
                write_back_some(&path, &mut rng);
                disk.shut_down();
            }
            if n > last_words + 2000 {
                break; // It goes on in memory.
            }
            let Some(line) = worker.line() else { break };
            let words: Vec<&str> = line.split(' ').collect();
            let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().unwrap()).collect();
            match words[0] {
                "w" => {
                    written.insert(numbers[0], numbers[1]);
                    from = numbers[1];
                }
                "d" => {
                    floor.insert(numbers[0], numbers[1]);
                    durable_by.insert(numbers[0], format!("by itself, line {n} of {last_words}"));
                }
                _ => {
                    floor.extend(&written);
                    durable_by
                        .extend(written.keys().map(|id| (*id, format!("{line}, line {n} of {last_words}"))));
                }
            }
        }
        worker.kill();
        from += 100_000; // Above all that was written and not heard of.
        disk.remount();
        let store = Store::open(&path).unwrap();
        recovered += u32::from(store.opened().os_crash);
        for (&id, &least) in &floor {
            let found = store.get(id).unwrap().map(|record| number(&record));
            if id < IDS {
                assert!(
                    found >= Some(least),
                    "round {round}: {id} was {least} on disk, and is {found:?}: {:?}; {}",
                    store.opened(),
                    durable_by[&id]
                );
            }
        }
        let members: Vec<_> =
            (IDS..IDS + 3).map(|id| store.get(id).unwrap().map(|record| number(&record))).collect();
        assert!(members.iter().all(|member| *member == members[0]), "round {round}: {members:?}");
        assert!(store.verify().unwrap().is_clean(), "round {round}");
        for id in 0..IDS {
            if let Some(record) = store.get(id).unwrap() {
                floor.insert(id, number(&record)); // Recovery has put it on disk.
            }
        }
    }
    println!("{kind}: {count} rounds, {recovered} recoveries");
    assert!(recovered > count / 2, "{recovered} of {count}: the file system was gone under load");
}

#[test]
fn what_was_synced_is_there_after_ext4_was_shut_down_and_mounted_again() {
    rounds("ext4");
}

#[test]
fn what_was_synced_is_there_after_xfs_was_shut_down_and_mounted_again() {
    rounds("xfs");
}
