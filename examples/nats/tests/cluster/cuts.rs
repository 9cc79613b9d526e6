//! A network that is cut: each server has a network namespace of its own, and its cable is pulled and plugged in again.
//!
//! The test starts itself in a namespace of its own, so that nothing is left of it. It needs root.

use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::commands::{Running, nats, run};
use crate::mirror::{change, is_equal_in_the_end, store};
use crate::servers::{Cluster, program, wait_for};
use crate::{length, seed};

const INSIDE: &str = "RECSTORE_NATS_INSIDE";

/// A bridge, and three namespaces with a cable to it.
const NETWORK: &str = "
    mount -t tmpfs none /run && ip link set lo up && ip link add br0 type bridge && ip link set br0 up &&
    ip addr add 10.77.0.1/24 dev br0 || exit 1
    for n in 0 1 2; do
        ip netns add n$n && ip link add v$n type veth peer name e$n && ip link set v$n master br0 && ip link set v$n up &&
        ip link set e$n netns n$n && ip -n n$n addr add 10.77.0.$((n + 2))/24 dev e$n && ip -n n$n link set e$n up &&
        ip -n n$n link set lo up || exit 1
    done
    ip netns exec n0 true || exit 1";

fn in_a_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", script]);
    command
}

fn plug(n: usize, state: &str) {
    let status = Command::new("ip").args(["link", "set", &format!("v{n}"), state]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_network_that_is_cut_leaves_the_bucket_equal_to_the_store() {
    let Some(program) = program() else { return };
    if std::env::var_os(INSIDE).is_none() {
        if !in_a_namespace(NETWORK).output().is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: no network namespaces here (they need root, and `ip`)");
            return;
        }
        let name = "cuts::a_network_that_is_cut_leaves_the_bucket_equal_to_the_store";
        let status = in_a_namespace(&format!("{NETWORK}\nexec \"$0\" --exact {name} --nocapture"))
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start_in_namespaces(&program, dir.path());
    let url = cluster.url();
    let store = store(dir.path());
    let path = &*store.path().to_string_lossy().into_owned();
    wait_for("a cluster that takes a bucket", || {
        run(&["mirror", path, &url, "--bucket", "b", "--once", "--replicas", "3"]).status.success()
    });
    let mut mirror = Running::start(nats(&["mirror", path, &url, "--bucket", "b", "-q"]));
    let (start, length) = (Instant::now(), length(8));
    let mut cuts = 0;
    while start.elapsed() < length {
        match rng.random_range(0..40) {
            0 => {
                plug(rng.random_range(0..3), "down");
                cuts += 1;
            }
            1..4 => (0..3).for_each(|n| plug(n, "up")),
            _ => {
                (0..20).for_each(|_| change(&store, &mut rng));
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    }
    (0..3).for_each(|n| plug(n, "up"));
    println!("{cuts} cuts");
    is_equal_in_the_end(path, &url, "b");
    assert!(mirror.is_running());
    mirror.kill();
}
