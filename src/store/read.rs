//! The loops of reading: looks without a lock, as long as a slot or line is in motion; then the region's lock for a short time;
//! then a look at all slots; then the region's lock.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::file::numbers::Spot;
use crate::format::slot::{Address, Header};
use crate::handle::lock::in_region;
use crate::protocol::index::{candidates, load_line};
use crate::region::Trouble;
use crate::region::head::Region;
use crate::region::read::{Look, look, look_at_every_slot, look_at_unmarked};
use crate::region::watch::Changed;
use crate::store::Store;
use crate::sys::deadline::Deadline;

/// Looks without a lock before a reader takes the region's lock.
const LOOKS: u32 = 64;
/// Looks before a reader that may not take locks gives up.
const LOOKS_READ_ONLY: u32 = 10_000;
/// Passes over all slots by a reader that may take locks, before it waits for the lock.
const PASSES: u32 = 4;
/// The time that a reader waits for a lock at first: longer than a write takes.
const READER_PATIENCE: Duration = Duration::from_millis(5);
/// `get_many` prefetches index lines and slots this many ids ahead.
const AHEAD: usize = 8;
/// At most this many bytes of a slot are prefetched. The processor prefetches the rest by itself.
const ASK_BYTES_MAX: u64 = 512;

/// The result of one look of several.
pub(super) enum Looked<T> {
    /// The result.
    Done(T),
    /// A slot or line was in motion: another look may give a result.
    Moved,
    /// Another look would end in the same way.
    Stuck,
}

/// Looks until a look gives a result; `None` if none does. `look` gets the number of looks before it.
#[inline]
pub(super) fn look_again<T>(mut look: impl FnMut(u32) -> Result<Looked<T>>) -> Result<Option<T>> {
    for n in 0..LOOKS {
        match look(n)? {
            Looked::Done(found) => return Ok(Some(found)),
            Looked::Moved => std::hint::spin_loop(),
            Looked::Stuck => break,
        }
    }
    Ok(None)
}

impl Store {
    /// Prefetches the lines that the first of several operations need. `hash`: the hash of the n-th operation's id.
    pub(super) fn ask_for_first(&self, hash: impl Fn(usize) -> Option<u64>) {
        (0..2 * AHEAD).map_while(hash).for_each(|hash| self.ask_for_line(hash));
    }

    /// The same for operations some way after the n-th one.
    #[inline]
    pub(super) fn ask_ahead(&self, n: usize, hash: impl Fn(usize) -> Option<u64>) {
        if let Some(later) = hash(n + 2 * AHEAD) {
            self.ask_for_line(later);
        }
        if let Some(soon) = hash(n + AHEAD) {
            self.ask_for_slot(soon);
        }
    }

    #[inline]
    fn ask_for_line(&self, hash: u64) {
        let arena = &self.handle.arena;
        let shape = arena.shape(arena.geo.region_of(hash));
        arena.map.prefetch(shape.line_at(shape.home(hash)));
    }

    #[inline]
    fn ask_for_slot(&self, hash: u64) {
        let arena = &self.handle.arena;
        let shape = arena.shape(arena.geo.region_of(hash));
        let Some(words) = arena.line(&shape, shape.home(hash)) else { return };
        let line = load_line(words);
        let found = candidates(&line, &shape, hash);
        if found != 0
            && let Some(slot) = shape.slot(line.0[found.trailing_zeros() as usize])
        {
            let Some(Spot { offset, slot_size, .. }) = arena.find(slot) else { return };
            for line in (0..slot_size.min(ASK_BYTES_MAX)).step_by(64) {
                arena.map.prefetch(offset + line);
            }
        }
    }

