//! The boards of a store: see [`crate::format::board`].
//!
//! 1. A board is made under the growth lock: room in an extent for index tables, cleared words, and at last the word of the control page
//!    that leads to it.
//! 2. A handle believes a place once it has seen that it lies in an extent for index tables, and that no table lies there: what it
//!    stores there must not be over a record. A place that is not believed is as none.
//! 3. Without a board, watchers and feeds do without: a watcher wakes for every change of its region, and a feed compares regions.

use std::ops::Range;

use crate::error::Result;
use crate::file::arena::Arena;
use crate::file::grow::Growth;
use crate::format::board::{BOARDS, Board, BoardPlace, trail_bytes};
use crate::format::extent::ExtentKind;
use crate::format::geometry::EXTENT_HEADER_BYTES;
use crate::protocol::bell::Bells;
use crate::protocol::trail::Trail;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::file;
use crate::sys::step::step;

/// A new trail begins at a count of so many random bits.
const TRAIL_BEGIN_BITS: u32 = 44;

/// The word of the control page that leads to a board.
#[inline]
fn word_of(arena: &Arena, board: Board) -> &AtomicU64 {
    match board {
        Board::Bells => arena.control().bells(),
        Board::Trails => arena.control().trails(),
    }
}

impl Arena {
    /// The place of a board, if the store has one and it is believed.
    #[inline]
    fn board(&self, board: Board) -> Option<BoardPlace> {
        let word = word_of(self, board).load(Ordering::Acquire);
        if word == 0 {
            return None;
        }
        if self.boards[board as usize].believed.load(Ordering::Relaxed) == word
            || self.meet_board(board, word)
        {
            BoardPlace::decode(word)
        } else {
            None
        }
    }

    /// Looks at a place that the handle has not met yet. Returns whether it is believed.
    #[cold]
    fn meet_board(&self, board: Board, word: u64) -> bool {
        let known = &self.boards[board as usize];
        if known.refused.load(Ordering::Relaxed) == word {
            return false;
        }
        let Some(range) = self.range_of(board, word).filter(|range| self.is_free_for_board(range)) else {
            known.refused.store(word, Ordering::Relaxed);
            return false;
        };
        self.map.populate(range.start, range.end - range.start);
        known.believed.store(word, Ordering::Relaxed);
        true
    }

    /// The bytes of a board by the word of the control page, if they are in the file.
    fn range_of(&self, board: Board, word: u64) -> Option<Range<u64>> {
        let place = BoardPlace::decode(word).filter(|place| board.has_size(place.size_log2()))?;
        let bytes = board.bytes(&self.geo, place.size_log2());
        self.words(place.offset(), (bytes / 8) as usize)?;
        Some(place.offset()..place.offset() + bytes)
    }

    /// The bytes of a board, if the store has one.
    pub(crate) fn board_range(&self, board: Board) -> Option<Range<u64>> {
        self.range_of(board, word_of(self, board).load(Ordering::Acquire))
    }

    fn is_free_for_board(&self, range: &Range<u64>) -> bool {
        let mut inside = false;
        let walked = self.each_extent(|extent| {
            if extent.kind == Some(ExtentKind::Index) {
                let room = extent.range(&self.geo);
                let end = room.end - if self.geo.grows { EXTENT_HEADER_BYTES } else { 0 };
                inside |= room.start + EXTENT_HEADER_BYTES <= range.start && range.end <= end;
            }
        });
        let is_beside = |other: Range<u64>| other.end <= range.start || range.end <= other.start;
        let tables = (0..self.geo.regions).map(|region| self.shape(region));
        walked.is_ok()
            && inside
            && tables.map(|table| table.offset()..table.offset().saturating_add(table.bytes())).all(is_beside)
    }

    /// Makes a board, if the store has none that is believed. Returns whether it has one now: a store without room for one has none.
    pub(crate) fn ensure_board(&self, board: Board) -> Result<bool> {
        if self.board(board).is_some() {
            return Ok(true);
        }
        let Some(size_log2) = board.size_log2(&self.geo) else { return Ok(false) };
        let mut growth = Growth::lock_soon(self)?;
        if self.board(board).is_some() {
            return Ok(true); // Another handle has made it.
        }
        let bytes = board.bytes(&self.geo, size_log2);
        let place = BoardPlace::new(growth.index_space(0, bytes)?, size_log2);
        step("board: room for it");
        for word in self.words(place.offset(), (bytes / 8) as usize).unwrap_or_default() {
            word.store(0, Ordering::Relaxed);
        }
        if board == Board::Trails {
            // The place may be that of trails which a feed knows: no trail begins at a count that a feed may have.
            let begin =
                file::random().map_err(self.io("asking for a random number"))? >> (64 - TRAIL_BEGIN_BITS);
            for region in 0..self.geo.regions {
                let at = place.offset() + u64::from(region) * trail_bytes(size_log2);
                let trail = self.words(at, (trail_bytes(size_log2) / 8) as usize).and_then(Trail::of);
                trail.into_iter().for_each(|trail| trail.begin_at(begin));
            }
        }
        word_of(self, board).store(place.encode(), Ordering::SeqCst);
        step("board: in use");
        drop(growth);
        Ok(self.board(board).is_some())
    }

    /// Notes that the store has no trails, if there is a place for them that this handle does not believe. Feeds see that, and compare
    /// the regions.
    #[cold]
    pub(crate) fn withdraw_trails(&self) {
        let word = word_of(self, Board::Trails);
        let place = word.load(Ordering::Acquire);
        if place != 0 && self.trails_are_at().is_none() {
            let _ = word.compare_exchange(place, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Whether bytes are part of a board.
    pub(crate) fn has_board_in(&self, bytes: &Range<u64>) -> bool {
        let overlaps = |range: Range<u64>| range.start < bytes.end && bytes.start < range.end;
        BOARDS.into_iter().filter_map(|board| self.board_range(board)).any(overlaps)
    }

    /// Notes that the store has no board. For recovery: no handle is attached.
    pub(crate) fn forget_boards(&self) {
        for board in BOARDS {
            word_of(self, board).store(0, Ordering::SeqCst);
        }
    }

    /// The bells, if the store has them.
    #[inline]
    pub(crate) fn bells(&self) -> Option<Bells<'_>> {
        let place = self.board(Board::Bells)?;
        Bells::of(self.words(place.offset(), 1 << place.size_log2())?)
    }

    /// The trail of a region, if the store has trails.
    #[inline]
    pub(crate) fn trail(&self, region: u32) -> Option<Trail<'_>> {
        let place = self.board(Board::Trails)?;
        let bytes = trail_bytes(place.size_log2());
        Trail::of(self.words(place.offset() + u64::from(region) * bytes, (bytes / 8) as usize)?)
    }

    /// A number for the place of the trails: another one if they were made anew.
    pub(crate) fn trails_are_at(&self) -> Option<u64> {
        self.board(Board::Trails).map(BoardPlace::encode)
    }
}
