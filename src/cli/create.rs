//! `recstore create`: a new, empty store. All or nothing: a half-created store is never seen.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::ids;
use super::output::note;

/// Create an empty store
///
/// The geometry is chosen here, once. The file grows by itself as records come; an empty store is
/// small. Fails if STORE exists.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore create s.rec                                  records of up to 1 MiB, each in a slot of its length
  recstore create s.rec --record-size 50M --regions 64   longer records, and many writers
  recstore create s.rec --max-size 2G --mode 660         for a group, and no larger than that")]
pub(crate) struct Create {
    /// The file to create
    store: PathBuf,
    /// The longest record that the store takes, in bytes; K, M and G are understood. A high limit
    /// costs nothing [default: 1M; 256 with --slots-per-extent]
    #[arg(long, value_name = "N", value_parser = ids::parse_record_size)]
    record_size: Option<usize>,
    /// How many regions the records are spread over; writers in different regions never wait for
    /// each other
    #[arg(long, value_name = "N", default_value_t = 16)]
    regions: u32,
    /// The size that the file never grows beyond; K, M, G and T are understood [default: 1T]
    #[arg(long, value_name = "SIZE", value_parser = ids::parse_size)]
    max_size: Option<u64>,
    /// Makes all slots as long as the longest record, and the file grow by so many at a time, in one
    /// region; rounded up to a power of two [default: slots and growth as the records need]
    #[arg(long, value_name = "N")]
    slots_per_extent: Option<u32>,
    /// The users that may open the file, as for chmod, in octal
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse_mode)]
    mode: u32,
}

impl Create {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut options = access.options().regions(self.regions).mode(self.mode);
        if let Some(bytes) = self.record_size {
            options = options.record_size(bytes);
        }
        if let Some(bytes) = self.max_size {
            options = options.max_size(bytes);
        }
        if let Some(slots) = self.slots_per_extent {
            options = options.slots_per_extent(slots);
        }
        let store = options.create(&self.store)?;
        let record_size = store.record_size();
        store.close()?;
        note(format_args!(
            "{}: created, for records of up to {} bytes, in {} regions",
            self.store.display(),
            record_size,
            self.regions
        ));
        Ok(())
    }
}

pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`{text}` is not a file mode; use three octal digits, such as 600 or 660")),
    }
}
