//! `recstore inspect`: regions and slots as they are in the file, for debugging.

use std::path::PathBuf;

use super::access::Access;
use super::failure::Failure;
use super::output::Output;

/// Show the raw header and bytes of a region or a slot, for people
///
/// Without --region and --slot: every region. The form may change with any version.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore inspect s.rec --region 3
  recstore inspect s.rec --slot 2048     a slot that `recstore verify` named")]
pub(crate) struct Inspect {
    /// The store
    store: PathBuf,
    /// Show this region: its head, its lock, its slots
    #[arg(long, value_name = "R")]
    region: Option<u32>,
    /// Show this slot: its header and its bytes; slots are numbered through the whole store
    #[arg(long, value_name = "S")]
    slot: Option<u32>,
}

impl Inspect {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.look(&self.store)?;
        let mut out = Output::new();
        let mut show = |text: String| out.line(format_args!("{}", text.trim_end()));
        if let Some(region) = self.region {
            show(store.inspect_region(region)?)?;
        }
        if let Some(slot) = self.slot {
            show(store.inspect_slot(slot)?)?;
        }
        if self.region.is_none() && self.slot.is_none() {
            for region in store.stats()?.regions {
                show(store.inspect_region(region.region)?)?;
            }
        }
        out.finish()
    }
}
