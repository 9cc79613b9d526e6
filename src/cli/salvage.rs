//! `recstore salvage`: records out of a file that can't be opened, or that `repair` can't repair.

use std::path::PathBuf;

use serde_json::json;

use super::failure::Failure;
use super::output::{Output, counted, note, say};
use super::{ids, progress, verify};

/// Recover every record with a good checksum from a destroyed store into a new one
///
/// STORE is only read. Lists the losses on standard output: damaged records by their ids, and per region how many
/// records are gone without a trace of their ids. Questions that the file does not answer are on standard error.
/// Exit code 3 if a record is lost. Fails if OUT exists.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore salvage broken.rec saved.rec                       when `recstore repair` can't open it
  recstore salvage broken.rec saved.rec --record-size 4K      when nothing in it tells how long records are")]
pub(crate) struct Salvage {
    /// The file to recover from
    store: PathBuf,
    /// The new store
    out: PathBuf,
    /// The longest record, in bytes, if nothing in the file tells it [default: 64K]
    #[arg(long, value_name = "N", value_parser = ids::parse_record_size)]
    record_size: Option<usize>,
    /// Print one object: {"records", "source", "lost": [{"region", "slot", "id", "what"}], "missing": [{"region",
    /// "records", "what"}], "unknown": ["what"]}
    #[arg(long)]
    json: bool,
}

impl Salvage {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let report = progress::of_work("searching for records", |tell| {
            recstore::salvage_with_progress(&self.store, &self.out, self.record_size, tell)
        })?;
        let mut out = Output::new();
        if self.json {
            let lost: Vec<_> = report.lost.iter().map(verify::damage_json).collect();
            out.line(format_args!(
                "{}",
                json!({
                    "records": report.records,
                    "source": report.source,
                    "lost": lost,
                    "missing": verify::missing_json(&report.missing),
                    "unknown": report.unknown,
                })
            ))?;
        } else {
            for lost in &report.lost {
                out.line(format_args!("lost: {lost}"))?;
            }
            for missing in &report.missing {
                out.line(format_args!("missing: {missing}"))?;
            }
        }
        out.finish()?;
        for unknown in &report.unknown {
            say(format_args!("not known: {unknown}"));
        }
        let saved = counted(report.records, "record");
        note(format_args!("{}: {saved} saved; {}", self.out.display(), report.source));
        match report.lost_records() {
            0 => Ok(()),
            1 => Err(Failure::Damaged(format!("{}: 1 record is lost", self.store.display()))),
            lost => Err(Failure::Damaged(format!("{}: {lost} records are lost", self.store.display()))),
        }
    }
}
