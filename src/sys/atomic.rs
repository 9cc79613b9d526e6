//! The atomics of the protocol, under one name, so that those of a model checker can take their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
