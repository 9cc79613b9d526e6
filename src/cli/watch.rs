//! `recstore watch`: changes as they happen.

use std::path::PathBuf;

use recstore::{Change, Event, Store};
use serde_json::{Map, Value};

use super::access::Access;
use super::failure::Failure;
use super::output::{Output, preview};
use super::{ids, jsonl};

const PREVIEW_CHARS: usize = 48;

/// Print changes as they happen, until Ctrl-C or until the reader goes away
///
/// At first all records that are there, unless --from-now; then each record that is written, and each deletion. A record that
/// changes several times before the command looks at it comes once, as it is then. Each line is printed at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore watch s.rec --from-now               as `tail -f`
  recstore watch s.rec 7                        one record
  recstore watch s.rec --json | jq 'select(.change == \"deleted\") | .id'")]
pub(crate) struct Watch {
    /// The store
    store: PathBuf,
    /// Only these records, decimal or 0x-hex
    #[arg(value_name = "ID", value_parser = ids::parse_id)]
    id: Vec<u64>,
    /// Begin with changes from now on
    #[arg(long)]
    from_now: bool,
    /// End after this many changes
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print an object for each change: {"id", "change": "written", "version", "data" or "base64"} or {"id", "change":
    /// "deleted"}
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write(&self.store)?;
        let mut out = Output::new();
        let mut left = self.limit.unwrap_or(u64::MAX);
        match self.id[..] {
            // One record costs nothing but its region's wake-ups; the feed of all knows every record.
            [id] => {
                let mut watch = store.watch(id)?;
                if !self.from_now && watch.version().is_some() {
                    self.written(&mut out, &store, id, &mut left)?;
                }
                while left > 0 {
                    match watch.wait(None)? {
                        Event::Written(_) => self.written(&mut out, &store, id, &mut left)?,
                        Event::Deleted => self.deleted(&mut out, id, &mut left)?,
                        Event::TimedOut => {}
                    }
                }
            }
            _ => {
                let mut changes = if self.from_now { store.changes_from_now()? } else { store.changes()? };
                while left > 0
                    && let Some(change) = changes.next()
                {
                    let is_wanted = |id: &u64| self.id.is_empty() || self.id.contains(id);
                    match change? {
                        Change::Written { id, .. } if is_wanted(&id) => {
                            self.written(&mut out, &store, id, &mut left)?;
                        }
                        Change::Deleted { id } if is_wanted(&id) => self.deleted(&mut out, id, &mut left)?,
                        Change::Behind => {
                            eprintln!(
                                "recstore: the writers were too fast, or a part of the store was rebuilt: deletions may be missing here"
                            );
                        }
                        _ => {}
                    }
                }
            }
        }
        out.finish()
    }

    /// Prints a record as it is now. If it is gone again, its deletion comes next.
    fn written(&self, out: &mut Output, store: &Store, id: u64, left: &mut u64) -> Result<(), Failure> {
        let Some(record) = store.get(id)? else { return Ok(()) };
        *left = left.saturating_sub(1);
        if self.json {
            let mut fields = Map::new();
            fields.insert("id".into(), id.into());
            fields.insert("change".into(), "written".into());
            fields.insert("version".into(), record.version().get().into());
            jsonl::insert_data(&mut fields, record.data());
            out.line(format_args!("{}", Value::Object(fields)))?;
        } else {
            let (version, shown) = (record.version(), preview(record.data(), PREVIEW_CHARS));
            out.line(format_args!("written  {id:>10}  {version:>8}  {shown}"))?;
        }
        out.flush()
    }

    fn deleted(&self, out: &mut Output, id: u64, left: &mut u64) -> Result<(), Failure> {
        *left = left.saturating_sub(1);
        match self.json {
            true => out.line(format_args!("{}", serde_json::json!({"id": id, "change": "deleted"})))?,
            false => out.line(format_args!("deleted  {id:>10}"))?,
        }
        out.flush()
    }
}
