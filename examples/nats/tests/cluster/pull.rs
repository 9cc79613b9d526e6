//! Replicas.

use rand::SeedableRng;
use rand::rngs::StdRng;
use recstore::{Error, Store};

use crate::commands::{Running, connection, fails, nats, succeeds, text};
use crate::mirror::{change, store};
use crate::seed;
use crate::servers::{Cluster, program, wait_for};

#[test]
fn a_replica_follows_through_a_restart_of_the_server_and_refuses_other_writers() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(&program, dir.path(), 1, "");
    let url = &cluster.url();
    let store = store(dir.path());
    let mut rng = StdRng::seed_from_u64(seed());
    (0..500).for_each(|_| change(&store, &mut rng));
    let path = &*store.path().to_string_lossy().into_owned();
    let replica = dir.path().join("replica.rec");
    fails(4, "stream not found", &["pull", url, text(&replica), "--bucket", "b", "--give-up-after", "0"]);
    succeeds(&["mirror", path, url, "--bucket", "b", "--once"]);
    succeeds(&["pull", url, text(&replica), "--bucket", "b", "--once"]);
    let is_equal = || {
        let replica = Store::options().open_read_only(&replica).unwrap();
        let same = |id| {
            store.get(id).unwrap().map(|r| r.into_data()) == replica.get(id).unwrap().map(|r| r.into_data())
        };
        (0..200).all(same)
    };
    assert!(is_equal());

    let mut mirror = Running::start(nats(&["mirror", path, url, "--bucket", "b", "--json"]));
    let mut pull = Running::start(nats(&["pull", url, text(&replica), "--bucket", "b", "--json"]));
    mirror.wait_until("the mirror", |numbers| numbers["equal"] == true);
    pull.wait_until("the pull", |numbers| numbers["equal"] == true);
    fails(6, &pull.id().to_string(), &["pull", url, text(&replica), "--bucket", "b", "--once"]);
    for _ in 0..2 {
        cluster.servers[0].kill();
        (0..100).for_each(|_| change(&store, &mut rng));
        cluster.servers[0].start();
        (0..100).for_each(|_| change(&store, &mut rng));
        wait_for("the replica", is_equal);
    }
    // The bucket loses everything, and the mirror fills it again.
    let connection = connection(&cluster);
    connection.run(async {
        connection.jetstream.delete_stream("KV_b").await.unwrap();
    });
    store.put(1, b"after the loss").unwrap();
    wait_for("the replica", is_equal);

    // Others: refused by the file's mode, unless they are root; and noticed.
    let is_root = nix::unistd::geteuid().is_root();
    match Store::open(&replica) {
        Ok(other) => {
            assert!(is_root, "others can write");
            other.put(1, b"by somebody else").unwrap();
            store.put(1, b"by the mirror").unwrap();
            assert_eq!(pull.wait().code(), Some(4));
        }
        Err(Error::Io { .. }) => pull.kill(),
        Err(error) => panic!("{error}"),
    }
    mirror.kill();
    succeeds(&["mirror", path, url, "--bucket", "b", "--once", "--verify"]);
    succeeds(&["pull", url, text(&replica), "--bucket", "b", "--once"]);
    assert!(is_equal());

    // A store that is no replica is not overwritten unasked.
    let precious = dir.path().join("precious.rec");
    Store::create(&precious).unwrap().put(1, b"mine").unwrap();
    fails(4, "no replica", &["pull", url, text(&precious), "--bucket", "b", "--once"]);
    assert_eq!(Store::open(&precious).unwrap().get(1).unwrap().unwrap().data(), b"mine");
    // Records that are too small for some values: named.
    let small = dir.path().join("small.rec");
    store.put(77, [7; 100]).unwrap();
    succeeds(&["mirror", path, url, "--bucket", "b", "--once"]);
    fails(1, "77: ", &["pull", url, text(&small), "--bucket", "b", "--once", "--record-size", "32"]);
}

#[test]
fn a_space_and_a_bucket_of_others_are_pulled() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&program, dir.path(), 1, "");
    let url = &cluster.url();
    let store = store(dir.path());
    let sessions = store.space("sessions").unwrap();
    for key in [&b"ann@example.org"[..], b"", b"\xff\0"] {
        sessions.put(key, key).unwrap();
    }
    let path = &*store.path().to_string_lossy().into_owned();
    succeeds(&["mirror", path, url, "--bucket", "s", "--space", "sessions", "--once"]);
    let replica = dir.path().join("replica.rec");
    succeeds(&["pull", url, text(&replica), "--bucket", "s", "--once"]);
    let pulled = Store::options().open_read_only(&replica).unwrap();
    let pulled = pulled.space("sessions").unwrap();
    assert_eq!(pulled.len().unwrap(), 3);
    assert_eq!(pulled.get(b"\xff\0").unwrap().unwrap().data(), b"\xff\0");

    let connection = connection(&cluster);
    connection.run(async {
        let config = async_nats::jetstream::stream::Config {
            name: "KV_config".into(),
            subjects: vec!["$KV.config.>".into()],
            max_messages_per_subject: 5,
            ..Default::default()
        };
        connection.jetstream.create_stream(config).await.unwrap();
        for value in ["one", "two"] {
            let sent = connection.jetstream.publish("$KV.config.app/a.b", value.into()).await.unwrap();
            sent.await.unwrap();
        }
    });
    let config = dir.path().join("config.rec");
    fails(1, "no id", &["pull", url, text(&config), "--bucket", "config", "--once"]);
    let config = dir.path().join("config2.rec");
    succeeds(&["pull", url, text(&config), "--bucket", "config", "--space", "config", "--once"]);
    let pulled = Store::options().open_read_only(&config).unwrap();
    assert_eq!(pulled.space("config").unwrap().get("app/a.b").unwrap().unwrap().data(), b"two");
}
