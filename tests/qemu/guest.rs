//! The machine's side: this test binary is its first process, and the writers are its children.
//!
//! Lines over the second serial port, each gone out before the process goes on:
//!
//! ```text
//! booted                                          the kernel runs
//! mounted                                         the disk is there
//! created | opened CRASH REGIONS DROPPED MICROS   the store, and what opening it had to put right
//! holds ID WRITER COUNTER                         one for each record
//! checked RECORDS SLOTS                           that was all, and `verify` found nothing
//! ack STREAM BATCH                                a batch is durable
//! done                                            all stores are closed, power off
//! failed WHAT                                     anything else
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Durability, Options, Store};

use super::work::{Call, End, GEOMETRIES, Round, STREAMS, bytes};
use crate::common::value::parse;
use crate::common::{number_from_env, until};

pub(crate) const ROLE: &str = "RECSTORE_QEMU_ROLE";
pub(crate) const SEED: &str = "RECSTORE_QEMU_SEED";
pub(crate) const ROUND: &str = "RECSTORE_QEMU_ROUND";
/// Which store the round works on.
pub(crate) const STORE: &str = "RECSTORE_QEMU_STORE";
/// How the streams are written: `processes`, `threads`, or `alone` for one stream only.
pub(crate) const WRITERS: &str = "RECSTORE_QEMU_WRITERS";
/// A mistake in the store, by its name in `recstore::testing::Fault`.
pub(crate) const FAULT: &str = "RECSTORE_QEMU_FAULT";
const STREAM: &str = "RECSTORE_QEMU_STREAM";

/// Plays the role that the environment gives, if it gives one.
pub(crate) fn enter() {
    let Ok(role) = std::env::var(ROLE) else { return };
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        Line::open().say(&format!("failed {}", panic.to_string().replace('\n', " | ")));
    }));
    switch_fault();
    match role.as_str() {
        "init" => init(),
        "final" => last(),
        "writer" => write(number(STREAM), &open_again(), true),
        other => panic!("no role {other}"),
    }
}

fn number(name: &str) -> u64 {
    number_from_env(name).unwrap_or_else(|| panic!("{name} is not set"))
}

fn round() -> Round {
    Round { seed: number(SEED), number: number(ROUND) }
}

#[cfg(feature = "testing")]
fn switch_fault() {
    use recstore::testing::{Fault, switch};
    let Ok(name) = std::env::var(FAULT) else { return };
    let all = [Fault::ReuseEarly, Fault::NoTombstone, Fault::TombstoneEarly, Fault::DurableEarly];
    let all = all.into_iter().chain([Fault::SumWithoutHeader, Fault::LowerSeqWins, Fault::NoScrub]);
    switch(all.into_iter().find(|f| format!("{f:?}") == name).unwrap_or_else(|| panic!("no fault {name}")));
}

#[cfg(not(feature = "testing"))]
fn switch_fault() {
    assert!(std::env::var(FAULT).is_err(), "a fault needs the feature `testing`");
}

/// The serial line.
struct Line(File);

impl Line {
    fn open() -> Self {
        Self(OpenOptions::new().write(true).open("/dev/ttyS1").expect("a serial port"))
    }

    /// Makes it carry bytes as they are.
    fn make_raw(&self) {
        let fd = self.0.as_raw_fd();
        // SAFETY: the descriptor is open; `termios` is plain old data, which the first call fills.
        unsafe {
            let mut termios: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(fd, &mut termios), 0);
            libc::cfmakeraw(&mut termios);
            assert_eq!(libc::tcsetattr(fd, libc::TCSANOW, &termios), 0);
        }
    }

    /// Says a line; it has left the machine when this returns.
    fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).expect("a serial port");
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::tcdrain(self.0.as_raw_fd()) }, 0);
    }
}

/// Makes this a machine: file systems, modules, the disk.
fn boot() -> Line {
    let none = None::<&str>;
    let mount = |what: &str, at: &str, kind: &str| {
        mount(Some(what), at, Some(kind), MsFlags::empty(), none)
            .unwrap_or_else(|e| panic!("mounting {at}: {e}"));
    };
    mount("proc", "/proc", "proc");
    mount("sysfs", "/sys", "sysfs");
    mount("devtmpfs", "/dev", "devtmpfs");
    let mut line = Line::open();
    line.make_raw();
    line.say("booted");
    let mut modules: Vec<_> = fs::read_dir("/modules").unwrap().map(|e| e.unwrap().path()).collect();
    modules.sort();
    for module in modules {
        let file = File::open(&module).unwrap();
        // SAFETY: the descriptor is open, and the string is one of C's.
        let loaded = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        assert_eq!(loaded, 0, "{module:?}: {}", std::io::Error::last_os_error());
    }
    until("the disk appears", || Path::new("/dev/vda").exists());
    // Without this the kernel would take it that what was written is safe, and never flush.
    assert_eq!(fs::read_to_string("/sys/block/vda/queue/write_cache").unwrap().trim(), "write back");
    mount("/dev/vda", "/disk", "ext4");
    line.say("mounted");
    line
}

fn path(store: u64) -> PathBuf {
    PathBuf::from(format!("/disk/store-{store}"))
}

