//! `recstore stat`: the store in numbers, for people, for programs, or for a collector of metrics.

use std::path::PathBuf;

use recstore::{Attached, LockOwner, RegionStats, Stats};
use serde_json::{Value, json};

use super::access::Access;
use super::failure::Failure;
use super::ids::size;
use super::output::{Output, counted};
use super::process::{Process, state_of};

/// Characters of a command line that are shown.
const COMMAND_CHARS: usize = 60;

/// Show how a store is: a verdict, geometry, records, space, locks and attached processes
///
/// A look at a store that others may be writing to: the numbers are of about the same moment. A
/// lock owner marked dead is no damage; the next process that needs the region heals it. One marked stopped
/// keeps its lock until it goes on, or is killed. One marked inherited has ended, and another process has its
/// descriptor of the file: it keeps its lock until that one closes it.
#[derive(clap::Args)]
#[command(
    visible_alias = "info",
    after_help = "\
Examples:
  recstore stat s.rec                       one screen
  recstore stat s.rec --regions             every region
  recstore stat s.rec --classes             the bytes of data, of slots and of idle slots, by their length
  recstore stat s.rec --json | jq .records
  recstore stat s.rec --prometheus > /var/lib/node_exporter/s.prom"
)]
pub(crate) struct Stat {
    /// The store
    store: PathBuf,
    /// Show every region, and not only those whose lock is held
    #[arg(long)]
    regions: bool,
    /// Show the slots by their length, with the bytes of data in them. Looks at every slot, while the rest of `stat` takes
    /// the time of a look at each extent
    #[arg(long, conflicts_with = "prometheus")]
    classes: bool,
    /// Print one object. Its keys stay; later versions may add some. "classes" lists the lengths of slots: {"slot_size", "extents",
    /// "bytes", "slots", "fresh_slots", "used_slots", "data_bytes", "idle_bytes"}; the last three are null without --classes
    #[arg(long, conflicts_with_all = ["regions", "prometheus"])]
    json: bool,
    /// Print metrics in the text format of Prometheus
    #[arg(long, conflicts_with = "regions")]
    prometheus: bool,
}

impl Stat {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.look(&self.store)?;
        let stats = if self.classes { store.stats_of_slots()? } else { store.stats()? };
        let mut out = Output::new();
        if self.json {
            out.line(format_args!("{}", to_json(&stats)))?;
        } else if self.prometheus {
            prometheus(&mut out, &stats)?;
        } else {
            out.line(format_args!("{}", verdict(&stats)))?;
            summary(&mut out, &stats)?;
            if self.classes {
                classes(&mut out, &stats)?;
            }
            regions(&mut out, &stats.regions, self.regions)?;
            attached(&mut out, &stats)?;
        }
        out.finish()
    }
}

/// One line: the state of the store, its users, and the writes that a loss of power would take.
pub(crate) fn verdict(s: &Stats) -> String {
    let held = |state: &str| {
        let locks = s.regions.iter().filter_map(|r| r.lock.as_ref());
        locks.filter(|l| state_of(l.pid, l.pid_exists, l.alive) == state).count() as u64
    };
    let (dead, stopped, inherited) = (held("dead"), held("stopped"), held("inherited"));
    let mut parts = Vec::new();
    if dead > 0 {
        parts.push(format!("a process died in {}; the next write there heals it", counted(dead, "region")));
    }
    if stopped > 0 {
        parts.push(format!(
            "a stopped process holds {}; writers there wait for it",
            counted(stopped, "region")
        ));
    }
    if inherited > 0 {
        parts.push(format!(
            "a process that has ended holds {} by a descriptor of the file that another process has from it \
             (`fuser -v {}`); writers there wait until that one closes it",
            counted(inherited, "region"),
            s.path.display()
        ));
    }
    if parts.is_empty() {
        parts.push("healthy".to_owned());
    }
    let mut alive: Vec<u32> = s.attached.iter().filter(|a| a.alive).map(|a| a.pid).collect();
    alive.sort_unstable();
    alive.dedup();
    parts.push(match alive.len() {
        0 => "no process is attached".to_owned(),
        1 => "in use by 1 process".to_owned(),
        n => format!("in use by {n} processes"),
    });
    parts.push(if s.closed_cleanly {
        "all of it is on disk".to_owned()
    } else {
        "writes since the last flush are not safe from a loss of power".to_owned()
    });
    parts.join("; ")
}

