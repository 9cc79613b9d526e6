//! The native module of the package for Python. What users see is in `recstore/`; here are the classes that it is made of.
//!
//! All classes are frozen, and what changes in them is behind atomics and mutexes. No mutex is held while code of the user runs,
//! and none is waited for with the interpreter's lock held.

use pyo3::prelude::*;

mod batch;
mod counter;
mod error;
mod forked;
mod handle;
mod items;
mod key;
mod lent;
mod map;
mod queue;
mod report;
mod ring;
mod room;
mod value;
mod watch;

// Not with threads that run without the interpreter's lock: what is lent to numpy counts references to know who has it.
#[pymodule(gil_used = true)]
mod _native {
    use pyo3::exceptions::PyImportError;
    use pyo3::ffi;
    use pyo3::prelude::*;

    /// The first interpreter of a process.
    const MAIN: i64 = 0;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: the calls only ask, and the interpreter's lock is held.
        let here = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
        if here == MAIN {
            return Ok(());
        }
        Err(PyImportError::new_err(
            "recstore does not work in subinterpreters; import it in the main interpreter, and use threads or processes",
        ))
    }

    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::counter::Counter;
    #[pymodule_export]
    use crate::handle::Handle;
    #[pymodule_export]
    use crate::items::Items;
    #[pymodule_export]
    use crate::lent::{Pin, Snapshot, View};
    #[pymodule_export]
    use crate::map::Map;
    #[pymodule_export]
    use crate::queue::{Job, Queue};
    #[pymodule_export]
    use crate::report::{opened, remove_shared, repair, salvage, shared_names, stats, verify};
    #[pymodule_export]
    use crate::ring::Ring;
    #[pymodule_export]
    use crate::room::{Reservation, Room};
    #[pymodule_export]
    use crate::watch::{Changes, Watch};
}