fn init() {
    let mut line = boot();
    let round = round();
    let which = number(STORE);
    let store = match open(&mut line, which) {
        Some(store) => store,
        None => {
            let (record_size, regions, slots) = GEOMETRIES[which as usize];
            let options = Options::new().record_size(record_size).regions(regions).slots_per_extent(slots);
            let store = options.create(path(which)).unwrap();
            line.say("created");
            store
        }
    };
    report(&mut line, &store);
    write_back(&path(which), round);
    match std::env::var(WRITERS).as_deref() {
        Ok("threads") => std::thread::scope(|scope| {
            for stream in 0..STREAMS {
                let store = &store;
                scope.spawn(move || write(stream, store, false));
            }
        }),
        Ok("processes") => {
            drop(store);
            let spawn = |stream: u64| {
                Command::new("/proc/self/exe")
                    .args(["child_entry", "--exact", "--nocapture", "--test-threads=1"])
                    .env(ROLE, "writer")
                    .env(STREAM, stream.to_string())
                    .spawn()
                    .unwrap()
            };
            (0..STREAMS).for_each(|stream| drop(spawn(stream)));
            panic!("a writer ended: {:?}", nix::sys::wait::wait());
        }
        _ => {
            drop(store);
            write(0, &open_again(), true);
        }
    }
}

/// Looks at every store, closes it, and switches the machine off.
fn last() -> ! {
    let mut line = boot();
    for which in 0..GEOMETRIES.len() as u64 {
        if let Some(store) = open(&mut line, which) {
            report(&mut line, &store);
            store.close().unwrap();
        } else {
            line.say("checked 0 0");
        }
    }
    line.say("done");
    nix::unistd::sync();
    // SAFETY: touches no memory; only the machine's first process comes here.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    panic!("not off: {}", std::io::Error::last_os_error());
}

fn open_again() -> Store {
    Store::open(path(number(STORE))).unwrap()
}

/// Opens a store for the first time in this boot, if it exists.
fn open(line: &mut Line, which: u64) -> Option<Store> {
    let begun = Instant::now();
    let store = match Store::open(path(which)) {
        Err(recstore::Error::NotFound { .. }) => return None,
        other => other.unwrap(),
    };
    let micros = begun.elapsed().as_micros();
    let put_right = store.opened();
    eprintln!("opened: {put_right:?}");
    let (crash, regions) = (u64::from(put_right.os_crash), put_right.regions_rebuilt.len());
    line.say(&format!("opened {crash} {regions} {} {micros}", put_right.dropped.len()));
    Some(store)
}

/// Says what is in the store, in two ways that must agree, and that it is in order.
fn report(line: &mut Line, store: &Store) {
    let mut lines = String::new();
    let mut records = 0;
    for record in store.iter() {
        let record = record.unwrap();
        let (writer, counter) = parse(record.id(), &record).unwrap();
        assert_eq!(store.get(record.id()).unwrap().as_ref(), Some(&record));
        lines.push_str(&format!("holds {} {writer} {counter}\n", record.id()));
        records += 1;
    }
    assert_eq!(store.len().unwrap(), records);
    let verified = store.verify().unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    let stats = store.stats().unwrap();
    assert_eq!(stats.slots, stats.records + stats.free_slots + stats.retired_slots, "a slot is on no list");
    line.say(&format!("{lines}checked {records} {}", verified.slots));
}

/// Works through a stream until the power goes.
fn write(stream: u64, store: &Store, may_reopen: bool) {
    let mut line = Line::open();
    let mut own = None;
    for number in 0.. {
        let batch = round().batch(stream, number);
        let store = own.as_ref().unwrap_or(store);
        let data = |id, name| bytes(id, name, store.record_size());
        for call in &batch.calls {
            match call {
                Call::Put(id, name) => _ = store.put(*id, &data(*id, *name)).unwrap(),
                Call::Update(id, name) => _ = store.update(*id, |_| Some(data(*id, *name))).unwrap(),
                Call::Delete(id) => _ = store.delete(*id).unwrap(),
                Call::Many(all) => {
                    let all: Vec<_> = all.iter().map(|(id, name)| (*id, data(*id, *name))).collect();
                    store.write_many(all.iter().map(|(id, d)| (*id, &d[..]))).unwrap();
                }
            }
        }
        match batch.end {
            End::Durable(id, name) => {
                store.put_with(id, &data(id, name), Durability::Disk).unwrap();
            }
            End::Reopen if may_reopen => {
                own.take().unwrap_or_else(open_again).close().unwrap();
                own = Some(open_again());
            }
            End::Sync | End::Reopen => store.sync().unwrap(),
        }
        line.say(&format!("ack {stream} {number}"));
    }
}

/// Has the kernel write pages of the file to the disk's cache, any of them at any time.
fn write_back(path: &Path, round: Round) {
    let mut rng = StdRng::seed_from_u64(round.seed ^ round.number.rotate_left(32));
    if rng.random() {
        fs::write("/proc/sys/vm/dirty_writeback_centisecs", "1").unwrap();
        fs::write("/proc/sys/vm/dirty_expire_centisecs", "1").unwrap();
    }
    let file = OpenOptions::new().write(true).open(path).unwrap();
    std::thread::spawn(move || {
        loop {
            let pages = file.metadata().unwrap().len() / 4096;
            let page = rng.random_range(0..pages);
            let (from, len) = (page as i64 * 4096, rng.random_range(1..16) * 4096);
            // SAFETY: the descriptor is open; the call touches no memory.
            unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
            // For pace only: otherwise this one would do all the work.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..4000)));
        }
    });
}
