//! The records that a command shows, and their order.

use std::cmp::Reverse;

use recstore::{Error, Record, Store};
use regex::bytes::Regex;

use super::failure::Failure;
use super::ids;
use super::target::Target;
use super::walk::Walk;

/// The options that choose records by their ids and their bytes.
#[derive(clap::Args, Clone)]
pub(crate) struct Filter {
    /// Only records with this id or a higher one
    #[arg(long, value_name = "ID", value_parser = ids::parse_id, help_heading = "Selection")]
    from: Option<u64>,
    /// Only records with this id or a lower one
    #[arg(long, value_name = "ID", value_parser = ids::parse_id, help_heading = "Selection")]
    to: Option<u64>,
    /// Only records whose bytes begin with this text
    #[arg(long, value_name = "TEXT", help_heading = "Selection")]
    prefix: Option<String>,
    /// Only records whose bytes match this regular expression; (?i) in front ignores case
    #[arg(long = "match", value_name = "REGEX", value_parser = parse_regex, help_heading = "Selection")]
    matching: Option<Regex>,
}

/// The options that choose records.
#[derive(clap::Args, Clone)]
pub(crate) struct Selection {
    #[command(flatten)]
    filter: Filter,
    /// At most this many records
    #[arg(long, value_name = "N", help_heading = "Selection")]
    limit: Option<u64>,
}

/// The option that orders them.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Order {
    /// Order the records; without it, they come in the order of the file. Keeps 16 bytes a record in memory
    #[arg(long, value_enum, value_name = "BY", help_heading = "Selection")]
    sort: Option<Sort>,
    /// The highest first
    #[arg(long, requires = "sort", help_heading = "Selection")]
    reverse: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sort {
    /// By id
    Id,
    /// By version; versions of different regions do not compare
    Version,
    /// By length
    Length,
}

fn parse_regex(text: &str) -> Result<Regex, String> {
    // The library's message draws the place in several lines. Its last line names the mistake.
    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        error.lines().last().unwrap_or("it cannot be read").trim().trim_start_matches("error: ").to_owned()
    })
}

impl Filter {
    /// Whether a record that is found by its id is chosen.
    pub(crate) fn has(&self, id: u64, data: &[u8]) -> bool {
        self.from.is_none_or(|from| from <= id) && self.to.is_none_or(|to| id <= to) && self.is_shown(data)
    }

    /// Whether a key with this value is chosen: none is where ids are.
    pub(crate) fn has_key_of(&self, value: &[u8]) -> bool {
        !self.has_ids() && self.is_shown(value)
    }

    /// Whether ids are chosen.
    fn has_ids(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether these bytes are among those that are chosen.
    fn is_shown(&self, data: &[u8]) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| data.starts_with(prefix.as_bytes()))
            && self.matching.as_ref().is_none_or(|regex| regex.is_match(data))
    }
}

impl Selection {
    /// Whether a record is chosen; the limit does not count.
    pub(crate) fn has(&self, record: &Record) -> bool {
        self.filter.has(record.id(), record.data())
    }

    /// Whether its bytes are those that are chosen.
    fn is_shown(&self, record: &Record) -> bool {
        self.filter.is_shown(record.data())
    }

    /// Whether every record is chosen.
    pub(crate) fn is_all(&self) -> bool {
        let Filter { from, to, prefix, matching } = &self.filter;
        from.is_none() && to.is_none() && prefix.is_none() && matching.is_none() && self.limit.is_none()
    }

    /// Gives every chosen record to `show`, in the order of the file. Damaged records are named on standard error.
    pub(crate) fn walk(
        &self,
        store: &Store,
        mut show: impl FnMut(&Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut walk = Walk::new(store);
        let mut left = self.limit.unwrap_or(u64::MAX);
        for record in store.iter() {
            if left == 0 {
                break;
            }
            if let Some(record) = walk.take(record)?
                && self.has(&record)
            {
                left -= 1;
                show(&record)?;
            }
        }
        walk.end()
    }

    /// Gives every chosen record that has a key to `show`: of one space, or of all of them. None is chosen where ids are. In
    /// an order the spaces, and in each the keys, come by their names. `shown`: how many records were shown before.
    pub(crate) fn walk_keys(
        &self,
        order: Order,
        store: &Store,
        space: Option<&str>,
        shown: u64,
        mut show: impl FnMut(&Target, &Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut left = self.limit.unwrap_or(u64::MAX).saturating_sub(shown);
        if self.filter.has_ids() || left == 0 {
            return Ok(());
        }
        let mut spaces = match space {
            Some(space) => vec![space.to_owned()],
            None => store.spaces().or_else(|error| match error {
                // The walk through the other records names it.
                Error::Corrupt { .. } => Ok(Vec::new()),
                error => Err(error),
            })?,
        };
        if order.reverse {
            spaces.reverse();
        }
        let mut walk = Walk::new(store);
        for name in spaces {
            let space = store.space(&name)?;
            let mut chosen = Vec::new();
            for found in space.iter() {
                let (key, found) = match found {
                    Ok((key, record)) => (key, Ok(record)),
                    Err(error) => (Vec::new(), Err(error)),
                };
                let Some(record) = walk.take(found)?.filter(|record| self.is_shown(record)) else { continue };
                let target = Target::Key { space: name.clone(), key };
                if order.sort.is_some() {
                    chosen.push(target);
                } else if left > 0 {
                    left -= 1;
                    show(&target, &record)?;
                }
            }
            chosen.sort_unstable_by(
                |a, b| if order.reverse { b.key().cmp(a.key()) } else { a.key().cmp(b.key()) },
            );
            for target in chosen {
                // It may have been deleted or changed since.
                if left > 0
                    && let Some(record) = target.get(store)?.filter(|record| self.is_shown(record))
                {
                    left -= 1;
                    show(&target, &record)?;
                }
            }
        }
        walk.end()
    }

    /// The same in an order.
    pub(crate) fn walk_in(
        &self,
        order: Order,
        store: &Store,
        mut show: impl FnMut(&Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(sort) = order.sort else { return self.walk(store, show) };
        let mut walk = Walk::new(store);
        let mut keys: Vec<(u64, u64)> = Vec::new();
        for record in store.iter() {
            if let Some(record) = walk.take(record)?
                && self.has(&record)
            {
                let key = match sort {
                    Sort::Id => record.id(),
                    Sort::Version => record.version().get(),
                    Sort::Length => record.len() as u64,
                };
                keys.push((key, record.id()));
            }
        }
        if order.reverse {
            keys.sort_unstable_by_key(|key| Reverse(*key));
        } else {
            keys.sort_unstable();
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        for (_, id) in keys {
            if left == 0 {
                break;
            }
            match store.get(id) {
                // It may have been deleted or changed since.
                Ok(Some(record)) if self.has(&record) => {
                    left -= 1;
                    show(&record)?;
                }
                Ok(_) => {}
                Err(error @ Error::Corrupt { .. }) => walk.damaged(&error),
                Err(error) => return Err(error.into()),
            }
        }
        walk.end()
    }
}
