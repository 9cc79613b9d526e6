//! Watches that share the ownership of their store, in threads and in tasks.
//!
//! Fails when: a change is not told, or is told twice; a task whose wait was cancelled misses what came meanwhile; the thread that waits
//! for tasks outlives the last watch, or keeps the store open; a runtime with waiting tasks does not shut down; a forked child waits.

#![cfg(all(feature = "tokio", feature = "testing"))]

use std::sync::Arc;
use std::time::Duration;

use recstore::{Error, Event, Options, OwnedWatch, Store};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::common::{self, End, Me, Worker, in_fork, wait_for};

const SHORT: Duration = Duration::from_millis(1);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn new_store() -> (tempfile::TempDir, Arc<Store>) {
    let dir = common::scratch();
    let store = Options::new().regions(4).create(dir.path().join("s")).unwrap();
    (dir, Arc::new(store))
}

/// The threads of this process that wait for tasks.
fn threads() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok() // It may have ended.
    });
    names.filter(|name| name.trim() == "recstore watch").count()
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.clone().as_str() {
        "alone" => alone(),
        "writer" => {
            let store = Store::open(me.var("STORE")).unwrap();
            for _ in 0..200 {
                store.put(me.line().parse().unwrap(), b"of another process").unwrap();
            }
        }
        role => panic!("{role}"),
    }
}

#[test]
fn one_thread_serves_many_tasks_and_ends_with_the_last_watch() {
    common::alone("alone", &[]);
}

fn alone() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let (dir, store) = new_store();
    let runtime = runtime();
    let waiting: Vec<_> = (0..200u64)
        .map(|id| {
            let mut watch: OwnedWatch = store.watch_owned(id).unwrap();
            runtime.spawn(is_send(async move { (watch.changed().await.unwrap(), watch) }))
        })
        .collect();
    let mut writer = Worker::spawn("writer", &[("STORE", dir.path().join("s").to_str().unwrap())]);
    // A thread has its name a moment after its start.
    let starts = |runtime: &Runtime| {
        common::until("the thread starts", || {
            runtime.block_on(async { tokio::task::yield_now().await });
            threads() == 1
        });
    };
    starts(&runtime);
    (0..200).for_each(|id| writer.say(&id.to_string()));
    let mut watches = Vec::new();
    for (id, task) in (0..).zip(waiting) {
        let (event, watch) = runtime.block_on(task).unwrap();
        assert_eq!(event, Event::Written(store.version(id).unwrap().unwrap()));
        watches.push(watch);
    }
    assert_eq!(threads(), 1);
    writer.finish();
    drop(watches);
    common::until("the thread ends", || threads() == 0);

    // A runtime that shuts down does not wait, and its tasks leave the store.
    let mut watch = store.watch_owned(7).unwrap();
    runtime.spawn(async move { watch.changed().await });
    starts(&runtime);
    drop(runtime);
    common::until("the thread ends", || threads() == 0);
    Arc::into_inner(store).expect("no other owner").close().unwrap();
    let store = Store::open_read_only(dir.path().join("s")).unwrap();
    assert!(store.stats().unwrap().closed_cleanly);
    assert!(store.stats().unwrap().attached.iter().all(|attached| attached.pid != std::process::id()));

    // In a forked child nobody waits.
    let store = Arc::new(Store::open(dir.path().join("s")).unwrap());
    let mut watch = store.watch_owned(7).unwrap();
    let runtime = self::runtime();
    assert!(runtime.block_on(async { timeout(SHORT, watch.changed()).await }).is_err());
    let ends = wait_for(in_fork(|| {
        let told = self::runtime().block_on(watch.changed());
        let is_forked = matches!(told, Err(Error::Forked { .. }));
        drop(watch);
        i32::from(!is_forked)
    }));
    assert_eq!(ends, End::Exited(0));
}

#[test]
fn a_wait_that_was_cancelled_loses_no_change_and_tells_none_twice() {
    let (_dir, store) = new_store();
    let runtime = runtime();
    let (mut watch, mut of_key) = (store.watch_owned(1).unwrap(), store.watch_key_owned("s", "key").unwrap());
    runtime.block_on(async {
        assert!(timeout(SHORT, watch.changed()).await.is_err());
        let version = store.put(1, b"one").unwrap();
        assert_eq!(watch.changed().await.unwrap(), Event::Written(version));
        assert!(timeout(SHORT, watch.changed()).await.is_err(), "it was told already");
        assert_eq!(watch.version(), Some(version));
        store.delete(1).unwrap();
        assert_eq!(watch.wait(None).unwrap(), Event::Deleted);

        assert!(timeout(SHORT, of_key.changed()).await.is_err());
        let version = store.space("s").unwrap().put("key", b"value").unwrap();
        assert_eq!(of_key.changed().await.unwrap(), Event::Written(version));
        let found = of_key.wait_until(None, |value| value.map(<[u8]>::to_vec)).unwrap();
        assert_eq!(found.as_deref(), Some(&b"value"[..]));
        assert!(timeout(SHORT, of_key.changed()).await.is_err());
    });
}

/// Writers and tasks in threads: each task hears of the last write of its record.
#[test]
fn the_last_change_is_always_told() {
    let (_dir, store) = new_store();
    let runtime = runtime();
    const LAST: u64 = 300;
    let waiting: Vec<_> = (0..20u64)
        .map(|id| {
            let mut watch = store.watch_owned(id).unwrap();
            runtime.spawn(async move {
                loop {
                    let event = watch.changed().await.unwrap();
                    let now = watch.store().get(id).unwrap().unwrap();
                    if now.data() == LAST.to_le_bytes() {
                        return event;
                    }
                }
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for first in 0..2u64 {
            let store = &store;
            scope.spawn(move || {
                for n in 1..=LAST {
                    (first..20).step_by(2).for_each(|id| _ = store.put(id, n.to_le_bytes()).unwrap());
                }
            });
        }
        for task in waiting {
            let told = runtime.block_on(async { timeout(common::PATIENCE, task).await });
            assert!(matches!(told, Ok(Ok(Event::Written(_)))), "{told:?}");
        }
    });
}
