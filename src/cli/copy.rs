//! `recstore copy`: a copy of one moment, compact, in another geometry, of all records or of some.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use recstore::{Candidate, Error, Options, Store};

use super::access::Access;
use super::create::parse_mode;
use super::failure::Failure;
use super::ids::{self, size};
use super::output::{counted, note};
use super::progress;
use super::select::Filter;

/// Copy the records, as they are at one moment, into a new store: compact, of another geometry, or some of them
///
/// Others may go on writing. The copy appears whole or not at all, and is on disk when the command is done. Counters,
/// rings, queues, keys and their times to live go over; values whose time was over do not. The geometry is that of STORE,
/// unless an option says otherwise. Fails if COPY exists.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore copy s.rec small.rec && mv small.rec s.rec    compaction, while no process uses the store
  recstore copy s.rec wide.rec --regions 64 --record-size 50M
  recstore copy s.rec sessions.rec --space sessions      the keys of a space
  recstore copy s.rec some.rec --from 100 --to 199 --match '(?i)error'
  recstore copy s.rec sample.rec --limit 1000            a thousand records to try something with")]
pub(crate) struct Copy {
    /// The store
    store: PathBuf,
    /// The new store
    copy: PathBuf,
    /// The longest record that the copy takes, in bytes; K, M and G are understood [default: as STORE]
    #[arg(long, value_name = "N", value_parser = ids::parse_record_size)]
    record_size: Option<usize>,
    /// How many regions the records are spread over [default: as STORE]
    #[arg(long, value_name = "N")]
    regions: Option<u32>,
    /// The size that the copy never grows beyond; K, M, G and T are understood [default: as STORE]
    #[arg(long, value_name = "SIZE", value_parser = ids::parse_size)]
    max_size: Option<u64>,
    /// Slots as long as the longest record, so many at a time; or `none`: slots and growth as the records need
    /// [default: as STORE]
    #[arg(long, value_name = "N|none", value_parser = parse_slots)]
    slots_per_extent: Option<Slots>,
    /// The users that may open the copy, as for chmod, in octal [default: as STORE]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    mode: Option<u32>,
    /// Only the keys of this space
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    space: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// At most this many records and keys, those that are met first
    #[arg(long, value_name = "N", help_heading = "Selection")]
    limit: Option<usize>,
}

#[derive(Clone, Copy)]
enum Slots {
    AsNeeded,
    PerExtent(u32),
}

fn parse_slots(text: &str) -> Result<Slots, String> {
    if text == "none" {
        return Ok(Slots::AsNeeded);
    }
    text.parse()
        .map(Slots::PerExtent)
        .map_err(|_| format!("`{text}` is no number of slots; use 1 to 16777216, or none"))
}

impl Copy {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.write(&self.store)?;
        let options = self.options(access, &store)?;
        let taken = Mutex::new(HashSet::new());
        let choose = |record: Candidate<'_>| self.has(record) && self.is_within_limit(record, &taken);
        let copied =
            progress::of_work("copying", |tell| store.copy_chosen_to(&self.copy, &options, choose, tell));
        let copied = copied.map_err(|error| match error {
            Error::Corrupt { .. } => Failure::from(error).and(&format!(
                "nothing was copied; `recstore salvage {} {}` copies what is whole",
                self.store.display(),
                self.copy.display()
            )),
            error => error.into(),
        })?;
        let (copied, takes) = (counted(copied, "record"), on_disk(&self.copy));
        note(format_args!(
            "{}: {copied} copied; it takes {takes} on disk, and {} {}",
            self.copy.display(),
            self.store.display(),
            on_disk(&self.store)
        ));
        Ok(())
    }

    /// The options of the copy.
    fn options(&self, access: &Access, store: &Store) -> Result<Options, Failure> {
        let is = store.stats()?;
        let mode = fs::metadata(store.path()).map(|metadata| metadata.mode() & 0o777);
        let mode = mode.map_err(|error| Failure::Other(format!("{}: {error}", store.path().display())));
        let slots = match self.slots_per_extent {
            None => is.slots_per_extent,
            Some(Slots::AsNeeded) => None,
            Some(Slots::PerExtent(slots)) => Some(slots),
        };
        let options = access
            .options()
            .record_size(self.record_size.unwrap_or(store.record_size()))
            .regions(self.regions.unwrap_or(is.regions.len() as u32))
            .max_size(self.max_size.unwrap_or(is.max_size))
            .mode(self.mode.map_or(mode, Ok)?);
        Ok(slots.into_iter().fold(options, Options::slots_per_extent))
    }

    /// Whether a record is one of the first that were chosen. Of a key with a later deadline it is asked twice.
    fn is_within_limit(&self, record: Candidate<'_>, taken: &Mutex<HashSet<Vec<u8>>>) -> bool {
        let Some(limit) = self.limit else { return true };
        let place = match record {
            Candidate::Id { id, .. } => id.to_le_bytes().to_vec(),
            Candidate::Key { space, key, .. } => [space.as_bytes(), b"/", key].concat(),
        };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.contains(&place) || taken.len() < limit && taken.insert(place)
    }

    /// Whether a record is chosen. None that has a key is, where ids are, and the other way round.
    fn has(&self, record: Candidate<'_>) -> bool {
        match record {
            Candidate::Id { id, data } => self.space.is_none() && self.filter.has(id, data),
            Candidate::Key { space, value, .. } => {
                self.space.as_deref().is_none_or(|only| only == space) && self.filter.has_key_of(value)
            }
        }
    }
}

/// The room that a file takes.
fn on_disk(path: &Path) -> String {
    fs::metadata(path).map_or_else(|_| "?".to_owned(), |metadata| size(metadata.blocks() * 512))
}
