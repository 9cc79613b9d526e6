//! The sources, read as text: who may import whom, and what has an example.

mod documented;
mod structure;
