//! Stores in memory of several users, and names that are something else's.
//!
//! Fails when: a store that a dead user left keeps another user out, or shows what was in it; an error does not say whose
//! it is; a file that is no store is removed; coming, leaving and removing at once ends in an error, or leaves a file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{self, Me, Worker};
use recstore::{Error, Options, Store};

/// A name that no other test and no other run of this one has.
fn name(of: &str) -> (String, PathBuf) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("test-names-{of}-{}-{number}", std::process::id()); // Other modules of this process have names too.
    let path = PathBuf::from(format!("/dev/shm/recstore.{name}"));
    (name, path)
}

/// Attaches as a user, says what it found, writes, and leaves when told to.
fn user(me: &mut Me) {
    let number = |me: &Me, name| me.var(name).parse::<u32>().unwrap();
    let (id, mode) = (number(me, "USER_ID"), number(me, "MODE"));
    // SAFETY: system calls that change who this process is; the list of groups is empty.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(id), 0);
        assert_eq!(libc::setuid(id), 0);
    }
    match Options::new().mode(mode).regions(2).shared(&me.var("NAME")) {
        Err(error) => me.say(&error.to_string()),
        Ok(store) => {
            me.say(&format!("found {} records", store.len().unwrap()));
            (0..100).for_each(|n| _ = store.put(n, b"mine").unwrap());
            me.say("written");
            me.line();
        }
    }
    me.say("left");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "user" => user(&mut me),
        other => panic!("no role {other}"),
    }
}

fn as_user(id: &str, name: &str, mode: u32) -> Worker {
    Worker::spawn("user", &[("USER_ID", id), ("NAME", name), ("MODE", &mode.to_string())])
}

#[test]
fn what_a_dead_user_left_keeps_no_other_user_out() {
    if common::user() != 0 {
        common::skipped("acting as other users: only root may");
        return;
    }
    let (name, path) = name("users");
    let mut first = as_user("1234", &name, 0o666);
    first.expect("found 0 records");
    first.expect("written");
    let mut beside = as_user("1235", &name, 0o666);
    beside.expect("found 100 records");
    beside.expect("written");
    first.kill();
    beside.kill();
    assert!(path.exists(), "nobody was left to remove it");
    for id in ["1235", "1234"] {
        let mut user = as_user(id, &name, 0o666);
        user.expect("found 0 records");
        user.expect("written");
        user.say("leave");
        user.expect("left");
        user.finish();
    }
    assert!(!path.exists(), "its owner was the last to leave");
}

#[test]
fn the_error_says_whose_the_store_is() {
    if common::user() != 0 {
        common::skipped("acting as other users: only root may");
        return;
    }
    let (name, path) = name("private");
    let mut owner = as_user("1234", &name, 0o600);
    owner.expect("found 0 records");
    owner.expect("written");
    let mut other = as_user("1235", &name, 0o600);
    let said = other.hear();
    assert!(said.contains("it is user 1234's, with mode 0600"), "{said}");
    other.expect("left");
    owner.say("leave");
    owner.expect("left");
    owner.finish();
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_store_is_not_removed() {
    let (name, path) = name("foreign");
    for content in [&b""[..], &b"somebody's letters"[..], &[0; 100_000][..]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(Store::shared(&name), Err(Error::NotAStore { .. })));
        assert!(matches!(Store::remove_shared(&name), Err(Error::NotAStore { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::remove_file(&path).unwrap();
    let elsewhere = common::scratch();
    let store = elsewhere.path().join("store");
    Store::create(&store).unwrap().close().unwrap();
    std::os::unix::fs::symlink(&store, &path).unwrap();
    assert!(matches!(Store::shared(&name), Err(Error::NotAStore { .. })));
    assert!(matches!(Store::remove_shared(&name), Err(Error::NotAStore { .. })));
    assert!(store.exists());
    std::fs::remove_file(&path).unwrap();
    assert!(!Store::remove_shared(&name).unwrap());
}

#[test]
fn coming_leaving_and_removing_at_once_ends_well_for_everybody() {
    let (name, path) = name("crowd");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let name = &name;
            scope.spawn(move || {
                for round in 0..100u64 {
                    if thread == 3 {
                        Store::remove_shared(name).unwrap();
                        continue;
                    }
                    let store = Options::new().regions(1).shared(name).unwrap();
                    store.put(thread, &round.to_le_bytes()).unwrap();
                    assert_eq!(store.get(thread).unwrap().unwrap().data(), round.to_le_bytes());
                }
            });
        }
    });
    assert!(!path.exists());
}
