//! `recstore diff`: the differences of two stores.

use std::path::PathBuf;

use recstore::{Record, Store};
use serde_json::{Map, Value, json};

use super::access::Access;
use super::failure::Failure;
use super::output::{Output, preview, say};
use super::target::Target;
use super::{ids, jsonl};

const PREVIEW_CHARS: usize = 32;

/// Compare the records of two stores
///
/// A line for each id that differs, in the order of ids: `-` only in the first, `+` only in the second, `~` in both with
/// other bytes. Versions and geometry do not count. The exit code is diff's: 0 if the stores have the same records,
/// 1 if not, 2 and more if they could not be compared.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore diff s.rec backup.rec              which records differ
  recstore diff s.rec backup.rec --stat       how many
  recstore diff a.rec b.rec -q && echo same   in a script")]
pub(crate) struct Diff {
    /// The first store
    a: PathBuf,
    /// The second store
    b: PathBuf,
    /// Print four numbers: only in the first, only in the second, changed, equal
    #[arg(long)]
    stat: bool,
    /// Print an object for each difference, {"id", "change": "removed"|"added"|"changed"}, or with --stat one object
    #[arg(long)]
    json: bool,
    /// Only records with this id or a higher one
    #[arg(long, value_name = "ID", value_parser = ids::parse_id)]
    from: Option<u64>,
    /// Only records with this id or a lower one
    #[arg(long, value_name = "ID", value_parser = ids::parse_id)]
    to: Option<u64>,
}

#[derive(Default)]
struct Counts {
    removed: u64,
    added: u64,
    changed: u64,
    equal: u64,
}

impl Diff {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let (a, b) = (access.read(&self.a)?, access.read(&self.b)?);
        let mut all = self.targets_in(&a)?;
        all.extend(self.targets_in(&b)?);
        all.sort_unstable();
        all.dedup();
        let mut out = Output::new();
        let mut counts = Counts::default();
        for target in all {
            let (change, sign, left, right) = match (get(&a, &target)?, get(&b, &target)?) {
                (Some(a), Some(b)) if a.data() == b.data() => {
                    counts.equal += 1;
                    continue;
                }
                (Some(a), Some(b)) => {
                    counts.changed += 1;
                    ("changed", '~', Some(a), Some(b))
                }
                (Some(a), None) => {
                    counts.removed += 1;
                    ("removed", '-', Some(a), None)
                }
                (None, Some(b)) => {
                    counts.added += 1;
                    ("added", '+', None, Some(b))
                }
                (None, None) => continue, // Deleted since.
            };
            if self.stat {
                continue;
            }
            if self.json {
                let mut fields = Map::new();
                jsonl::insert_target(&mut fields, &target);
                fields.insert("change".into(), change.into());
                out.line(format_args!("{}", Value::Object(fields)))?;
                continue;
            }
            let show = |record: Option<Record>| record.map(|record| preview(record.data(), PREVIEW_CHARS));
            let shown: Vec<String> = [show(left), show(right)].into_iter().flatten().collect();
            let name = match &target {
                Target::Id(id) => id.to_string(),
                key => key.to_string(),
            };
            out.line(format_args!("{sign} {name:>10}  {}", shown.join("  ->  ")))?;
        }
        if self.stat {
            let Counts { removed, added, changed, equal } = counts;
            if self.json {
                let line = json!({"removed": removed, "added": added, "changed": changed, "equal": equal});
                out.line(format_args!("{line}"))?;
            } else {
                out.line(format_args!("-{removed} +{added} ~{changed} ={equal}"))?;
            }
        }
        out.finish()?;
        if counts.removed + counts.added + counts.changed == 0 {
            Ok(())
        } else {
            Err(Failure::Reported { code: 1 })
        }
    }

    fn targets_in(&self, store: &Store) -> Result<Vec<Target>, Failure> {
        let mut found = Vec::new();
        for record in store.iter() {
            let id = record?.id();
            if self.from.is_none_or(|from| from <= id) && self.to.is_none_or(|to| id <= to) {
                found.push(Target::Id(id));
            }
        }
        if self.from.is_some() || self.to.is_some() {
            return Ok(found); // Keys are in no range of ids.
        }
        for space in store.spaces()? {
            for key in store.space(&space)?.iter() {
                found.push(Target::Key { space: space.clone(), key: key?.0 });
            }
        }
        Ok(found)
    }
}

fn get(store: &Store, target: &Target) -> Result<Option<Record>, Failure> {
    target.get(store).map_err(|error| {
        say(format_args!("{}: record {target} could not be compared", store.path().display()));
        error.into()
    })
}
