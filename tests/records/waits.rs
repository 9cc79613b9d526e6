//! Nobody waits beyond the time-out of the handle, opening and closing included; and the error names the lock and
//! the process that has it.
//!
//! Needs the feature `testing`. Fails when: a call waits on beside a stopped or foreign holder of any lock; `Busy` names
//! another lock or another process; a store that was closed keeps others out; a checkpoint ends, or hangs, with an error.

#![cfg(feature = "testing")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::common::{self, Me, PATIENCE, Worker};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, raise};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::bytemuck::bytes_of;
use recstore::testing::{set_boot_id, set_hook};
use recstore::{Checkpoint, Durability, Error, Lock, Options, Store, Ttl};

const TIMEOUT: Duration = Duration::from_millis(100);

/// Opens, writes and closes, and stops itself at step `AT`.
fn stops(me: &mut Me) {
    let at = me.var("AT");
    let mut left = 1;
    set_hook(Some(Box::new(move |step| {
        if step == at && left == 1 {
            left = 0;
            raise(Signal::SIGSTOP).unwrap();
        }
    })));
    let store = Store::open(me.var("STORE")).unwrap();
    store.put(1, b"the stopped one's").unwrap();
    me.say("written");
    store.close().unwrap();
    me.say("closed");
}

/// Has the file locked as a program does that knows nothing of stores.
fn locks_the_file(me: &mut Me) {
    let file = File::open(me.var("STORE")).unwrap();
    let shared = me.var("HOW") == "shared";
    let how = if shared { FlockArg::LockShared } else { FlockArg::LockExclusive };
    let _locked = Flock::lock(file, how).map_err(|(_, e)| e).unwrap();
    me.say("locked");
    me.wait_for_the_end();
}

/// Stays inside of `update`.
fn stays_inside(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    store
        .update(me.var("ID").parse().unwrap(), |_| {
            me.say("inside");
            me.line();
            Some(b"the owner's")
        })
        .unwrap();
    me.say("done");
    me.wait_for_the_end();
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "stops" => stops(&mut me),
        "locks_the_file" => locks_the_file(&mut me),
        "stays_inside" => stays_inside(&mut me),
        other => panic!("no role {other}"),
    }
}

fn impatient() -> Options {
    Options::new().record_size(64).regions(2).slots_per_extent(16).lock_timeout(Some(TIMEOUT))
}

fn new_store() -> (tempfile::TempDir, PathBuf) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = impatient().create(&path).unwrap();
    store.put(1, b"before").unwrap();
    store.close().unwrap();
    (dir, path)
}

/// What the call gives; fails if it doesn't come back.
fn comes_back<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (to, result) = channel();
    std::thread::spawn(move || to.send(call()));
    result.recv_timeout(PATIENCE / 2).expect("a call that ends at its time-out")
}

fn opened(path: &Path) -> Result<Store, Error> {
    let path = path.to_owned();
    comes_back(move || impatient().open(path))
}

