//! The region: what its owner does and how it is read are the crate's own files.

#[path = "../../../src/region/batch.rs"]
pub(crate) mod batch;
#[path = "../../../src/region/decided.rs"]
pub(crate) mod decided;
#[path = "../../../src/region/delete.rs"]
pub(crate) mod delete;
#[path = "../../../src/region/find.rs"]
pub(crate) mod find;
#[path = "../../../src/region/finish.rs"]
pub(crate) mod finish;
#[path = "../../../src/region/head.rs"]
pub(crate) mod head;
#[path = "../../../src/region/intent.rs"]
pub(crate) mod intent;
#[path = "../../../src/region/read.rs"]
pub(crate) mod read;
#[path = "../../../src/region/slots.rs"]
pub(crate) mod slots;
#[path = "../../../src/region/table.rs"]
pub(crate) mod table;
#[path = "../../../src/region/watch.rs"]
pub(crate) mod watch;
#[path = "../../../src/region/write.rs"]
pub(crate) mod write;

use crate::error::Error;

/// As in the crate.
#[derive(Debug)]
pub(crate) enum Trouble {
    Flaw(&'static str),
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
