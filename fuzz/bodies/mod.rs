//! What the fuzz targets do with an input: plain functions. They panic if a promise of the store does not
//! hold. `tests/fuzz_corpus.rs` replays the committed inputs through them.

pub mod cli_load;
pub mod damaged_store;
pub mod open_bytes;
pub mod operations;
pub mod slot_codec;

mod disk;
mod edit;
mod input;
#[path = "../../tests/common/layout.rs"]
#[allow(dead_code, unreachable_pub)]
mod layout;
mod probe;
