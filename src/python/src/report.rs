//! Reports of checks and repairs, and the store in numbers, as plain objects. `recstore/_reports.py` has the classes.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use recstore::{Damage, Missing};

use crate::error::exception;
use crate::handle::{Handle, in_slices};

type DamageOf = (Option<u32>, Option<u32>, Option<u64>, String);
type MissingOf = (u32, u64, String);

fn damage(found: &[Damage]) -> Vec<DamageOf> {
    found.iter().map(|found| (found.region, found.slot, found.id, found.what.clone())).collect()
}

fn missing(found: &[Missing]) -> Vec<MissingOf> {
    found.iter().map(|found| (found.region, found.records, found.what.clone())).collect()
}

/// Copies the records of a damaged file into a new store.
#[pyfunction]
pub(crate) fn salvage<'py>(
    py: Python<'py>,
    damaged: PathBuf,
    to: PathBuf,
    record_size: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let report = in_slices(py, None, || recstore::salvage(&damaged, &to, record_size))?;
    let report = report.map_err(|error| exception(py, &error))?;
    let fields = PyDict::new(py);
    fields.set_item("records", report.records)?;
    fields.set_item("lost", damage(&report.lost))?;
    fields.set_item("missing", missing(&report.missing))?;
    fields.set_item("unknown", &report.unknown)?;
    fields.set_item("source", &report.source)?;
    fields.set_item("is_complete", report.is_complete())?;
    Ok(fields)
}

/// Removes the store in memory with this name.
#[pyfunction]
pub(crate) fn remove_shared(py: Python<'_>, name: &str) -> PyResult<bool> {
    py.detach(|| recstore::Store::remove_shared(name)).map_err(|error| exception(py, &error))
}

/// The names of the stores in memory.
#[pyfunction]
pub(crate) fn shared_names(py: Python<'_>) -> PyResult<Vec<String>> {
    let names = py.detach(recstore::Store::shared_names).map_err(|error| exception(py, &error))?;
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

#[pyfunction]
pub(crate) fn verify<'py>(py: Python<'py>, handle: &Bound<'_, Handle>) -> PyResult<Bound<'py, PyDict>> {
    let report = handle.get().core.wait(py, |attached| attached.opened().verify())?;
    let fields = PyDict::new(py);
    fields.set_item("records", report.records)?;
    fields.set_item("slots", report.slots)?;
    fields.set_item("damage", damage(&report.damage))?;
    fields.set_item("missing", missing(&report.missing))?;
    Ok(fields)
}

#[pyfunction]
pub(crate) fn repair<'py>(py: Python<'py>, handle: &Bound<'_, Handle>) -> PyResult<Bound<'py, PyDict>> {
    let report = handle.get().core.wait(py, |attached| attached.opened().repair())?;
    repaired(py, &report)
}

/// The report of the repair when the store was opened.
#[pyfunction]
pub(crate) fn opened<'py>(py: Python<'py>, handle: &Bound<'_, Handle>) -> PyResult<Bound<'py, PyDict>> {
    repaired(py, handle.get().core.attached(py)?.opened().opened())
}

#[pyfunction]
pub(crate) fn stats<'py>(py: Python<'py>, handle: &Bound<'_, Handle>) -> PyResult<Bound<'py, PyDict>> {
    let stats = handle.get().core.wait(py, |attached| attached.opened().stats())?;
    let fields = PyDict::new(py);
    fields.set_item("path", stats.path.as_os_str())?;
    fields.set_item("format_version", stats.format_version)?;
    fields.set_item("uuid", &stats.uuid)?;
    for (name, value) in [
        ("record_size", stats.record_size),
        ("slot_size", stats.slot_size),
        ("max_size", stats.max_size),
        ("file_size", stats.file_size),
        ("allocated_size", stats.allocated_size),
        ("records", stats.records),
        ("slots", stats.slots),
        ("free_slots", stats.free_slots),
        ("retired_slots", stats.retired_slots),
        ("extents", stats.extents.into()),
        ("index_bytes", stats.index_bytes),
        ("epoch", stats.epoch),
        ("durable_epoch", stats.durable_epoch),
        ("flushes", stats.flushes),
        ("durable_writes", stats.durable_writes),
        ("regions", stats.regions.len() as u64),
    ] {
        fields.set_item(name, value)?;
    }
    fields.set_item("slots_per_extent", stats.slots_per_extent)?;
    fields.set_item("extent_size", stats.extent_size)?;
    fields.set_item("closed_cleanly", stats.closed_cleanly)?;
    let attached = stats.attached.iter().map(|of| (of.seat, of.generation, of.pid, of.alive, of.pins));
    fields.set_item("attached", attached.collect::<Vec<_>>())?;
    Ok(fields)
}

fn repaired<'py>(py: Python<'py>, report: &recstore::RepairReport) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("regions_rebuilt", &report.regions_rebuilt)?;
    fields.set_item("dropped", damage(&report.dropped))?;
    fields.set_item("missing", missing(&report.missing))?;
    fields.set_item("fixed", &report.fixed)?;
    fields.set_item("os_crash", report.os_crash)?;
    Ok(fields)
}
