//! Records that are found by keys: spaces, deadlines, queues, counters, rings, values of a type, caches.
//!
//! Each module says at its top what it fails for. A worker is this binary again, with the `child_entry` of its module. All of them cut
//! the hash of a key to 8 bits, so keys share ids all the time.

#![cfg(all(feature = "testing", feature = "bindings"))]

#[path = "../common/mod.rs"]
mod common;

mod caches;
mod clocks;
mod expiry;
mod expiry_races;
mod queue_deaths;
mod queues;
mod shapes;
mod spaces;
mod steps;