#[track_caller]
fn assert_held_by<T>(result: Result<T, Error>, lock: Lock, pid: u32) {
    match result {
        Err(Error::Busy { lock: held, owner: Some(holder), waited, .. }) => {
            assert_eq!((held, holder.pid, holder.exists), (lock, pid, Some(true)));
            assert!(waited >= TIMEOUT, "gave up after {waited:?}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it came in"),
    }
}

#[test]
fn opening_beside_a_foreign_lock_of_the_file_ends_at_the_time_out_and_names_who_has_it() {
    let (_dir, path) = new_store();
    for how in ["alone", "shared"] {
        if how == "shared" {
            set_boot_id(&path).unwrap(); // Recovery wants the file for itself.
        }
        let holder = Worker::spawn("locks_the_file", &[("STORE", path.to_str().unwrap()), ("HOW", how)]);
        let mut holder = holder;
        holder.expect("locked");
        assert_held_by(opened(&path), Lock::WholeFile, holder.pid());
        holder.kill();
        assert_eq!(opened(&path).unwrap().get(1).unwrap().unwrap().data(), b"before");
    }
}

#[test]
fn opening_beside_a_process_that_is_stopped_in_recovery_ends_at_the_time_out() {
    let (_dir, path) = new_store();
    set_boot_id(&path).unwrap();
    let with = [("STORE", path.to_str().unwrap()), ("AT", "recover: extents adopted")];
    let mut stopped = Worker::spawn("stops", &with);
    stopped.wait_until_stopped();
    assert_held_by(opened(&path), Lock::WholeFile, stopped.pid());
    stopped.kill();
    assert!(opened(&path).unwrap().opened().os_crash);
}

#[test]
fn opening_beside_a_process_that_is_stopped_while_it_closes_ends_at_the_time_out() {
    let (_dir, path) = new_store();
    let with = [("STORE", path.to_str().unwrap()), ("AT", "close: locks marked clean")];
    let mut stopped = Worker::spawn("stops", &with);
    stopped.expect("written");
    stopped.wait_until_stopped();
    assert_held_by(opened(&path), Lock::WholeFile, stopped.pid());
    stopped.signal(Signal::SIGCONT);
    stopped.expect("closed");
    stopped.finish();
    assert_eq!(opened(&path).unwrap().get(1).unwrap().unwrap().data(), b"the stopped one's");
}

#[test]
fn closing_beside_an_owner_that_stays_inside_ends_at_the_time_out_and_keeps_nobody_out() {
    let (_dir, path) = new_store();
    let store = impatient().open(&path).unwrap();
    let id = 7;
    let with = [("STORE", path.to_str().unwrap()), ("ID", &id.to_string())];
    let mut owner = Worker::spawn("stays_inside", &with);
    owner.expect("inside");
    let region = store.region_of(id);
    let other = (0..).find(|&id| store.region_of(id) != region).unwrap();
    store.put(other, b"written").unwrap();
    assert_held_by(comes_back(move || store.close()), Lock::Region(region), owner.pid());
    let again = opened(&path).unwrap();
    assert_eq!(again.get(other).unwrap().unwrap().data(), b"written");
    owner.say("go");
    owner.expect("done");
}

/// Options that tell of a wait, and what they tell.
fn telling() -> (Options, std::sync::mpsc::Receiver<String>) {
    let (tell, told) = channel();
    (Options::new().on_wait(TIMEOUT, move |busy| tell.send(busy.to_string()).unwrap()), told)
}

#[track_caller]
fn assert_told(told: &std::sync::mpsc::Receiver<String>, lock: Lock, pid: u32) {
    let said = told.recv_timeout(PATIENCE / 2).expect("a notice");
    assert!(said.contains(&format!("{lock} is held by live process {pid}")), "{said}");
}

#[test]
fn a_long_wait_is_told_of_once_with_the_lock_and_its_holder_and_goes_on() {
    let (_dir, path) = new_store();
    let with_path = ("STORE", path.to_str().unwrap());

    // A region.
    let (options, told) = telling();
    let store = options.open(&path).unwrap();
    let mut owner = Worker::spawn("stays_inside", &[with_path, ("ID", "7")]);
    owner.expect("inside");
    std::thread::scope(|scope| {
        let put = scope.spawn(|| store.put(7, b"after it"));
        assert_told(&told, Lock::Region(store.region_of(7)), owner.pid());
        assert!(!put.is_finished());
        owner.say("go");
        owner.expect("done");
        put.join().unwrap().unwrap();
    });
    assert!(told.try_recv().is_err(), "one wait, one notice");
    owner.kill();
    store.put(8, b"no wait").unwrap();
    store.close().unwrap();
    assert!(told.try_recv().is_err());

    // The lock of the whole file, in opening.
    for how in ["alone", "shared"] {
        if how == "shared" {
            set_boot_id(&path).unwrap();
        }
        let (options, told) = telling();
        let mut holder = Worker::spawn("locks_the_file", &[with_path, ("HOW", how)]);
        holder.expect("locked");
        std::thread::scope(|scope| {
            let open = scope.spawn(|| options.open(&path));
            assert_told(&told, Lock::WholeFile, holder.pid());
            holder.kill();
            open.join().unwrap().unwrap().close().unwrap();
        });
    }

    // The lock of flushes, which the kernel queues for.
    let (options, told) = telling();
    let store = options.open(&path).unwrap();
    store.put(1, b"to be flushed").unwrap();
    let at = "sync: writers of the old epoch are done";
    let mut stopped = Worker::spawn("stops", &[with_path, ("AT", at)]);
    stopped.expect("written");
    stopped.wait_until_stopped();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| store.sync());
        assert_told(&told, Lock::Sync, stopped.pid());
        stopped.signal(Signal::SIGCONT);
        sync.join().unwrap().unwrap();
    });
    stopped.expect("closed");
}