fn summary(out: &mut Output, s: &Stats) -> Result<(), Failure> {
    out.line(format_args!("store       {}", s.path.display()))?;
    out.line(format_args!("format      version {}, uuid {}", s.format_version, s.uuid))?;
    out.line(format_args!(
        "geometry    records of up to {}, {}, {} regions",
        size(s.record_size),
        match (s.slots_per_extent, s.extent_size) {
            (Some(slots), Some(bytes)) =>
                format!("slots of {} bytes, extents of {slots} slots ({})", s.slot_size, size(bytes)),
            _ => "in slots of their length".to_owned(),
        },
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
    if let Some(bytes) = s.bytes_per_record() {
        out.line(format_args!("cost        {bytes} bytes on disk for each record"))?;
    }
    out.line(format_args!(
        "durability  epoch {}, durable up to {}; {} flushes, {} durable writes",
        s.epoch, s.durable_epoch, s.flushes, s.durable_writes
    ))
}

/// The slots by their length, and the sum of all.
fn classes(out: &mut Output, s: &Stats) -> Result<(), Failure> {
    out.line(format_args!(
        "\n{:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "slot", "extents", "slots", "used", "data", "in slots", "idle", "extents of"
    ))?;
    let (mut data, mut idle, mut bytes) = (0, 0, 0);
    for class in &s.classes {
        let used = class.used.unwrap_or_default();
        let idle_bytes = class.idle_bytes().unwrap_or_default();
        data += used.data_bytes;
        idle += idle_bytes;
        bytes += class.bytes;
        out.line(format_args!(
            "{:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            class.slot_size,
            class.extents,
            class.slots,
            used.slots,
            size(used.data_bytes),
            size(used.slots * class.slot_size),
            size(idle_bytes),
            size(class.bytes)
        ))?;
    }
    out.line(format_args!(
        "{:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "all",
        s.classes.iter().map(|class| u64::from(class.extents)).sum::<u64>(),
        s.slots,
        s.classes.iter().filter_map(|class| class.used).map(|used| used.slots).sum::<u64>(),
        size(data),
        size(s.classes.iter().map(|class| class.used.map_or(0, |used| used.slots * class.slot_size)).sum()),
        size(idle),
        size(bytes)
    ))
}

fn regions(out: &mut Output, regions: &[RegionStats], all: bool) -> Result<(), Failure> {
    let shown: Vec<&RegionStats> = regions.iter().filter(|r| all || r.lock.is_some()).collect();
    if shown.is_empty() {
        return Ok(());
    }
    out.line(format_args!(
        "\n{:>6} {:>10} {:>10} {:>10} {:>8} {:>7} {:>5} {:>12}  lock",
        "region", "records", "slots", "free", "kept", "extents", "fill", "next version"
    ))?;
    for r in shown {
        let fill = (u128::from(r.slots.saturating_sub(r.free_slots)) * 100)
            .checked_div(u128::from(r.slots))
            .map_or("-".into(), |percent| format!("{percent}%"));
        let lock = match &r.lock {
            None => "-".into(),
            Some(LockOwner { seat, pid, pid_exists, alive, .. }) => match state_of(*pid, *pid_exists, *alive)
            {
                "alive" => format!("process {pid} in seat {seat}"),
                state => format!("process {pid} in seat {seat}, {state}"),
            },
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
    out.line(format_args!(
        "\n{:>6} {:>10} {:>10} {:>6}  {:<8}  {}",
        "seat", "generation", "process", "pins", "attached", "command"
    ))?;
    for a in &s.attached {
        out.line(format_args!(
            "{:>6} {:>10} {:>10} {:>6}  {:<8}  {}",
            a.seat,
            a.generation,
            a.pid,
            a.pins,
            state_of(a.pid, a.pid_exists, a.alive),
            command_of(a).unwrap_or_default()
        ))?;
    }
    Ok(())
}

/// The beginning of the command line of a process that lives.
fn command_of(a: &Attached) -> Option<String> {
    let command = Process::look(a.pid).filter(|_| a.alive)?.command;
    Some(command.chars().take(COMMAND_CHARS).collect())
}

/// The metrics of a store; each is a gauge or a counter with the store's path as its label.
fn prometheus(out: &mut Output, s: &Stats) -> Result<(), Failure> {
    let label = s.path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let held = s.regions.iter().filter(|r| r.lock.is_some()).count() as u64;
    let dead = s.regions.iter().filter(|r| r.lock.as_ref().is_some_and(|l| !l.alive)).count() as u64;
    let alive = s.attached.iter().filter(|a| a.alive).count() as u64;
    let pins: u64 = s.attached.iter().filter(|a| a.alive).map(|a| a.pins).sum();
    let lag = s.epoch.saturating_sub(s.durable_epoch);
    let metrics: [(&str, &str, &str, u64); 15] = [
        ("records", "gauge", "Live records.", s.records),
        ("slots", "gauge", "Slots.", s.slots),
        ("free_slots", "gauge", "Slots that are free.", s.free_slots),
        ("retired_slots", "gauge", "Slots of replaced versions that are kept.", s.retired_slots),
        ("file_bytes", "gauge", "Size of the file.", s.file_size),
        ("allocated_bytes", "gauge", "Disk space that the file takes.", s.allocated_size),
        ("max_bytes", "gauge", "Ceiling of the file's size.", s.max_size),
        ("index_bytes", "gauge", "Size of the index tables.", s.index_bytes),
        ("epoch_lag", "gauge", "Epochs that are not durable; 1 right after a flush.", lag),
        ("regions_locked", "gauge", "Regions whose lock is held.", held),
        ("regions_locked_by_dead", "gauge", "Regions whose lock a dead process left.", dead),
        ("handles", "gauge", "Attached handles whose process lives.", alive),
        ("pins", "gauge", "Pins of living handles.", pins),
        ("flushes_total", "counter", "Flushes since the store was created.", s.flushes),
        ("durable_writes_total", "counter", "Writes that asked to be durable.", s.durable_writes),
    ];
    for (name, kind, help, value) in metrics {
        out.line(format_args!("# HELP recstore_{name} {help}"))?;
        out.line(format_args!("# TYPE recstore_{name} {kind}"))?;
        out.line(format_args!("recstore_{name}{{store=\"{label}\"}} {value}"))?;
    }
    Ok(())
}

fn to_json(s: &Stats) -> Value {
    let owner = |l: &LockOwner| json!({"seat": l.seat, "generation": l.generation, "pid": l.pid, "pid_exists": l.pid_exists, "alive": l.alive, "state": state_of(l.pid, l.pid_exists, l.alive)});
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
        .map(|a| {
            json!({"seat": a.seat, "generation": a.generation, "pid": a.pid, "pid_exists": a.pid_exists, "alive": a.alive,
                   "state": state_of(a.pid, a.pid_exists, a.alive), "pins": a.pins})
        })
        .collect();
    let classes: Vec<Value> = s
        .classes
        .iter()
        .map(|c| {
            json!({
                "slot_size": c.slot_size, "extents": c.extents, "bytes": c.bytes, "slots": c.slots,
                "fresh_slots": c.fresh_slots, "used_slots": c.used.map(|used| used.slots),
                "data_bytes": c.used.map(|used| used.data_bytes), "idle_bytes": c.idle_bytes(),
            })
        })
        .collect();
    json!({
        "path": s.path.to_string_lossy(), "verdict": verdict(s), "format_version": s.format_version, "uuid": s.uuid,
        "record_size": s.record_size, "slot_size": s.slot_size, "slots_per_extent": s.slots_per_extent,
        "extent_size": s.extent_size, "max_size": s.max_size, "file_size": s.file_size,
        "allocated_size": s.allocated_size, "records": s.records, "slots": s.slots,
        "free_slots": s.free_slots, "retired_slots": s.retired_slots, "extents": s.extents,
        "index_bytes": s.index_bytes, "bytes_per_record": s.bytes_per_record(), "classes": classes, "epoch": s.epoch, "durable_epoch": s.durable_epoch,
        "closed_cleanly": s.closed_cleanly, "flushes": s.flushes, "durable_writes": s.durable_writes,
        "regions": regions, "attached": attached,
    })
}
