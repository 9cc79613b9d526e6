//! An uncontended `put`, `get` or `update` makes no system call.
//!
//! A forked child warms up, forbids itself every system call but `read`, `write` and `exit` (seccomp
//! strict mode: the kernel kills it at any other), and goes on working. Fails when the child dies.

use crate::common::{self, End, Me, in_fork, wait_for};
use recstore::{Options, Store};

const ROUNDS: u64 = 10_000;
const IDS: u64 = 100;

fn work(store: &Store, rounds: u64, out: &mut Vec<u8>) {
    for n in 0..rounds {
        let id = n % IDS;
        store.put(id, &n.to_le_bytes()).unwrap();
        assert!(store.get_into(id, out).unwrap().is_some() && out[..] == n.to_le_bytes());
        store.update(id, |old| old.map(|o| <[u8; 8]>::try_from(o).unwrap())).unwrap();
        assert!(store.get(id).unwrap().is_some());
    }
}

/// Forbids all but read, write and exit from here on, works, and ends with 7.
fn in_strict_mode(store: &Store, also: impl FnOnce()) -> ! {
    let mut out = Vec::with_capacity(64);
    work(store, IDS * 2, &mut out);
    // SAFETY: this restricts what the process may do, and touches no memory.
    let strict = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    assert_eq!(strict, 0, "no seccomp: {}", std::io::Error::last_os_error());
    work(store, ROUNDS, &mut out);
    also();
    // SAFETY: ends the only thread of this process; `exit_group` is forbidden.
    unsafe { libc::syscall(libc::SYS_exit, 7) };
    unreachable!("ended")
}

fn strict(me: &mut Me) {
    let path = me.var("STORE");
    Options::new().regions(2).create(&path).unwrap();
    let child = in_fork(|| in_strict_mode(&Store::open(&path).unwrap(), || ()));
    assert_eq!(wait_for(child), End::Exited(7), "a system call was made");
    // That the kernel would have noticed: a child that makes one is killed.
    let child = in_fork(|| in_strict_mode(&Store::open(&path).unwrap(), || _ = std::fs::metadata("/")));
    assert_eq!(wait_for(child), End::Killed);
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "strict" => strict(&mut me),
        other => panic!("no role {other}"),
    }
}

#[test]
fn an_uncontended_put_get_or_update_makes_no_system_call() {
    let dir = common::scratch();
    common::alone("strict", &[("STORE", dir.path().join("store").to_str().unwrap())]);
}
