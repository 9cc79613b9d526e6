//! The sources, read as text: who may import whom, what has an example, and whether the tests that documents name are there.

mod documented;
mod named;
mod structure;