#[test]
fn closing_beside_a_checkpoint_lets_others_in() {
    let (_dir, path) = new_store();
    let store = impatient().open(&path).unwrap();
    let checkpoint = store.checkpoint_every(Duration::from_secs(3600)).unwrap();
    store.put(2, b"x").unwrap();
    store.close().unwrap();
    assert_eq!(opened(&path).unwrap().stats().unwrap().attached.len(), 1, "the closed handle has no seat");
    checkpoint.finish().unwrap();
}

/// Opens, does some of all that a handle does, and closes.
fn comes_and_goes(path: &Path, mut rng: StdRng, together: Option<&Barrier>) {
    let store = Store::open(path).unwrap();
    let mut checkpoint = None;
    for _ in 0..rng.random_range(0..3) {
        match rng.random_range(0..5) {
            0 => drop(store.put(rng.random_range(0..100), b"x").unwrap()),
            1 => drop(store.put_with(rng.random_range(0..100), b"x", Durability::Disk).unwrap()),
            2 => drop(store.snapshot().unwrap()),
            3 => store.sync().unwrap(),
            _ => checkpoint = Some(store.checkpoint_every(Duration::from_millis(1)).unwrap()),
        }
    }
    if let Some(together) = together {
        together.wait();
    }
    store.close().unwrap();
    checkpoint.map_or(Ok(()), Checkpoint::finish).unwrap();
}

#[test]
fn of_many_that_close_at_once_one_leaves_the_store_clean() {
    let mut rng = common::seeded();
    let (_dir, path) = new_store();
    for round in 0..100 {
        let barrier = Barrier::new(4);
        let together = rng.random::<bool>().then_some(&barrier);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (path, rng) = (&path, StdRng::seed_from_u64(rng.random()));
                scope.spawn(move || comes_and_goes(path, rng, together));
            }
        });
        assert_clean(&path, &format!("round {round}"));
    }
}

/// One finds the store clean when it closes, and is still attached when another writes and closes.
#[test]
fn of_two_that_close_the_one_that_found_the_store_clean_does_not_keep_it_in_use() {
    let (_dir, path) = new_store();
    Store::open(&path).unwrap().close().unwrap();
    let [idle, writer] = [(), ()].map(|()| Store::open(&path).unwrap());
    let mut writer = Some(writer);
    set_hook(Some(Box::new(move |step| {
        if step == "close: the store is clean"
            && let Some(writer) = writer.take()
        {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    writer.put(1, b"one").unwrap();
                    writer.close().unwrap();
                });
            });
        }
    })));
    idle.close().unwrap();
    set_hook(None);
    assert_clean(&path, "two that close");
}

/// One is done with closing, and gives its seat back while another closes.
#[test]
fn a_handle_that_gives_its_seat_back_does_not_keep_the_store_in_use() {
    let (_dir, path) = new_store();
    let [first, last] = [(), ()].map(|()| Store::open(&path).unwrap());
    let mut last = Some(last);
    set_hook(Some(Box::new(move |step| {
        if step == "seat: not taken, and held"
            && let Some(last) = last.take()
        {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    last.put(1, b"one").unwrap();
                    last.close().unwrap();
                });
            });
        }
    })));
    first.close().unwrap();
    set_hook(None);
    assert_clean(&path, "a seat that is given back");
}

/// It would hold up the last handle that closes, and would leave the store unmarked.
#[test]
fn a_store_of_another_geometry_is_refused_before_a_seat_is_claimed() {
    let (_dir, path) = new_store();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let noted = steps.clone();
    set_hook(Some(Box::new(move |step| noted.lock().unwrap().push(step))));
    let refused = Options::new().record_size(4096).require_geometry(true).open(&path);
    set_hook(None);
    assert!(matches!(refused, Err(Error::OtherGeometry { .. })));
    assert_eq!(*steps.lock().unwrap(), [""; 0]);
}

