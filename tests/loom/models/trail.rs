//! Following the trail of a region: a feed ends with the last version, however many laps the writer is ahead, and however many feeds
//! there are. The index is one word here: the version that readers see. The steps of a feed are those of `store::changes`.

use std::sync::Arc;

use loom::thread;

use crate::explore::{Seen, explore_and_tell};
use crate::file::arena::Arena;
use crate::format::slot::{Address, PRESENT};
use crate::models::lock::{give_back, lock};
use crate::region::head::Region;
use crate::region::watch::follow;
use crate::sys::atomic::{AtomicU64, Ordering, exchanges_are_fences};

const X: u64 = 1;

/// A feed's state.
#[derive(Default)]
struct Feed {
    told: u64,
    position: Option<u64>,
}

impl Feed {
    /// Takes the entries behind the position.
    fn take(&mut self, arena: &Arena) {
        let Some(position) = self.position.take() else { return };
        let trail = arena.trail(0).unwrap();
        let Some(count) = follow(trail, arena.head(0)).filter(|&count| !trail.is_behind(position, count))
        else {
            return;
        };
        for number in position..count {
            let Some(entry) = trail.read(number) else { return };
            assert_eq!(entry.id, X);
            self.told = self.told.max(entry.seq & !PRESENT);
        }
        self.position = Some(count);
    }

    /// One look.
    fn look(&mut self, arena: &Arena, visible: &AtomicU64, seen: &Seen) {
        self.take(arena);
        if self.position.is_some() {
            seen.note("followed");
            return;
        }
        seen.note("compared");
        self.position = follow(arena.trail(0).unwrap(), arena.head(0));
        lock(arena);
        give_back(arena);
        self.told = self.told.max(visible.load(Ordering::Acquire));
    }
}

fn write(arena: &Arena, visible: &AtomicU64, version: u64) {
    lock(arena);
    visible.store(version, Ordering::Release);
    Region::new(arena, 0).tell(X, PRESENT | version, Address::Id);
    give_back(arena);
}

/// The writer writes so often; each feed looks twice beside it, and once when it is done.
fn feeds_beside_a_writer(seen: &Seen, writes: u64, feeds: u32) {
    let arena = Arena::new(2);
    let visible = Arc::new(AtomicU64::new(0));
    let follower = |number| {
        let (arena, visible, seen) = (arena.attach(number), Arc::clone(&visible), seen.clone());
        thread::spawn(move || {
            let mut feed = Feed::default();
            feed.look(&arena, &visible, &seen);
            feed.look(&arena, &visible, &seen);
            feed
        })
    };
    let following: Vec<_> = (1..=feeds).map(follower).collect();
    let writer = arena.attach(0);
    (1..=writes).for_each(|version| write(&writer, &visible, version));
    for feed in following {
        let mut feed = feed.join().unwrap();
        feed.look(&writer, &visible, seen);
        assert_eq!(feed.told, writes, "a change was told to nobody");
    }
}

#[test]
fn a_feed_ends_with_the_last_version() {
    exchanges_are_fences();
    let seen = explore_and_tell("trail: one feed", Some(3), |seen| feeds_beside_a_writer(seen, 3, 1));
    seen.expect(&["followed", "compared"]);
}

/// Four writes without a look end two laps: the writer stops telling, and another feed makes it tell again.
#[test]
fn feeds_end_with_the_last_version_when_writers_stopped_telling_and_another_feed_came() {
    exchanges_are_fences();
    let seen = explore_and_tell("trail: two feeds", Some(2), |seen| feeds_beside_a_writer(seen, 5, 2));
    seen.expect(&["followed", "compared"]);
}
