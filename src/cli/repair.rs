//! `recstore repair`: repairs a store, and says what was dropped. A healthy store, in use or not, stays as it is.

use std::path::PathBuf;

use recstore::RepairReport;

use super::access::Access;
use super::failure::Failure;
use super::output::{Output, counted};
use super::progress;

/// Repair a store, and say what was dropped
///
/// After the death of a process the commands and the library heal the store by themselves; this is for damage that `verify`
/// found. On a healthy store, in use or not, it does nothing. Lists each version that it gave up, and per region how
/// many records are gone. Exit code 3 if a record is lost, or if damage remains.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cp --sparse=never s.rec s-before.rec && recstore repair s.rec     with a way back
  recstore repair s.rec > what-was-done.txt")]
pub(crate) struct Repair {
    /// The store
    store: PathBuf,
}

impl Repair {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.options().open(&self.store)?;
        let repaired = progress::of_work("repairing", |tell| store.repair_with_progress(tell))?;
        let left = progress::of_work("checking every slot", |tell| store.verify_with_progress(tell))?;

        let mut out = Output::new();
        print(&mut out, store.opened())?;
        print(&mut out, &repaired)?;
        let lost = store.opened().lost() + repaired.lost();
        let did_nothing = store.opened().is_empty() && repaired.is_empty();
        store.close()?;
        for damage in &left.damage {
            out.line(format_args!("remains: {damage}"))?;
        }
        if did_nothing && left.is_clean() {
            out.line(format_args!("healthy: {}, nothing to repair", counted(left.records, "record")))?;
        }
        out.finish()?;
        let lost = match lost {
            0 => String::new(),
            1 => "1 record or version is lost".to_owned(),
            lost => format!("{lost} records or versions are lost"),
        };
        match left.damage.len() {
            0 if lost.is_empty() => Ok(()),
            0 => Err(Failure::Damaged(format!("{}: repaired; {lost}", self.store.display()))),
            places => Err(Failure::Damaged(format!(
                "{}: still damaged in {}; save the readable records with `recstore dump`",
                self.store.display(),
                counted(places as u64, "place")
            ))),
        }
    }
}

fn print(out: &mut Output, report: &RepairReport) -> Result<(), Failure> {
    if report.os_crash {
        out.line(format_args!("the system went down while the store was in use: every slot was checked"))?;
    }
    if !report.regions_rebuilt.is_empty() {
        let regions: Vec<String> = report.regions_rebuilt.iter().map(u32::to_string).collect();
        out.line(format_args!("rebuilt: regions {}", regions.join(", ")))?;
    }
    for fixed in &report.fixed {
        out.line(format_args!("fixed: {fixed}"))?;
    }
    for dropped in &report.dropped {
        out.line(format_args!("dropped: {dropped}"))?;
    }
    for missing in &report.missing {
        out.line(format_args!("missing: {missing}"))?;
    }
    Ok(())
}
