//! Processes that die or stop in the middle, operating systems that go down, disks that are full or go away: what was
//! acknowledged is there, and whoever is left goes on.
//!
//! Each module says at its top what it fails for. A worker is this binary again, with the `child_entry` of its module.

#[path = "../common/mod.rs"]
mod common;

mod all_or_nothing;
mod changes_of_the_stopped;
mod continuity;
mod housekeeping;
mod kill_points;
mod layers_power_loss;
mod os_crash;
mod random_deaths;
mod real_disks;
mod remount;
mod repair_killed;
mod stopped_anywhere;
mod stopped_inside;
mod torture;
