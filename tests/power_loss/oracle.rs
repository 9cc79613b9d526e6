//! What may be there after a crash: per record, any state that it was given since the last flush,
//! and the one that it had at the flush.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use recstore::Record;

/// What a record is: its bytes, and its version where it is known; or absent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Value { bytes: Rc<[u8]>, version: Option<u64> },
}

impl State {
    pub(crate) fn of(record: Option<&Record>) -> Self {
        match record {
            None => Self::Absent,
            Some(r) => Self::Value { bytes: r.data().into(), version: Some(r.version().get()) },
        }
    }

    /// What it is but for the version.
    pub(crate) fn bytes(self) -> Option<Rc<[u8]>> {
        match self {
            Self::Absent => None,
            Self::Value { bytes, .. } => Some(bytes),
        }
    }

    /// Whether what was found is this.
    fn is(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Absent, Self::Absent) => true,
            (Self::Value { bytes: a, version: v }, Self::Value { bytes: b, version: w }) => {
                a == b && (v.is_none() || v == w)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Value { bytes, version } => {
                write!(f, "{} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(8)])?;
                version.map_or(Ok(()), |v| write!(f, " version {v}"))
            }
        }
    }
}

#[derive(Clone)]
struct History {
    states: Vec<State>,
    /// The state that the last flush made durable: nothing before it may come back.
    floor: usize,
    /// The last state whose write was acknowledged; those after it may or may not be.
    known: usize,
    /// The highest version that was given out.
    version: u64,
}

/// The states of all records.
#[derive(Clone)]
pub(crate) struct Oracle {
    ids: BTreeMap<u64, History>,
    /// Of each batch since the last crash: its ids, each with the place of its state in the history.
    batches: Vec<Vec<(u64, usize)>>,
    /// A store has been opened since the crash, so it is known which states came back.
    settled: bool,
    /// No number of versions was lost with a head that was spoiled.
    pub(crate) versions_rise: bool,
}

/// How far every record had come at one moment.
pub(crate) type Mark = BTreeMap<u64, usize>;

impl Oracle {
    /// All of these ids are absent.
    pub(crate) fn new(ids: u64) -> Self {
        let empty = History { states: vec![State::Absent], floor: 0, known: 0, version: 0 };
        let ids = (0..ids).map(|id| (id, empty.clone())).collect();
        Self { ids, batches: Vec::new(), settled: true, versions_rise: true }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.ids.keys().copied()
    }

    /// A write begins.
    pub(crate) fn begin(&mut self, id: u64, state: State) {
        self.history(id).states.push(state);
    }

    /// The writes that began last of each of these are one batch.
    pub(crate) fn batch(&mut self, ids: &[u64]) {
        self.batches.push(ids.iter().map(|&id| (id, self.ids[&id].states.len() - 1)).collect());
    }

    /// All writes of the id that began are acknowledged.
    pub(crate) fn acknowledge(&mut self, id: u64, given: Option<u64>) {
        let history = self.history(id);
        history.known = history.states.len() - 1;
        if let (Some(State::Value { version, .. }), Some(given)) = (history.states.last_mut(), given) {
            *version = Some(given);
            history.version = history.version.max(given);
        }
    }

    fn history(&mut self, id: u64) -> &mut History {
        self.ids.get_mut(&id).expect("an id of the workload")
    }

    /// What a flush that begins now makes durable. A recovery makes nothing of what was lost so.
    pub(crate) fn mark(&self) -> Mark {
        self.ids.iter().map(|(&id, h)| (id, if self.settled { h.known } else { h.floor })).collect()
    }

    /// What a flush that begins now makes durable before the sync that asked for it returns: not what batches
    /// wrote, nor what they replaced.
    pub(crate) fn mark_of_flush(&self) -> Mark {
        let mut mark = self.mark();
        for &(id, at) in self.batches.iter().flatten() {
            let floor = self.ids[&id].floor;
            if at > floor {
                mark.insert(id, floor);
            }
        }
        mark
    }

