//! The identity of a handle, as a value that can be kept in a record.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::file::seat;
use crate::protocol::lock::Owner;
use crate::store::Store;

/// A handle that is, or was, attached to a store for writing: see [`Store::holder`].
///
/// It is plain data of 8 bytes, for records: a lease, a claim of a job, a list of participants. No two handles of one store have the
/// same value. All zeros is no handle.
///
/// ```
/// # use recstore::Store;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("a.rec"))?;
/// use recstore::{HandleId, bytemuck};
///
/// let leader = store.typed::<HandleId>()?;
/// // Who finds no leader, or a dead one, is the leader.
/// leader.update(1, |old| match old {
///     Some(old) if store.is_alive(old).unwrap_or(true) => None,
///     _ => store.holder().ok(),
/// })?;
/// assert_eq!(leader.get(1)?, Some(store.holder()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct HandleId {
    seat: u32,
    /// Of a claim it is never 0.
    generation: u32,
}

/// The handles that have the store open.
impl Store {
    /// This handle, as a value that any process can ask [`is_alive`](Self::is_alive) about.
    ///
    /// ```
    /// # use recstore::Store;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// let me = store.holder()?;
    /// let other = Store::open(store.path())?;
    /// assert!(other.is_alive(me)?);
    /// store.close()?;
    /// assert!(!other.is_alive(me)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a read-only handle has no seat, so other processes can't know it; [`Error::Forked`].
    pub fn holder(&self) -> Result<HandleId> {
        self.handle.check()?;
        let arena = &self.handle.arena;
        let owner = arena.owner.ok_or_else(|| Error::ReadOnly { path: arena.path.clone() })?;
        Ok(HandleId { seat: owner.seat, generation: owner.generation })
    }

    /// Whether a handle is still attached: neither closed nor dropped, and its process lives. A stopped process lives.
    ///
    /// The kernel tells by the lock that the handle holds. No process id, no time-out and no clock takes part, so it works between
    /// containers too. A system call, unless it is this handle, or another handle has claimed its seat since.
    ///
    /// ```
    /// # use recstore::{HandleId, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("a.rec"))?;
    /// assert!(store.is_alive(store.holder()?)?);
    /// assert!(!store.is_alive(HandleId::default())?); // nobody
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Forked`].
    pub fn is_alive(&self, holder: HandleId) -> Result<bool> {
        self.handle.check()?;
        let HandleId { seat, generation } = holder;
        Ok(generation != 0 && seat::is_alive(&self.handle.arena, Owner { seat, generation })?)
    }
}