    /// Reads the record that is found by `address` under this id, without a lock or, if the looks give no result, with it.
    /// Returns the version and its slot.
    #[inline]
    pub(crate) fn read(
        &self,
        id: u64,
        address: Address,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<Option<(Header, u32)>> {
        let handle = &self.handle;
        let hash = handle.arena.geo.hash(id);
        // The hot path: the loop of `look_again`, in fewer instructions.
        for _ in 0..LOOKS {
            match look_at_unmarked(&handle.arena, hash, id, handle.verify_reads, out.as_deref_mut()) {
                Look::Hit(header, slot) if header.address() == address => return Ok(Some((header, slot))),
                Look::Hit(..) => break,
                Look::Miss => return Ok(None),
                Look::Damaged { slot, what } => return Err(self.corrupt(id, slot, what)),
                Look::Moved => std::hint::spin_loop(),
                Look::Broken(_) => break,
            }
        }
        self.read_marked_or_another(hash, id, address, out)
    }

    /// Reads in a region that is marked, or a record that says that it is found in another way: so it is, if its checksum
    /// says so too.
    #[cold]
    fn read_marked_or_another(
        &self,
        hash: u64,
        id: u64,
        address: Address,
        out: Option<&mut Vec<u8>>,
    ) -> Result<Option<(Header, u32)>> {
        let is_checked = out.is_some();
        let is_other = |(header, _): &(Header, u32)| header.address() != address;
        let mut found = self.read_marked(hash, id, out)?;
        if found.as_ref().is_some_and(is_other) && !is_checked {
            found = self.read_marked(hash, id, Some(&mut Vec::new()))?;
        }
        Ok(found.filter(|found| !is_other(found)))
    }

    /// Reads the record with this id, whatever it is found by.
    pub(crate) fn read_either(&self, id: u64, out: Option<&mut Vec<u8>>) -> Result<Option<(Header, u32)>> {
        self.read_marked(self.handle.arena.geo.hash(id), id, out)
    }

    /// Reads in a region that is marked, or stays in motion.
    #[cold]
    fn read_marked(
        &self,
        hash: u64,
        id: u64,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<Option<(Header, u32)>> {
        let handle = &self.handle;
        let read = look_again(|_| {
            Ok(match look(&handle.arena, hash, id, handle.verify_reads, out.as_deref_mut()) {
                Look::Hit(header, slot) => Looked::Done(Some((header, slot))),
                Look::Miss => Looked::Done(None),
                Look::Damaged { slot, what } => return Err(self.corrupt(id, slot, what)),
                Look::Moved => Looked::Moved,
                Look::Broken(_) => Looked::Stuck,
            })
        })?;
        if let Some(found) = read {
            return Ok(found);
        }
        if self.is_read_only() {
            self.read_around(hash, id, out, LOOKS_READ_ONLY)
        } else {
            self.read_locked(hash, id, out)
        }
    }

    /// Reads under the region's lock, which heals the region. If the lock is held for long, or the region can't be healed now,
    /// looks at all slots, as a read-only handle does. Waits for the lock only if these looks give no result, because other
    /// processes write all the while.
    #[cold]
    fn read_locked(
        &self,
        hash: u64,
        id: u64,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<Option<(Header, u32)>> {
        let soon = Deadline::after(Some(READER_PATIENCE));
        let locked = self.check_outside(hash);
        match locked.and_then(|()| self.read_by(hash, id, out.as_deref_mut(), &soon)) {
            Err(
                Error::Busy { .. } | Error::Full { .. } | Error::Damaged { .. } | Error::Reentrant { .. },
            ) => {}
            read => return read,
        }
        match self.read_around(hash, id, out.as_deref_mut(), PASSES) {
            Err(Error::NeedsRepair { .. } | Error::Damaged { .. }) => {}
            read => return read,
        }
        self.check_outside(hash)?;
        self.read_by(hash, id, out, &self.handle.arena.deadline())
    }

    fn read_by(
        &self,
        hash: u64,
        id: u64,
        mut out: Option<&mut Vec<u8>>,
        deadline: &Deadline,
    ) -> Result<Option<(Header, u32)>> {
        let number = self.handle.arena.geo.region_of(hash);
        let mut locked = self.handle.lock_by(number, Some(deadline))?;
        locked.will_change(Changed::None);
        in_region(&Region::new(&self.handle.arena, number), |region| {
            self.read_in(region, hash, id, out.as_deref_mut())
        })
    }

    /// Reads in a region whose lock is held, so that nothing is in motion. The record may be found by either.
    pub(crate) fn read_in(
        &self,
        region: &Region<'_>,
        hash: u64,
        id: u64,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<Option<(Header, u32)>, Trouble> {
        let found = loop {
            let layout = region.arena.numbers.layout();
            match look(region.arena, hash, id, self.handle.verify_reads, out.as_deref_mut()) {
                // The layout changed, by an extent of another region: that is no flaw of this one.
                Look::Moved if region.arena.numbers.layout() != layout => {}
                found => break found,
            }
        };
        match found {
            Look::Hit(header, slot) => Ok(Some((header, slot))),
            Look::Miss => Ok(None),
            Look::Damaged { slot, what } => Err(self.corrupt(id, slot, what).into()),
            Look::Moved => Err(Trouble::Flaw("its index and its slots contradict each other")),
            Look::Broken(what) => Err(Trouble::Flaw(what)),
        }
    }

    #[cold]
    fn read_around(
        &self,
        hash: u64,
        id: u64,
        mut out: Option<&mut Vec<u8>>,
        passes: u32,
    ) -> Result<Option<(Header, u32)>> {
        let arena = &self.handle.arena;
        let mut passed = 0;
        for n in 0..LOOKS_READ_ONLY {
            if passed == passes {
                break;
            }
            let mut seen = look(arena, hash, id, self.handle.verify_reads, out.as_deref_mut());
            if matches!(seen, Look::Broken(_)) || matches!(seen, Look::Moved) && n % 64 == 63 {
                passed += 1;
                seen = look_at_every_slot(arena, hash, id, out.as_deref_mut())?;
                if matches!(seen, Look::Moved) {
                    std::thread::yield_now();
                }
            }
            match seen {
                Look::Hit(header, slot) => return Ok(Some((header, slot))),
                Look::Miss => return Ok(None),
                Look::Damaged { slot, what } => return Err(self.corrupt(id, slot, what)),
                Look::Moved | Look::Broken(_) => std::hint::spin_loop(),
            }
        }
        let why = format!("region {} does not come to rest", arena.geo.region_of(hash));
        Err(Error::NeedsRepair { path: arena.path.clone(), why })
    }

    #[cold]
    pub(crate) fn corrupt(&self, id: u64, slot: Option<u32>, what: &str) -> Error {
        let path = self.handle.arena.path.clone();
        Error::Corrupt { path, region: self.region_of(id), slot, id, what: what.to_owned() }
    }
}
