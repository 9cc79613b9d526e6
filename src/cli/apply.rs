//! `recstore apply`: puts, deletions and conditions as one atomic batch.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use recstore::{Commit, Version};
use serde_json::{Map, Value, json};

use super::access::Access;
use super::cas::conflict;
use super::failure::Failure;
use super::jsonl;
use super::output::{Output, counted, note};

/// Apply changes of several records, all of them or none
///
/// Reads JSON, one change a line: {"id":1,"data":"text"} or {"id":1,"base64":".."} writes a record, {"id":1,"delete":true} deletes one.
/// With "if_version", the record must have that version before, or be absent if it is null; a line with nothing else
/// is a condition alone. If a condition does not hold, nothing is changed, and the exit code is 1.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore apply s.rec changes.jsonl
  printf '%s\\n' '{\"id\":1,\"delete\":true}' '{\"id\":2,\"data\":\"moved\",\"if_version\":null}' | recstore apply s.rec")]
pub(crate) struct Apply {
    /// The store
    store: PathBuf,
    /// The changes; `-`, or nothing, takes them from standard input
    file: Option<PathBuf>,
    /// Print {"versions": {"ID": VERSION}} of the records that were written
    #[arg(long)]
    json: bool,
}

/// A line's meaning.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    id: u64,
    what: What,
    /// The version that the record must have; the inner `None`: it must be absent.
    condition: Option<Option<u64>>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Put(Vec<u8>),
    Delete,
    Nothing,
}

impl Apply {
    pub(crate) fn run(self, access: &Access) -> Result<(), Failure> {
        let changes = self.read()?;
        let store = access.write(&self.store)?;
        let mut batch = store.batch();
        for change in changes {
            if let Some(version) = change.condition {
                batch.require(change.id, version.map(Version::from_u64));
            }
            match change.what {
                What::Put(data) => batch.put(change.id, data)?,
                What::Delete => batch.delete(change.id),
                What::Nothing => {}
            }
        }
        let count = batch.len() as u64;
        let committed = batch.commit()?;
        let settled = access.settle(store);
        let versions = match committed {
            Commit::Done(versions) => versions,
            Commit::Conflict { id, current } => return Err(conflict(&self.store, id, current)),
        };
        if self.json {
            let versions: Map<String, Value> =
                versions.into_iter().map(|(id, version)| (id.to_string(), version.get().into())).collect();
            let mut out = Output::new();
            out.line(format_args!("{}", json!({"versions": versions})))?;
            out.finish()?;
            return settled;
        }
        note(format_args!("{}: {} applied", self.store.display(), counted(count, "change")));
        settled
    }

    fn read(&self) -> Result<Vec<Change>, Failure> {
        let (name, input): (String, Box<dyn BufRead>) = match &self.file {
            Some(path) if path.as_os_str() != "-" => {
                let file = File::open(path)
                    .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
                (path.display().to_string(), Box::new(BufReader::new(file)))
            }
            _ => ("standard input".to_owned(), Box::new(io::stdin().lock())),
        };
        let mut changes = Vec::new();
        for (number, line) in (1_u64..).zip(input.split(b'\n')) {
            let line = line.map_err(|error| Failure::Other(format!("{name}: {error}")))?;
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let change = parse(line).map_err(|what| {
                Failure::Other(format!("{name}: line {number}: {what}; nothing was changed"))
            })?;
            changes.push(change);
        }
        Ok(changes)
    }
}

/// Reads a line.
fn parse(line: &[u8]) -> Result<Change, String> {
    let mut fields = jsonl::object(line)?;
    let id = jsonl::take_id(&mut fields)?;
    let condition = match fields.remove("if_version") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(version) => {
            let number = version.as_u64();
            Some(Some(number.ok_or_else(|| format!("\"if_version\" is {version}; use a number, or null"))?))
        }
    };
    let what = match (jsonl::take_data(&mut fields)?, fields.remove("delete")) {
        (Some(data), None | Some(Value::Bool(false))) => What::Put(data),
        (None, Some(Value::Bool(true))) => What::Delete,
        (None, None | Some(Value::Bool(false))) => What::Nothing,
        (Some(_), Some(_)) => return Err("a record is written or deleted, not both".into()),
        (None, Some(other)) => return Err(format!("\"delete\" is {other}; use true")),
    };
    if let Some((name, _)) = fields.iter().next() {
        return Err(format!("the field {name:?} is not known"));
    }
    if what == What::Nothing && condition.is_none() {
        return Err("there is nothing to do: add \"data\", \"base64\", \"delete\" or \"if_version\"".into());
    }
    Ok(Change { id, what, condition })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_put_a_deletion_or_a_condition() {
        let change = |id, what, condition| Ok(Change { id, what, condition });
        assert_eq!(parse(br#"{"id":1,"data":"x"}"#), change(1, What::Put(b"x".to_vec()), None));
        assert_eq!(parse(br#"{"id":"0x10","base64":"/w=="}"#), change(16, What::Put(vec![255]), None));
        assert_eq!(
            parse(br#"{"id":1,"delete":true,"if_version":7}"#),
            change(1, What::Delete, Some(Some(7)))
        );
        assert_eq!(parse(br#"{"id":1,"if_version":null}"#), change(1, What::Nothing, Some(None)));
        for (line, reason) in [
            (&br#"{"id":1}"#[..], "nothing to do"),
            (br#"{"data":"x"}"#, "no \"id\""),
            (br#"{"id":1,"data":"x","delete":true}"#, "not both"),
            (br#"{"id":1,"delete":1}"#, "use true"),
            (br#"{"id":1,"if_version":"7"}"#, "use a number"),
            (br#"{"id":1,"data":"x","if_verson":7}"#, "\"if_verson\" is not known"),
            (b"7", "not a JSON object"),
        ] {
            let error = parse(line).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
    }
}
