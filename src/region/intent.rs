//! Noting what the owner of a region's lock is about to do, so that the next owner can finish it if this one dies.
//!
//! 1. The owner notes the slots that will be on no list, and the counts that it will change, and then its intent.
//! 2. It does the work, and then stores that nothing is begun.
//!
//! The words lie in the region's head. One that dies leaves the intent, its notes and a prefix of the work's stores; `region::finish`
//! tells what the next owner makes of them. A lock is not given back with an intent: the region is marked instead, and rebuilt.
//!
//! Work that takes other such work along (a batch) is not noted: its intent is [`Intent::Unnoted`].

use crate::format::region::{Head, Intent, Notes};
use crate::format::word::Reference;
use crate::region::find::Place;
use crate::region::head::Region;
use crate::region::slots::{FreeSlot, Origin};
use crate::sys::atomic::{Ordering, compiler_fence};
use crate::sys::step::step;

/// Work that was begun.
#[must_use]
pub(super) struct Begun<'a>(Option<Head<'a>>);

impl Begun<'_> {
    /// The work is done. Work that ends with an error is not: see [`Region::mark_unless_idle`].
    #[inline]
    pub(super) fn end(self) {
        if let Some(head) = self.0 {
            end(head);
        }
    }
}

#[inline]
fn end(head: Head<'_>) {
    head.intent().store(Intent::Idle.with(0), Ordering::Release);
    compiler_fence(Ordering::SeqCst);
}

impl<'a> Region<'a> {
    /// Begins work of this number (see [`Intent::with`]). `note` stores what it needs.
    #[inline]
    pub(super) fn begin(&self, intent: u64, note: impl FnOnce(Notes<'a>)) -> Begun<'a> {
        note(self.head.notes());
        self.head.intent().store(intent, Ordering::Release);
        compiler_fence(Ordering::SeqCst); // No store of the work comes first.
        step("intent: noted");
        Begun(Some(self.head))
    }

    /// Begins work of which nothing is noted, until [`end`](Self::end): if the owner dies, the region is rebuilt.
    pub(super) fn begin_unnoted(&self) {
        let _ = self.begin(Intent::Unnoted.with(0), |_| {});
    }

    /// [`begin`](Self::begin) for work that may be part of other work, of which nothing is noted.
    pub(super) fn begin_unless_unnoted(&self, intent: u64, note: impl FnOnce(Notes<'a>)) -> Begun<'a> {
        if self.is_unnoted() { Begun(None) } else { self.begin(intent, note) }
    }

    /// Adds to the notes of the work that was begun, unless nothing is noted of it: then the words have another use.
    pub(super) fn note(&self, note: impl FnOnce(Notes<'a>)) {
        if !self.is_unnoted() {
            note(self.head.notes());
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn is_unnoted(&self) -> bool {
        self.head.intent().load(Ordering::Relaxed) == Some(Intent::Unnoted.with(0))
    }

    /// Nothing is begun any more.
    pub(crate) fn end(&self) {
        end(self.head);
    }

    /// Marks the region if work was begun and not ended: it ended with an error.
    #[inline]
    pub(crate) fn mark_unless_idle(&self) {
        if !self.head.intent().is_zero(Ordering::Relaxed) {
            self.mark_begun();
        }
    }

    #[cold]
    fn mark_begun(&self) {
        self.mark();
    }

    /// Begins to put a version into `candidate`, and its entry into `place`. `old`: the slot of the version that it replaces.
    #[inline]
    pub(super) fn begin_put(
        &self,
        candidate: &FreeSlot<'_>,
        place: &Place<'_>,
        old: Option<u32>,
    ) -> Begun<'a> {
        let head = self.head;
        let over_marker = old.is_none() && place.replaced() == self.shape().deleted();
        let intent = match candidate.origin {
            Origin::FreeList(..) => Intent::Put,
            Origin::Fresh(..) => Intent::PutFresh,
            Origin::Reserved => Intent::PutReserved,
        };
        self.begin(intent.with(over_marker.into()), |notes| {
            notes.taken.store(Reference::to(candidate.slot).word(), Ordering::Relaxed);
            notes.given_up.store(old.map_or(Reference::NONE, Reference::to), Ordering::Relaxed);
            notes.free_count.store_that_of(head.free_count());
            let of_reserved = if old.is_some() {
                notes.retired_count.store_that_of(head.retired_count());
                notes.live
            } else {
                notes.live.store_that_of(head.live());
                notes.more.store_that_of(head.markers());
                notes.retired_count
            };
            if let Origin::Reserved = candidate.origin {
                of_reserved.store_that_of(head.reserved());
            }
        })
    }

    /// Begins to delete the record `id` in `slot`, whose entry is at `place`.
    pub(super) fn begin_delete(&self, id: u64, slot: u32, place: &Place<'_>) -> Begun<'a> {
        let head = self.head;
        let leaves_marker = place.without(&self.shape()) != 0;
        self.begin(Intent::Delete.with(leaves_marker.into()), |notes| {
            notes.taken.store(id, Ordering::Relaxed);
            notes.given_up.store(Reference::to(slot), Ordering::Relaxed);
            notes.free_count.store_that_of(head.free_count());
            notes.live.store_that_of(head.live());
            notes.retired_count.store_that_of(head.retired_count());
            notes.more.store_that_of(head.markers());
        })
    }
}
