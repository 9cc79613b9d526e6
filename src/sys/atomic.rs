//! The atomics of the protocol, under one name, so that those of a model checker can take their place.

/// A fence for the compiler alone: what a process has stored before it dies is a prefix of its stores in the order of the program, and the
/// processor keeps that order for the process itself.
pub(crate) use std::sync::atomic::compiler_fence;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
