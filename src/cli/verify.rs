//! `recstore verify`: every checksum, every structure, every count. Changes nothing.

use std::path::PathBuf;

use recstore::{Damage, Missing, VerifyReport};
use serde_json::{Value, json};

use super::access::Access;
use super::failure::{DAMAGED, Failure, NOT_A_STORE};
use super::output::{Output, counted};
use super::progress;

/// Check everything, change nothing
///
/// Lists each damage on standard output. Exit code 3 if there is any.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore verify s.rec
  recstore verify s.rec --json | jq '.damage[].id'     which records are damaged
  recstore verify s.rec -q || recstore repair s.rec")]
pub(crate) struct Verify {
    /// The store
    store: PathBuf,
    /// Print one object: {"clean", "records", "slots", "damage": [{"region", "slot", "id",
    /// "what"}], "missing": [{"region", "records", "what"}]}; of a store that can't be opened for damage, {"clean": false, "error"}
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let report = match self.check(access) {
            Ok(report) => report,
            Err(failure) => {
                if self.json && [DAMAGED, NOT_A_STORE].contains(&failure.code()) {
                    let error = json!({"clean": false, "error": failure.message()});
                    let mut out = Output::new();
                    out.line(format_args!("{error}"))?;
                    out.finish()?;
                }
                return Err(failure);
            }
        };
        let mut out = Output::new();
        if self.json {
            let damage: Vec<Value> = report.damage.iter().map(damage_json).collect();
            let whole = json!({
                "clean": report.is_clean(),
                "records": report.records,
                "slots": report.slots,
                "damage": damage,
                "missing": missing_json(&report.missing),
            });
            out.line(format_args!("{whole}"))?;
        } else {
            for damage in &report.damage {
                out.line(format_args!("{damage}"))?;
            }
            if report.is_clean() {
                out.line(format_args!(
                    "clean: {} and {} checked",
                    counted(report.records, "record"),
                    counted(report.slots, "slot")
                ))?;
            }
        }
        out.finish()?;
        match report.damage.len() {
            0 => Ok(()),
            places => Err(Failure::Damaged(format!(
                "{path}: damaged in {}; to repair it: recstore repair {path}",
                counted(places as u64, "place"),
                path = self.store.display()
            ))),
        }
    }

    fn check(&self, access: &Access) -> Result<VerifyReport, Failure> {
        let store = access.look(&self.store)?;
        Ok(progress::of_work("checking every slot", |tell| store.verify_with_progress(tell))?)
    }
}

/// Missing records as objects.
pub(crate) fn missing_json(missing: &[Missing]) -> Vec<Value> {
    let object = |m: &Missing| json!({"region": m.region, "records": m.records, "what": m.what});
    missing.iter().map(object).collect()
}

/// A damage as an object.
pub(crate) fn damage_json(damage: &Damage) -> Value {
    json!({"region": damage.region, "slot": damage.slot, "id": damage.id, "what": damage.what})
}