    /// What was known at the mark is durable.
    pub(crate) fn raise(&mut self, mark: &Mark) {
        for (id, history) in &mut self.ids {
            history.floor = history.floor.max(mark[id]);
        }
    }

    /// What is known of this record now is durable.
    pub(crate) fn raise_one(&mut self, id: u64) {
        let history = self.history(id);
        history.floor = history.known;
    }

    /// The machine goes down: what comes back is not known until somebody has looked.
    pub(crate) fn machine_dies(&mut self) {
        self.settled = false;
    }

    /// Whether this may be the record after a crash.
    pub(crate) fn admits(&self, id: u64, found: &State) -> Result<(), String> {
        let Some(history) = self.ids.get(&id) else {
            return Err(format!("record {id} was never written; found: {found:?}"));
        };
        let allowed = &history.states[history.floor..];
        if allowed.iter().any(|s| s.is(found)) {
            return Ok(());
        }
        let older = history.states[..history.floor].iter().any(|s| s.is(found));
        let why = if older { "which is older than what was synced" } else { "which it never was" };
        Err(format!("record {id}: found {found:?}, {why}; allowed: {allowed:?}"))
    }

    /// Whether these may be the records after a crash, as far as batches go: of none is a part missing and a
    /// part there.
    pub(crate) fn admits_batches(&self, found: &[(u64, State)]) -> Result<(), String> {
        let places = |id: u64| -> Vec<usize> {
            let history = &self.ids[&id];
            let state = found.iter().find(|f| f.0 == id).map(|f| &f.1);
            let is_it = |at: &usize| state.is_some_and(|state| history.states[*at].is(state));
            (history.floor..history.states.len()).filter(is_it).collect()
        };
        for batch in &self.batches {
            let there = batch.iter().find(|(id, at)| places(*id) == [*at]);
            let missing = batch.iter().find(|(id, at)| places(*id).iter().all(|place| place < at));
            if let (Some(there), Some(missing)) = (there, missing) {
                return Err(format!(
                    "of the batch of {batch:?}, {there:?} is there and {missing:?} is not: {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// A store was opened and every record looked at.
    ///
    /// After a crash of the machine: whatever came back is there to stay. After a mere death of the
    /// process: the last state that was acknowledged, or one whose write was under way; if it is not
    /// that, it may still become that, when the region is healed.
    pub(crate) fn look(&mut self, found: Vec<(u64, State)>) -> Result<(), String> {
        if !self.settled {
            self.admits_batches(&found)?;
            self.batches.clear();
        }
        for (id, state) in found {
            if self.settled {
                let under_way = self.since_known(id, &state)?;
                self.history(id).states.extend(under_way);
            } else {
                self.admits(id, &state)?;
                let history = self.history(id);
                *history = History { states: vec![state], floor: 0, known: 0, version: history.version };
            }
        }
        self.settled = true;
        Ok(())
    }

    /// The writes under way were refused, and these are the records now.
    pub(crate) fn refused(&mut self, found: Vec<(u64, State)>) -> Result<(), String> {
        found.into_iter().try_for_each(|(id, state)| self.since_known(id, &state).map(drop))
    }

    /// The state is the last one that was acknowledged or one after it, and is from here on the last
    /// one that was acknowledged. Gives those after it.
    fn since_known(&mut self, id: u64, state: &State) -> Result<Vec<State>, String> {
        let history = self.history(id);
        let allowed = &history.states[history.known..];
        let Some(at) = allowed.iter().position(|s| s.is(state)) else {
            return Err(format!("record {id}: found {state:?}, and no machine died; allowed: {allowed:?}"));
        };
        let under_way = allowed[at + 1..].to_vec();
        history.states.push(state.clone());
        history.known = history.states.len() - 1;
        Ok(under_way)
    }

    /// The highest version that was given out for one of the ids.
    pub(crate) fn highest(&self, ids: impl Fn(u64) -> bool) -> u64 {
        self.ids.iter().filter(|(id, _)| ids(**id)).map(|(_, h)| h.version).max().unwrap_or(0)
    }
}