/// The thread that sweeps writes. It is through when the store is closed.
#[test]
fn a_store_that_is_closed_beside_a_sweep_is_clean_and_stays_so() {
    for _ in 0..4 {
        let (_dir, path) = new_store();
        let store = Store::open(&path).unwrap();
        let space = store.space("s").unwrap();
        let over = Ttl::after(Duration::ZERO);
        (0..3000).for_each(|n: u32| _ = space.put_with(n.to_le_bytes(), b"value", over).unwrap());
        let records = store.len().unwrap();
        let _sweeping = store.sweep_every(Duration::from_millis(1), 1_000_000).unwrap();
        common::until("the sweep is under way", || store.len().unwrap() < records);
        store.close().unwrap();
        let closed = std::fs::read(&path).unwrap();
        assert_clean(&path, "closed beside a sweep");
        drop(_sweeping);
        assert!(std::fs::read(&path).unwrap() == closed, "the sweep went on");
    }
}

/// A handle that opens the store may be stopped at any step, between the lock of a seat and the note of the new claim too.
#[test]
fn no_step_of_a_claim_makes_the_holder_before_look_alive() {
    let (_dir, path) = new_store();
    let asks = Store::open(&path).unwrap();
    let gone = Store::open(&path).unwrap();
    let before = gone.holder().unwrap();
    gone.close().unwrap();
    let looks = Arc::new(Mutex::new(Vec::new()));
    let (asking, noted) = (Arc::new(asks), looks.clone());
    let asks = asking.clone();
    set_hook(Some(Box::new(move |step| {
        std::thread::scope(|scope| {
            scope.spawn(|| noted.lock().unwrap().push((step, asks.is_alive(before))));
        });
    })));
    let after = Store::open(&path).unwrap();
    set_hook(None);
    // The claim is of the same seat.
    assert_eq!(bytes_of(&after.holder().unwrap())[..4], bytes_of(&before)[..4]);
    let looks = looks.lock().unwrap();
    assert!(looks.iter().any(|(step, _)| *step == "seat: held"));
    for (step, is_alive) in looks.iter() {
        assert!(matches!(is_alive, Ok(false)), "at step {step:?}: {is_alive:?}");
    }
    drop(asking);
}

/// The store is as a clean close leaves it: what a reboot finds needs no recovery, and a reader finds no damage.
fn assert_clean(path: &Path, when: &str) {
    let found = Store::open_read_only(path).unwrap().verify().unwrap().damage;
    assert!(found.is_empty(), "{when}: {found:?}");
    let copy = path.with_extension("after a reboot");
    std::fs::copy(path, &copy).unwrap();
    set_boot_id_only(&copy);
    assert!(!Store::open(&copy).unwrap().opened().os_crash, "{when}: not marked clean");
    std::fs::remove_file(&copy).unwrap();
}

/// Another boot, whatever the mark says.
fn set_boot_id_only(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xaa; 16], 4096 + 64).unwrap();
}

/// Two close at once: the first to ask is not alone, and its flush is behind that of the other, which marks the store.
#[test]
fn who_flushes_beside_a_clean_close_leaves_the_store_clean() {
    let (_dir, path) = new_store();
    let last = Store::open(&path).unwrap();
    let first = Store::open(&path).unwrap();
    last.put(1, b"one").unwrap();
    first.put(2, b"two").unwrap();
    let (asked, told) = channel::<()>();
    let (raised, may_flush) = channel::<()>();
    let (flushed, is_flushed) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            set_hook(Some(Box::new(move |step| {
                if step == "close: who else is there was asked" {
                    asked.send(()).unwrap();
                    may_flush.recv().unwrap();
                }
            })));
            first.close().unwrap();
            set_hook(None);
            flushed.send(()).unwrap();
        });
        told.recv().unwrap();
        set_hook(Some(Box::new(move |step| match step {
            "sync: durable epoch raised" => raised.send(()).unwrap(),
            "close: locks marked clean" => is_flushed.recv().unwrap(),
            _ => {}
        })));
        last.close().unwrap();
        set_hook(None);
    });
    assert_clean(&path, "two that close at once");
}

