//! The atomics of the protocol, under one name, so that a model checker's can take their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
