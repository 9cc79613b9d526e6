//! The file of a store, and its handles: typed places, extents and growth, blocks, seats, moments and borrows.

pub(crate) mod arena;
pub(crate) mod blocks;
pub(crate) mod boards;
pub(crate) mod borrow;
pub(crate) mod by_region;
pub(crate) mod byte_lock;
pub(crate) mod continuity;
pub(crate) mod extents;
pub(crate) mod grow;
pub(crate) mod hint;
pub(crate) mod notice;
pub(crate) mod numbers;
pub(crate) mod pass;
pub(crate) mod seat;
pub(crate) mod survey;
