//! What the calls promise: in one process, in several, in threads, and after a fork.
//!
//! Each module says at its top what it fails for. A worker is this binary again, with the `child_entry` of its module.

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod copies;
mod create;
mod durability;
mod features;
mod feeds;
mod fork;
mod fork_views;
mod full;
mod growth;
mod handles;
mod histories;
mod iteration;
mod lacking;
mod lent_or_copied;
mod many_regions;
mod mirror_deaths;
mod mirror_places;
mod mirrors;
mod model;
mod namespaces;
mod pins;
mod reservations;
mod ring_tail;
mod room;
mod room_again;
mod shared_memory;
mod shared_names;
mod small_calls;
mod snapshots;
mod stopped;
mod surroundings;
mod syscalls;
mod tasks;
mod threads;
mod verified_in_use;
mod waits;
mod watching;
