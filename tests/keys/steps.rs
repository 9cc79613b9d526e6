//! A call in a process that dies at each of its steps in turn.

use std::path::Path;

use recstore::Store;
use recstore::testing::arm;

use crate::common::{self, End, in_fork, wait_for};

/// Calls `call` on a store that `prepare` made, in a process that dies at each step in turn. Gives what it left to `check`, with
/// whether the process came to the end.
pub(crate) fn at_every_step(
    name: &str,
    prepare: impl Fn(&Path) -> Store,
    open: impl Fn(&Path) -> Store,
    call: impl Fn(&Store),
    check: impl Fn(&Store, bool),
) {
    let mut deaths = 0;
    for step in 1.. {
        let dir = common::scratch();
        let path = dir.path().join("s");
        let store = prepare(&path);
        let ends = wait_for(in_fork(|| {
            let store = open(&path);
            arm(step);
            call(&store);
            arm(0);
            0
        }));
        check(&store, ends != End::Killed);
        assert!(store.verify().unwrap().is_clean(), "{name}, step {step}");
        if ends != End::Killed {
            assert_eq!(ends, End::Exited(0), "{name}");
            break;
        }
        deaths += 1;
    }
    println!("{name}: {deaths} deaths");
    assert!(deaths > 5, "{name}");
}
