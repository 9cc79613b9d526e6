//! Who is dead is the kernel's file locks' to say, not a process id's: it works between containers.
//!
//! Fails when: an owner is taken for alive because another process has its number; an owner is
//! taken for dead because its number means nobody where the judge lives. Skipped, and says so, where
//! namespaces may not be unshared.

use std::time::Duration;

use crate::common::{self, Me, Worker};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use recstore::{Error, Options, Store};

const TIMEOUT: Duration = Duration::from_millis(300);

/// Holds the region's lock inside `update`.
fn owner(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    store
        .update(1, |_| {
            me.say(&format!("inside as {}", std::process::id()));
            me.line();
            Some(b"the owner's")
        })
        .unwrap();
    me.say("done");
}

/// Writes when told to, and says what came of it.
fn writer(me: &mut Me) {
    let store = Options::new().lock_timeout(Some(TIMEOUT)).open(me.var("STORE")).unwrap();
    me.say(&format!("ready as {}", std::process::id()));
    loop {
        if me.line() == "end" {
            return;
        }
        match store.put(2, b"the writer's") {
            Ok(_) => me.say("written"),
            Err(Error::Busy { owner: Some(holder), .. }) => {
                me.say(&format!("busy: {} {:?}", holder.pid, holder.exists))
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "owner" => owner(&mut me),
        "writer" => writer(&mut me),
        other => panic!("no role {other}"),
    }
}

fn store() -> (tempfile::TempDir, String) {
    let dir = common::scratch();
    let path = dir.path().join("store").to_str().unwrap().to_string();
    Options::new().regions(1).create(&path).unwrap().put(1, b"before").unwrap();
    (dir, path)
}

/// A worker that is process 1 of a namespace of its own, or `None`, said aloud.
fn nested(role: &str, path: &str) -> Option<Worker> {
    match Worker::spawn_in(CloneFlags::CLONE_NEWPID, role, &[("STORE", path)]) {
        Ok(worker) => Some(worker),
        Err(e) => {
            common::skipped(format_args!("no PID namespace of our own: {e}"));
            None
        }
    }
}

/// A nested worker, as this process sees it.
fn child_of(worker: &Worker) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", worker.pid());
    let children = std::fs::read_to_string(children).unwrap();
    Pid::from_raw(children.trim().parse().expect("one child"))
}

#[test]
fn a_dead_owner_is_succeeded_though_another_process_has_its_number() {
    let (_dir, path) = store();
    let Some(mut writer) = nested("writer", &path) else { return };
    writer.expect("ready as 1");
    let mut owner = nested("owner", &path).unwrap();
    owner.expect("inside as 1");
    writer.say("write");
    writer.expect("busy: 1 None");
    kill(child_of(&owner), Signal::SIGKILL).unwrap();
    owner.wait();
    writer.say("write");
    writer.expect("written");
    writer.say("end");
    writer.finish();
    let store = Store::open(&path).unwrap();
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"before");
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_live_owner_is_not_robbed_where_its_number_means_nobody() {
    let (_dir, path) = store();
    let Some(mut writer) = nested("writer", &path) else { return };
    writer.expect("ready as 1");
    // This one's number is far above all that exist in the writer's namespace.
    let mut owner = Worker::spawn("owner", &[("STORE", &path)]);
    owner.expect(&format!("inside as {}", owner.pid()));
    writer.say("write");
    writer.expect(&format!("busy: {} None", owner.pid()));
    owner.say("go");
    owner.expect("done");
    owner.finish();
    writer.say("write");
    writer.expect("written");
    writer.say("end");
    writer.finish();
    let store = Store::open(&path).unwrap();
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"the owner's");
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_live_owner_is_not_robbed_by_a_process_of_its_own_number() {
    let (_dir, path) = store();
    let Some(mut owner) = nested("owner", &path) else { return };
    owner.expect("inside as 1");
    let mut writer = nested("writer", &path).unwrap();
    writer.expect("ready as 1");
    writer.say("write");
    writer.expect("busy: 1 None");
    owner.say("go");
    owner.expect("done");
    writer.say("write");
    writer.expect("written");
    writer.say("end");
    writer.finish();
    let store = Store::open(&path).unwrap();
    assert_eq!(&store.get(1).unwrap().unwrap()[..], b"the owner's");
    assert!(store.verify().unwrap().is_clean());
}
