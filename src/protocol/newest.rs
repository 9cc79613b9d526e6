//! The newest version of each record, from versions that come in any order.

use std::collections::HashMap;

/// For each id, the version that was offered with the highest `seq`.
#[derive(Debug)]
pub(crate) struct Newest<V>(HashMap<u64, (u64, V)>);

impl<V> Default for Newest<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Newest<V> {
    /// Takes a version of `id`, unless there is a newer one. Of two versions with the same `seq` the first stays.
    pub(crate) fn offer(&mut self, id: u64, seq: u64, version: V) {
        let newest = self.0.entry(id);
        match newest {
            std::collections::hash_map::Entry::Occupied(mut kept) if kept.get().0 < seq => {
                kept.insert((seq, version));
            }
            std::collections::hash_map::Entry::Occupied(_) => {}
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert((seq, version));
            }
        }
    }

    /// The newest version of `id`, with its `seq`.
    pub(crate) fn get(&self, id: u64) -> Option<(u64, &V)> {
        self.0.get(&id).map(|(seq, version)| (*seq, version))
    }

    /// The newest version of each id: id, `seq`, version.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64, &V)> {
        self.0.iter().map(|(&id, (seq, version))| (id, *seq, version))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_stays_whatever_comes_first() {
        let mut newest = Newest::default();
        for (id, seq, version) in [(1, 5, "b"), (1, 4, "a"), (1, 6, "c"), (1, 6, "d"), (2, 1, "x")] {
            newest.offer(id, seq, version);
        }
        assert_eq!(newest.get(1), Some((6, &"c")));
        assert_eq!(newest.get(2), Some((1, &"x")));
        assert_eq!(newest.get(3), None);
        assert_eq!(newest.iter().count(), 2);
    }
}
