//! `recstore shared`: the stores in memory, and the processes attached to them.

use recstore::{Attached, Store};
use serde_json::json;

use super::access::Access;
use super::failure::Failure;
use super::ids::size;
use super::output::{Output, counted};

/// List the stores in memory, by name, and the processes attached to them
///
/// A store without an attached process was left by processes that were killed. The next process that opens its name begins
/// anew, and `rm` removes the file. A store that can't be opened is listed with the reason.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore shared
  recstore shared --json | jq -r 'select(.attached == []).path'     what was left behind")]
pub(crate) struct Shared {
    /// Print an object for each store, one a line
    #[arg(long)]
    json: bool,
}

impl Shared {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut out = Output::new();
        for (name, path) in Store::shared_names()? {
            let stats = access.look(&path).and_then(|store| Ok(store.stats()?));
            match stats {
                Ok(stats) => {
                    let alive: Vec<u32> = stats.attached.iter().filter(|a| a.alive).map(pid).collect();
                    if self.json {
                        out.line(format_args!(
                            "{}",
                            json!({"name": name, "path": path.to_string_lossy(), "records": stats.records,
                                   "allocated_size": stats.allocated_size, "attached": alive})
                        ))?;
                        continue;
                    }
                    let by = match alive.as_slice() {
                        [] => "no process attached".to_owned(),
                        pids => format!(
                            "attached: {}",
                            pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
                        ),
                    };
                    let space = size(stats.allocated_size);
                    let records = counted(stats.records, "record");
                    out.line(format_args!("{name}  {records}  {space}  {by}"))?;
                }
                Err(failure) => {
                    let why = failure.message().unwrap_or_default();
                    if self.json {
                        out.line(format_args!(
                            "{}",
                            json!({"name": name, "path": path.to_string_lossy(), "error": why})
                        ))?;
                    } else {
                        out.line(format_args!("{name}  {why}"))?;
                    }
                }
            }
        }
        out.finish()
    }
}

fn pid(attached: &Attached) -> u32 {
    attached.pid
}
