//! The mirror, beside servers that die.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Options, Store};
use recstore_nats::connect::Connection;

use crate::commands::{Running, connection, fails, nats, run, succeeds, text};
use crate::servers::{Cluster, PATIENCE, program, wait_for};
use crate::{length, seed};

const IDS: u64 = 200;

pub(crate) fn store(dir: &Path) -> Store {
    Options::new().record_size(128).regions(4).slots_per_extent(64).open_or_create(dir.join("s.rec")).unwrap()
}

pub(crate) fn change(store: &Store, rng: &mut StdRng) {
    let id = rng.random_range(0..IDS);
    if rng.random_range(0..4) == 0 {
        store.delete(id).unwrap();
    } else {
        let len = rng.random_range(0..100);
        store.put(id, vec![rng.random(); len]).unwrap();
    }
}

/// Waits until a comparison finds the bucket equal to the store.
#[track_caller]
pub(crate) fn is_equal_in_the_end(store: &str, url: &str, bucket: &str) {
    let mut last = None;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let output = run(&["mirror", store, url, "--bucket", bucket, "--verify"]);
        if output.status.success() {
            return;
        }
        last = Some(output);
    }
    panic!("the bucket does not become equal: {last:?}");
}

#[test]
fn a_bucket_equals_the_store_and_the_command_says_what_it_does() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&program, dir.path(), 1, "max_payload: 4096");
    let url = &cluster.url();
    let store = Options::new().record_size(8000).create(dir.path().join("s.rec")).unwrap();
    store.write_many((0..3000u64).map(|id| (id, format!("value {id}")))).unwrap();
    let path = &*dir.path().join("s.rec").to_string_lossy().into_owned();

    fails(2, "--bucket", &["mirror", path, url]);
    fails(4, "no name of a bucket", &["mirror", path, url, "--bucket", "a.b"]);
    fails(5, "not a recstore file", &["mirror", env!("CARGO_MANIFEST_DIR"), url, "--bucket", "b"]);
    fails(4, "gave up", &["mirror", path, "nats://127.0.0.1:1", "--bucket", "b", "--give-up-after", "0"]);
    fails(1, "3000 missing", &["mirror", path, url, "--bucket", "b", "--verify"]);
    let output = succeeds(&["mirror", path, url, "--bucket", "b", "--once", "--verify", "--json"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("\"sent\":3000"), "{told}");

    // What others change is seen, and undone.
    let connection = connection(&cluster);
    connection.run(async {
        for (key, value) in [("7", "other"), ("5000", "not in the store"), ("no-id", "left alone")] {
            connection.jetstream.publish(format!("$KV.b.{key}"), value.into()).await.unwrap().await.unwrap();
        }
        let headers = async_nats::HeaderMap::from_iter([(
            "KV-Operation".parse::<async_nats::HeaderName>().unwrap(),
            "DEL".parse::<async_nats::HeaderValue>().unwrap(),
        )]);
        let deleted = connection.jetstream.publish_with_headers("$KV.b.8", headers, "".into()).await.unwrap();
        deleted.await.unwrap();
    });
    fails(1, "1 missing, 1 extra, 1 with other", &["mirror", path, url, "--bucket", "b", "--verify"]);
    let output = succeeds(&["mirror", path, url, "--bucket", "b", "--once", "--verify"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("2 sent, 1 deleted") && told.contains("no-id is no key"), "{told}");

    // Too long for the server: named, and the rest goes on.
    store.put(9, vec![1; 8000]).unwrap();
    store.put(10, b"ten").unwrap();
    fails(1, "9: not mirrored: 8000 bytes", &["mirror", path, url, "--bucket", "b", "--once"]);
    fails(1, "9: differs", &["mirror", path, url, "--bucket", "b", "--verify"]);
    store.put(9, b"short").unwrap();
    succeeds(&["mirror", path, url, "--bucket", "b", "--once", "--verify"]);

    // Another store's, and a second mirror.
    let other = Store::create(dir.path().join("other.rec")).unwrap();
    let other_path = &*other.path().to_string_lossy().into_owned();
    fails(4, "is the mirror of store", &["mirror", other_path, url, "--bucket", "b", "--once"]);
    let mut first = Running::start(nats(&["mirror", path, url, "--bucket", "b", "--json"]));
    first.wait_until("the first mirror to follow", |numbers| numbers["equal"] == true);
    fails(6, &first.id().to_string(), &["mirror", path, url, "--bucket", "b", "--once"]);
    let mut second = Running::start(nats(&["mirror", path, url, "--bucket", "b", "--json", "--standby"]));
    first.kill();
    second.wait_until("the second mirror to succeed the first", |numbers| numbers["equal"] == true);
    store.put(11, b"for the second").unwrap();
    second.wait_until("its record", |numbers| numbers["sent"] == 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(second.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    let status = second.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{status:?}");
    succeeds(&["mirror", other_path, url, "--bucket", "b", "--once", "--take-over", "--verify"]);
    fails(4, "is the mirror of store", &["mirror", path, url, "--bucket", "b", "--once"]);

    // Keys of a space.
    let sessions = store.space("sessions").unwrap();
    for key in [&b"ann@example.org"[..], b"", b"\xff\0", b"a/b", b"..", b"*", b">"] {
        sessions.put(key, key).unwrap();
    }
    succeeds(&["mirror", path, url, "--bucket", "s", "--space", "sessions", "--once", "--verify"]);
    fails(4, "space", &["mirror", path, url, "--bucket", "s", "--once"]);

    // The monitoring port tells how the server flushes: always, here.
    let monitor = &format!("http://127.0.0.1:{}", cluster.servers[0].monitor);
    assert_eq!(recstore_nats::monitor::warning(monitor), None);
}

#[test]
fn a_mirror_that_dies_at_any_step_leaves_what_the_next_one_completes() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&program, dir.path(), 1, "");
    let store = store(dir.path());
    let mut rng = StdRng::seed_from_u64(seed());
    let path = &*store.path().to_string_lossy().into_owned();
    let arguments = ["mirror", path, &cluster.url(), "--bucket", "b", "--once"];
    let mut died = 0;
    for n in 1.. {
        for _ in 0..50 {
            change(&store, &mut rng);
        }
        let mut command = nats(&arguments);
        let status = command.env("RECSTORE_NATS_DIE_AT", n.to_string()).output().unwrap().status;
        if status.success() {
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "step {n}: {status:?}");
        died += 1;
    }
    assert!(died > 8, "{died} steps: the kill points are not built in (feature `testing`)");
    succeeds(&["mirror", path, &cluster.url(), "--bucket", "b", "--once", "--verify"]);
}

/// The leader's answers about some ids: a later message never has an earlier version.
fn watch_versions(connection: &Connection, seen: &mut BTreeMap<u64, (u64, u64)>, rng: &mut StdRng) {
    let id = rng.random_range(0..IDS);
    let found = connection.run(async {
        let stream = connection.jetstream.get_stream_no_info("KV_b").await.ok()?;
        let subject = format!("$KV.b.{id}");
        let asked = stream.get_last_raw_message_by_subject(&subject);
        tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()
    });
    let Some(message) = found else { return };
    let Some(version) = message.headers.get("Recstore-Version") else { return };
    let version: u64 = version.as_str().parse().unwrap();
    let (sequence, before) = seen.entry(id).or_default();
    // A deposed leader may answer with an old message. What counts is that no later message has an older version.
    if message.sequence >= *sequence {
        assert!(
            version >= *before,
            "record {id}: version {version} in message {} after {before}",
            message.sequence
        );
        (*sequence, *before) = (message.sequence, version);
    }
}

#[test]
fn mirrors_and_servers_that_die_leave_the_bucket_and_a_replica_equal_to_the_store() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&program, dir.path(), 3, "");
    let url = cluster.url();
    let store = store(dir.path());
    let path = &*store.path().to_string_lossy().into_owned();
    let replica = dir.path().join("replica.rec");
    let mirror = || Running::start(nats(&["mirror", path, &url, "--bucket", "b", "--standby", "-q"]));
    let pull = || Running::start(nats(&["pull", &url, text(&replica), "--bucket", "b", "-q"]));
    let connection = connection(&cluster);
    wait_for("a cluster that takes a bucket", || {
        run(&["mirror", path, &url, "--bucket", "b", "--once", "--replicas", "3"]).status.success()
    });
    let mut mirrors = [mirror(), mirror()];
    let mut puller = pull();
    let is_over = AtomicBool::new(false);
    let writes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = StdRng::seed_from_u64(seed ^ 1);
            let mut writes = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                change(&store, &mut rng);
                writes += 1;
                std::thread::sleep(Duration::from_micros(300)); // The mirror is to keep up now and then.
            }
            writes
        });
        let mut seen = BTreeMap::new();
        let (start, length) = (Instant::now(), length(8));
        while start.elapsed() < length {
            let server = rng.random_range(0..3);
            match rng.random_range(0..60) {
                0..6 => {
                    let killed = std::mem::replace(&mut mirrors[server % 2], mirror());
                    killed.kill();
                }
                6..8 => std::mem::replace(&mut puller, pull()).kill(),
                8 => cluster.servers[server].kill(),
                9 => cluster.servers[server].stop(),
                10 => connection.run(async {
                    if let Ok(stream) = connection.jetstream.get_stream_no_info("KV_b").await {
                        let purged = stream.purge();
                        let _ = tokio::time::timeout(Duration::from_secs(2), async { purged.await }).await;
                    }
                }),
                11..15 => cluster.heal(),
                _ => watch_versions(&connection, &mut seen, &mut rng),
            }
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(writes > 100, "{writes} writes");
    cluster.heal();
    // The mirrors that run do it, without a new start.
    is_equal_in_the_end(path, &url, "b");
    assert!(mirrors.iter_mut().all(Running::is_running));
    // So does the pull; and a new one adds nothing.
    let records = |path: &Path| -> BTreeMap<u64, Vec<u8>> {
        let store = Store::options().open_read_only(path).unwrap();
        store.iter().map(|record| record.map(|record| (record.id(), record.into_data())).unwrap()).collect()
    };
    let ours = records(store.path());
    wait_for("the replica to equal the store", || records(&replica) == ours);
    assert!(puller.is_running());
    puller.kill();
    mirrors.into_iter().for_each(Running::kill);
    succeeds(&["pull", &url, text(&replica), "--bucket", "b", "--once"]);
    assert_eq!(records(&replica), ours);
}