/// A thread of this process that is stopped at a step, inside of a call of a handle that others use.
fn beside_a_thread_at(
    at: &'static str,
    inside: fn(&Store),
    call: fn(&Store) -> Result<(), Error>,
    lock: Lock,
) {
    let (_dir, path) = new_store();
    let store = impatient().open(&path).unwrap();
    let (reached, go_on) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let barriers: &'static (Barrier, Barrier) = Box::leak(Box::new((reached, go_on)));
        let theirs = &store;
        scope.spawn(move || {
            let mut left = 1;
            set_hook(Some(Box::new(move |step| {
                if step == at && left == 1 {
                    left = 0;
                    barriers.0.wait();
                    barriers.1.wait();
                }
            })));
            inside(theirs);
        });
        barriers.0.wait();
        let results: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| call(&store))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        barriers.1.wait();
        results.into_iter().for_each(|result| assert_held_by(result, lock, std::process::id()));
    });
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn threads_of_one_handle_wait_for_a_flush_of_theirs_no_longer_than_the_time_out() {
    let sync = |store: &Store| {
        store.put(1, b"to be flushed").unwrap();
        store.sync().unwrap();
    };
    let step = "sync: writers of the old epoch are done";
    beside_a_thread_at(step, sync, Store::sync, Lock::Sync);
}

#[test]
fn threads_of_one_handle_wait_for_a_growth_of_theirs_no_longer_than_the_time_out() {
    fn grow(store: &Store, region: u32) -> Result<(), Error> {
        let mut ids = (1000..).filter(|&id| store.region_of(id) == region).take(100);
        ids.try_for_each(|id| store.put(id, b"x").map(drop))
    }
    let here = |store: &Store| grow(store, 0).unwrap();
    let there = |store: &Store| loop {
        match grow(store, 1) {
            // One of the threads has the region while it waits for growth, the others wait for the region.
            Err(Error::Busy { lock: Lock::Region(1), owner: Some(holder), .. })
                if holder.pid == std::process::id() => {}
            other => return other,
        }
    };
    beside_a_thread_at("grow: blocks allocated", here, there, Lock::Growth);
}

#[test]
fn durable_writes_of_single_records_wait_for_nobody_in_other_regions() {
    let (_dir, path) = new_store();
    let patient = || Options::new().durability(Durability::Disk);
    let store = patient().open(&path).unwrap();
    let with = [("STORE", path.to_str().unwrap()), ("ID", "7")];
    let mut owner = Worker::spawn("stays_inside", &with);
    owner.expect("inside");
    let others: Vec<u64> = (0..).filter(|&id| store.region_of(id) != store.region_of(7)).take(100).collect();
    let written = comes_back(move || {
        // New extents, and more replaced versions than a region keeps without a flush of everything.
        for n in 0..1500u64 {
            store.put(others[n as usize % others.len()], &n.to_le_bytes()).unwrap();
        }
        let mut reservation = store.reserve(others[0], 8).unwrap();
        reservation.fill(9).unwrap();
        reservation.commit().unwrap();
        others
    });
    owner.kill();
    let again = patient().open(&path).unwrap();
    assert_eq!(again.get(written[0]).unwrap().unwrap().data(), [9; 8]);
    assert!(again.verify().unwrap().is_clean());
}

#[test]
fn a_checkpoint_goes_on_after_an_error_and_ends_beside_a_stopped_process() {
    let (_dir, path) = new_store();
    let store = Options::new().open(&path).unwrap();
    let checkpoint = store.checkpoint_every(Duration::from_millis(1)).unwrap();
    let id = 7;
    let with = [("STORE", path.to_str().unwrap()), ("ID", &id.to_string())];
    let mut owner = Worker::spawn("stays_inside", &with);
    owner.expect("inside");
    common::until("a checkpoint that fails twice", || checkpoint.failures() >= 2);
    match checkpoint.error() {
        Some(Error::Busy { lock: Lock::Region(_), owner: Some(holder), .. }) => {
            assert_eq!(holder.pid, owner.pid());
        }
        other => panic!("{other:?}"),
    }
    owner.say("go");
    owner.expect("done");
    let flushes = store.stats().unwrap().flushes;
    store.put(id, b"x").unwrap();
    common::until("the next flush", || store.stats().unwrap().flushes > flushes + 1);
    assert_eq!(checkpoint.failures(), 0);
    assert!(checkpoint.error().is_none());
    owner.kill();

    let mut owner = Worker::spawn("stays_inside", &with);
    owner.expect("inside");
    common::until("a checkpoint that fails", || checkpoint.failures() != 0);
    let ended = comes_back(move || checkpoint.finish());
    assert!(matches!(ended, Err(Error::Busy { .. })), "{ended:?}");
    owner.say("go");
    owner.expect("done");
}
