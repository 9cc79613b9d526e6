//! Running a model in every order, and noting what was seen: a model that never reaches the race that it
//! is about would pass as well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Everything: every interleaving of every thread.
pub(crate) const ALL: Option<usize> = None;
/// One interleaving, in which the threads run one after the other in the order in which they were
/// spawned, and in it every value that each load may give. See the top of `main.rs` for why that is
/// everything when each thread only reads what those spawned before it write.
pub(crate) const IN_TURN: Option<usize> = Some(0);

/// What was seen in how many executions, and how many there were.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    kinds: Arc<Mutex<BTreeMap<String, usize>>>,
    executions: Arc<AtomicUsize>,
}

impl Seen {
    pub(crate) fn note(&self, what: impl Into<String>) {
        *self.kinds.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub(crate) fn executions(&self) -> usize {
        self.executions.load(Ordering::Relaxed)
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.kinds.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn has(&self, what: &str) -> bool {
        self.kinds.lock().unwrap().contains_key(what)
    }

    /// Asserts that each of these was seen in some execution.
    #[track_caller]
    pub(crate) fn expect(&self, all: &[&str]) {
        for what in all {
            assert!(self.has(what), "no execution came to {what:?}, but to {:?}", self.kinds());
        }
    }
}

/// Runs `model` in every order with `preemptions` preemptions at most; what it noted.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn(&Seen) + Send + Sync + 'static) -> Seen {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 5_000;
    builder.preemption_bound = preemptions;
    let seen = Seen::default();
    let noted = seen.clone();
    builder.check(move || {
        noted.executions.fetch_add(1, Ordering::Relaxed);
        model(&noted);
    });
    seen
}

/// The same, and says how much that was.
pub(crate) fn explore_and_tell(
    name: &str,
    preemptions: Option<usize>,
    model: impl Fn(&Seen) + Send + Sync + 'static,
) -> Seen {
    let seen = explore(preemptions, model);
    println!("{name}: {} executions, {:?}", seen.executions(), seen.kinds.lock().unwrap());
    seen
}
