//! `recstore stat`: the store in numbers, a table for people or JSON for programs.

use std::path::PathBuf;

use recstore::{LockOwner, RegionStats, Stats};
use serde_json::{Value, json};

use super::access::Access;
use super::failure::Failure;
use super::ids::size;
use super::output::Output;

/// Show geometry, records, space, regions, locks and attached processes
///
/// A look at a store that others may be writing to: the numbers are of about the same moment. A
/// lock owner marked dead is no damage; the next process that needs the region heals it.
#[derive(clap::Args)]
pub(crate) struct Stat {
    /// The store
    store: PathBuf,
    /// Print one object
    #[arg(long)]
    json: bool,
}

impl Stat {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let stats = access.look(&self.store)?.stats()?;
        let mut out = Output::new();
        if self.json {
            out.line(format_args!("{}", to_json(&stats)))?;
        } else {
            summary(&mut out, &stats)?;
            regions(&mut out, &stats.regions)?;
            attached(&mut out, &stats)?;
        }
        out.finish()
    }
}

fn summary(out: &mut Output, s: &Stats) -> Result<(), Failure> {
    out.line(format_args!("store       {}", s.path.display()))?;
    out.line(format_args!("format      version {}, uuid {}", s.format_version, s.uuid))?;
    out.line(format_args!(
        "geometry    records of up to {}, slots of {} bytes, extents of {} slots ({}), {} regions",
        size(s.record_size),
        s.slot_size,
        s.slots_per_extent,
        size(s.extent_size),
        s.regions.len()
    ))?;
    out.line(format_args!("records     {}", s.records))?;
    out.line(format_args!(
        "slots       {} in {} extents; {} free, {} kept until the next flush",
        s.slots, s.extents, s.free_slots, s.retired_slots
    ))?;
    out.line(format_args!(
        "space       file {} ({} bytes), {} on disk, {} of it indexes; ceiling {}",
        size(s.file_size),
        s.file_size,
        size(s.allocated_size),
        size(s.index_bytes),
        size(s.max_size)
    ))?;
    out.line(format_args!(
        "durability  epoch {}, durable up to {}; {} flushes, {} durable writes",
        s.epoch, s.durable_epoch, s.flushes, s.durable_writes
    ))
}

fn regions(out: &mut Output, regions: &[RegionStats]) -> Result<(), Failure> {
    out.line(format_args!(
        "\n{:>6} {:>10} {:>10} {:>10} {:>8} {:>7} {:>5} {:>12}  lock",
        "region", "records", "slots", "free", "kept", "extents", "fill", "next version"
    ))?;
    for r in regions {
        let fill = (u128::from(r.slots.saturating_sub(r.free_slots)) * 100)
            .checked_div(u128::from(r.slots))
            .map_or("-".into(), |percent| format!("{percent}%"));
        let lock = match &r.lock {
            None => "-".into(),
            Some(LockOwner { seat, pid, alive, .. }) => {
                format!("process {pid} in seat {seat}{}", if *alive { "" } else { ", dead" })
            }
        };
        out.line(format_args!(
            "{:>6} {:>10} {:>10} {:>10} {:>8} {:>7} {:>5} {:>12}  {lock}",
            r.region, r.records, r.slots, r.free_slots, r.retired_slots, r.extents, fill, r.next_version
        ))?;
    }
    Ok(())
}

fn attached(out: &mut Output, s: &Stats) -> Result<(), Failure> {
    if s.attached.is_empty() {
        return out.line(format_args!("\nno process is attached"));
    }
    out.line(format_args!("\n{:>6} {:>10} {:>10} {:>6}  attached", "seat", "generation", "process", "pins"))?;
    for a in &s.attached {
        out.line(format_args!(
            "{:>6} {:>10} {:>10} {:>6}  {}",
            a.seat,
            a.generation,
            a.pid,
            a.pins,
            if a.alive { "alive" } else { "dead" }
        ))?;
    }
    Ok(())
}

fn to_json(s: &Stats) -> Value {
    let owner =
        |l: &LockOwner| json!({"seat": l.seat, "generation": l.generation, "pid": l.pid, "alive": l.alive});
    let regions: Vec<Value> = s
        .regions
        .iter()
        .map(|r| {
            json!({
                "region": r.region, "records": r.records, "slots": r.slots, "free_slots": r.free_slots,
                "retired_slots": r.retired_slots, "extents": r.extents, "index_entries": r.index_entries,
                "next_version": r.next_version, "lock": r.lock.as_ref().map(owner),
            })
        })
        .collect();
    let attached: Vec<Value> = s
        .attached
        .iter()
        .map(|a| json!({"seat": a.seat, "generation": a.generation, "pid": a.pid, "alive": a.alive, "pins": a.pins}))
        .collect();
    json!({
        "path": s.path.to_string_lossy(), "format_version": s.format_version, "uuid": s.uuid,
        "record_size": s.record_size, "slot_size": s.slot_size, "slots_per_extent": s.slots_per_extent,
        "extent_size": s.extent_size, "max_size": s.max_size, "file_size": s.file_size,
        "allocated_size": s.allocated_size, "records": s.records, "slots": s.slots,
        "free_slots": s.free_slots, "retired_slots": s.retired_slots, "extents": s.extents,
        "index_bytes": s.index_bytes, "epoch": s.epoch, "durable_epoch": s.durable_epoch,
        "flushes": s.flushes, "durable_writes": s.durable_writes,
        "regions": regions, "attached": attached,
    })
}
