//! Growth: the model's store has the slots that it has, and room for two tables. The growth lock
//! excludes other regions, of which there are none.

use crate::error::{Error, Result};
use crate::file::arena::Arena;
use crate::format::extent::{Extent, Location};
use crate::format::index::Shape;

pub(crate) fn populate_fresh(_arena: &Arena, _region: u32, _place: &Location, _is_linked: bool) {}

pub(crate) struct Growth<'a>(&'a Arena);

impl<'a> Growth<'a> {
    pub(crate) fn lock(arena: &'a Arena) -> Result<Self> {
        Ok(Self(arena))
    }

    pub(crate) fn add_data_extent(&mut self, region: u32, _class: u32, _with_links: bool) -> Result<Extent> {
        let path = self.0.path.clone();
        Err(Error::Full { path, region, limit: 0, why: "the model's end".to_owned(), source: None })
    }

    pub(crate) fn lock_soon(arena: &'a Arena) -> Result<Self> {
        Self::lock(arena)
    }

    pub(crate) fn finish_data_extent(&mut self, _extent: &Extent) -> Result<()> {
        Ok(())
    }

    pub(crate) fn index_space(&mut self, region: u32, _bytes: u64) -> Result<u64> {
        let shape = self.0.head(region).shape().load(crate::sys::atomic::Ordering::Relaxed);
        Ok(self.0.other_table(&shape))
    }

    pub(crate) fn allocate_links(&mut self, _region: u32) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn next_lines_log2(shape: &Shape) -> u32 {
    shape.lines_log2
}
