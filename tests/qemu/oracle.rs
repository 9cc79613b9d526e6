//! What may be in a store after the power went, from what was acknowledged as durable.

use std::collections::{BTreeMap, BTreeSet};

use super::work::{Batch, End, Name, STREAMS};

/// What one store may hold.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The states that each id may be found in, in order: the last one known to be durable, and all
    /// that may have been given to it since. An id without any was never written.
    states: BTreeMap<u64, Vec<Option<Name>>>,
    seen: BTreeSet<u64>,
}

impl Oracle {
    /// The batch may have been begun.
    pub(crate) fn begun(&mut self, batch: &Batch) {
        for (id, state) in batch.effects() {
            self.states.entry(id).or_insert_with(|| vec![None]).push(state);
        }
    }

    /// The batch was acknowledged as durable, as far as its end says.
    pub(crate) fn acknowledged(&mut self, batch: &Batch) {
        for (id, states) in &mut self.states {
            let is_durable = match batch.end {
                End::Sync | End::Reopen => id % STREAMS == batch.stream,
                End::Durable(only, _) => *id == only,
            };
            if is_durable {
                states.drain(..states.len() - 1);
            }
        }
    }

    /// The store was opened and this was found in it.
    pub(crate) fn found(&mut self, id: u64, name: Name) -> Result<(), String> {
        if !self.seen.insert(id) {
            return Err(format!("id {id} was given out twice"));
        }
        self.settle(id, Some(name))
    }

    /// All has been said that is in the store.
    pub(crate) fn nothing_else(&mut self) -> Result<(), String> {
        let seen = std::mem::take(&mut self.seen);
        let missing: Vec<u64> = self.states.keys().filter(|id| !seen.contains(id)).copied().collect();
        missing.into_iter().try_for_each(|id| self.settle(id, None))
    }

    /// The report was cut off.
    pub(crate) fn cut_off(&mut self) {
        self.seen.clear();
    }

    /// Records that were found are durable: recovery flushed what it left.
    fn settle(&mut self, id: u64, state: Option<Name>) -> Result<(), String> {
        let states = self.states.entry(id).or_insert_with(|| vec![None]);
        if !states.contains(&state) {
            return Err(format!("id {id} is {state:?}; durable or later: {states:?}"));
        }
        *states = vec![state];
        Ok(())
    }
}
