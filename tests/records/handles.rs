//! Handles are many, but not without end; and what the dead held is there to be taken.
//!
//! Fails when: 1024 handles can't be open at once, or a 1025th can; the error is another; a seat stays taken
//! after its holder has closed, or died.

use crate::common::{self, Me, Worker};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use recstore::{Error, Options, Store};

const SEATS: usize = 1024;

/// Opens so many handles, and holds them.
fn holder(me: &mut Me) {
    // A handle is a file descriptor.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = SEATS as u64 + 100;
    if hard < wanted {
        me.say("skipped");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard).unwrap();
    let path = me.var("STORE");
    let mut stores: Vec<Store> = (0..SEATS - 1).map(|_| Store::open(&path).unwrap()).collect();
    me.say("one is left");
    me.line();
    stores.push(Store::open(&path).unwrap());
    stores[SEATS - 1].put(1, b"of the last").unwrap();
    match Store::open(&path) {
        Err(Error::TooManyHandles { max, .. }) => assert_eq!(max as usize, SEATS),
        other => panic!("one more than there are seats: {other:?}"),
    }
    me.say("full");
    me.line();
    drop(stores.pop());
    me.say("one is left");
    me.wait_for_the_end();
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "holder" => holder(&mut me),
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_store_has_a_thousand_seats_and_the_seats_of_the_dead_are_free() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    // A small ceiling: every handle reserves so much address space.
    let store = Options::new().regions(2).max_size(64 << 20).create(&path).unwrap();
    drop(store);
    let mut holder = Worker::spawn("holder", &[("STORE", path.to_str().unwrap())]);
    if holder.hear() == "skipped" {
        common::skipped("not so many file descriptors may be open");
        return;
    }
    let mine = Store::open(&path).unwrap();
    assert_eq!(mine.stats().unwrap().attached.iter().filter(|a| a.alive).count(), SEATS);
    drop(mine);
    holder.say("take it");
    holder.expect("full");
    let refused = Store::open(&path);
    assert!(matches!(refused, Err(Error::TooManyHandles { .. })), "{refused:?}");
    // Readers need no seat.
    assert_eq!(&Store::open_read_only(&path).unwrap().get(1).unwrap().unwrap()[..], b"of the last");
    holder.say("leave it");
    holder.expect("one is left");
    Store::open(&path).unwrap().put(2, b"mine").unwrap();
    holder.kill();
    let all: Vec<Store> = (0..20).map(|_| Store::open(&path).unwrap()).collect();
    assert_eq!(all[0].stats().unwrap().attached.iter().filter(|a| a.alive).count(), 20);
    all[19].put(3, b"mine").unwrap();
    assert_eq!(all[0].len().unwrap(), 3);
    assert!(all[0].verify().unwrap().is_clean());
}
