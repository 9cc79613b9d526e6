//! Creation is atomic: whoever comes at the same time gets the same store, a process that dies on
//! the way leaves nothing, and the file has the mode that was asked for.
//!
//! Fails when: two processes that open-or-create one path get two stores; an observer ever sees
//! anything but no store or a whole one; something is left in the directory; the umask takes part.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{self, Me, Worker};
use nix::sys::stat::{Mode, umask};
use rand::Rng;
use rand::seq::SliceRandom;
use recstore::{Error, Options, Store};

const CREATORS: usize = 20;
const ROUNDS: usize = 4;

fn creator(me: &mut Me) {
    let number: u64 = me.var("NUMBER").parse().unwrap();
    me.say("ready");
    me.line();
    let store = Options::new().regions(4).open_or_create(me.var("STORE")).unwrap();
    let version = store.put(number, &number.to_le_bytes()).unwrap();
    me.say(&format!("{} {version}", store.stats().unwrap().uuid));
    me.wait_for_the_end();
}

/// Looks at the path all the time, until the test is over.
fn observer(me: &mut Me) {
    let path = me.var("STORE");
    me.say("ready");
    let over = std::thread::spawn({
        let mut me = Me::from_env().unwrap();
        move || me.wait_for_the_end()
    });
    let mut seen: Option<String> = None;
    while !over.is_finished() {
        match Store::open_read_only(&path) {
            Ok(store) => {
                let uuid = store.stats().unwrap().uuid;
                assert!(seen.is_none() || seen.as_ref() == Some(&uuid), "two stores were seen");
                seen = Some(uuid);
            }
            Err(Error::NotFound { .. }) => assert!(seen.is_none(), "a store was there and went"),
            Err(e) => panic!("half a store was seen: {e}"),
        }
    }
}

/// Creates stores under odd umasks.
fn modes(me: &mut Me) {
    let dir = me.var("STORE");
    for (n, mask) in [0o000, 0o022, 0o077, 0o777].into_iter().enumerate() {
        umask(Mode::from_bits_truncate(mask));
        for mode in [None, Some(0o600), Some(0o640), Some(0o666)] {
            let path = format!("{dir}/{n}-{mode:?}");
            let options = mode.map_or_else(Options::new, |mode| Options::new().mode(mode));
            options.regions(1).create(&path).unwrap();
            let is = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(is, mode.unwrap_or(0o600), "mode {mode:?} under umask {mask:o} gave {is:o}");
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "creator" => creator(&mut me),
        "observer" => observer(&mut me),
        "modes" => modes(&mut me),
        other => panic!("no role {other}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn twenty_processes_that_open_or_create_at_once_get_one_store() {
    let mut rng = common::seeded();
    for round in 0..ROUNDS {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let with = |n: usize| [("STORE", path.to_str().unwrap().to_string()), ("NUMBER", n.to_string())];
        let spawn = |role: &str, n: usize| {
            let with = with(n);
            let mut worker = Worker::spawn(role, &with.each_ref().map(|(k, v)| (*k, &v[..])));
            worker.expect("ready");
            worker
        };
        let mut observer = spawn("observer", 0);
        let mut creators: Vec<Worker> = (0..CREATORS).map(|n| spawn("creator", n)).collect();

        // All are told to go, and some are killed at some moment of it. In round 0 nobody is.
        let mut doomed: Vec<usize> = (0..CREATORS).collect();
        doomed.shuffle(&mut rng);
        doomed.truncate(if round == 0 { 0 } else { CREATORS / 2 });
        for creator in &mut creators {
            creator.say("go");
        }
        for &n in &doomed {
            for _ in 0..rng.random_range(0..20_000) {
                std::hint::spin_loop();
            }
            creators[n].kill();
        }
        let mut uuids = Vec::new();
        let mut written = Vec::new();
        for (n, creator) in creators.iter_mut().enumerate() {
            match creator.line() {
                Some(said) => {
                    uuids.push(said.split(' ').next().unwrap().to_string());
                    written.push(n as u64);
                }
                None => assert!(doomed.contains(&n), "creator {n}: {}", creator.wait()),
            }
        }
        drop(creators);
        uuids.dedup();
        assert_eq!(uuids.len(), 1, "{uuids:?}");
        assert_eq!(names(dir.path()), ["store"]);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.stats().unwrap().uuid, uuids[0]);
        for n in written {
            assert_eq!(store.get(n).unwrap().unwrap()[..], n.to_le_bytes(), "what creator {n} wrote");
        }
        assert!(store.verify().unwrap().is_clean());
        // Ends when its socket does; it fails if it ever saw something else than a store or none.
        observer.hang_up();
        observer.finish();
    }
}

#[test]
fn creating_where_something_is_already_changes_nothing() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Store::create(&path).unwrap();
    store.put(1, b"one").unwrap();
    assert!(matches!(Store::create(&path), Err(Error::AlreadyExists { .. })));
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"one");
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, b"letter").unwrap();
    assert!(matches!(Store::create(&foreign), Err(Error::AlreadyExists { .. })));
    assert!(matches!(Store::open_or_create(&foreign), Err(Error::NotAStore { .. })));
    assert_eq!(std::fs::read(&foreign).unwrap(), b"letter");
    let nowhere = dir.path().join("no/such/directory");
    assert!(matches!(Store::create(&nowhere), Err(Error::Io { .. } | Error::NotFound { .. })));
    assert!(matches!(Store::open(dir.path().join("nothing")), Err(Error::NotFound { .. })));
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(left, ["foreign", "store"]);
}

#[test]
fn the_mode_is_the_one_asked_for_whatever_the_umask_says() {
    let dir = common::scratch();
    common::alone("modes", &[("STORE", dir.path().to_str().unwrap())]);
}
