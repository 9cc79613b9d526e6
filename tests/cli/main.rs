//! The command, end to end: the built binary, its exit codes, what it prints and where.
//!
//! * [`records`]: one record at a time, and looking at them.
//! * [`usage`]: what is refused, with which exit code.
//! * [`streams`]: `dump` into `load`, pipes that close, outputs that are full.
//! * [`load`]: many writers, acknowledgements, `kill -9`, Ctrl-C.
//! * [`formats`]: CSV, ids that are made, rows that are no records, and how a load goes on.
//! * [`damage`]: what damaged stores and foreign files give.
//! * [`look`]: the verdict, the map, metrics.
//! * [`query`]: several records at once, selections, counters, conditions, comparisons, exports.
//! * [`stopped`]: beside a process that stays inside of a region.
//! * [`terminal`]: screens, keys and bars on a terminal of 60, 80 and 200 columns.
//! * [`copies`]: backups, salvage, and stores in memory.

#![cfg(feature = "cli")]

mod command;
mod copies;
mod damage;
mod formats;
mod load;
mod look;
mod query;
mod records;
mod stopped;
mod streams;
mod terminal;
mod usage;
