//! Damaged, forged and foreign files: the right data or an error that names the damage.
//!
//! Each module says at its top what it fails for. A worker is this binary again, with the `child_entry` of its module.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/layout.rs"]
mod layout;

mod every_bit;
mod fixtures;
mod hostile_open;
mod lies;
mod wrecks;
