//! Target `operations`: arbitrary sequences of calls, by two handles, against a `BTreeMap`; with deaths in the
//! middle of a call, and losses of power. Keys of a space have deadlines, by a clock that the input moves.
//!
//! * A *death* at the n-th step of the next call: the file is put back to what it held at that step, and the
//!   handle is gone. The record is as before the call or as after it.
//! * A *loss of power*: each sector of the file is at any of the states that it has had since the last flush (or
//!   at the flush), the length likewise, as the input says. Each record is at one of the states that it has had
//!   since the last `sync` that returned. A later deadline is a record of its own, so the deadline of a key may be of an earlier state
//!   than its value.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use recstore::testing::{EVERYTHING_FLUSHED, Fault, set_clocks, set_hook};
use recstore::{Change, Changes, Commit, Durability, Error, Options, Space, Store, Swap, Ttl, Version};

use super::disk::{Disk, empty_store};
use super::input::Input;
use super::layout::{CONTROL, Layout, SEATS, SUPERBLOCK_B};

const SECTOR: usize = 512;
/// Steps after which a flush is the next thing.
const FLUSHING_STEPS: [&str; 3] = ["open: marked in use", "close: locks marked clean", "close: marked clean"];
/// The step at which a version is on disk that was flushed by itself.
const ONE_FLUSHED: &str = "put: flushed by itself";
/// In the stamp of such a version.
const LONE: u64 = 1 << 49;
const PAGE: usize = 4096;
/// Where the file says whether it is clean.
const CLEAN: usize = CONTROL + 80;
const IDS: usize = 40;
const OPERATIONS_MAX: usize = 300;
/// Numbers that stand for keys in the model, from this one on.
const KEYS: u64 = 1 << 40;
const KEYS_MAX: usize = 4;
/// A record of this many bytes has room for a key with a deadline, and for the anchor of the clock.
const KEYED_BYTES: usize = 64;
/// The wall clock at the beginning, in milliseconds since 1970.
const BEGIN_MS: u64 = 20_000 * 24 * 3_600_000;
/// The deadline of a value without one.
const NEVER: u64 = u64::MAX;
const LAYOUTS: [(Layout, usize); 4] = [
    (Layout { record_size: 24, regions: 1, slots: 8 }, 12),
    (Layout { record_size: 40, regions: 2, slots: 4 }, 6),
    (Layout { record_size: 8, regions: 1, slots: 64 }, 8),
    (Layout { record_size: 200, regions: 3, slots: 1 }, 30),
];

fn options(layout: &Layout, extents: usize) -> Options {
    Options::new()
        .record_size(layout.record_size)
        .regions(layout.regions as u32)
        .slots_per_extent(layout.slots as u32)
        .max_size(layout.extent(extents) as u64)
        .allow_network_file_system(true)
}

/// A record, or that there is none. Of a key: its value of eight bytes, and its deadline.
type State = Option<Vec<u8>>;

fn is_key(id: u64) -> bool {
    (KEYS..KEYS + KEYS_MAX as u64).contains(&id)
}

fn keyed(value: &[u8], end_ms: u64) -> State {
    Some([value, &end_ms.to_le_bytes()].concat())
}

fn end_of(state: &[u8]) -> u64 {
    u64::from_le_bytes(state[8..].try_into().expect("a value and a deadline"))
}

fn space(store: &Store) -> Space<'_> {
    store.space("s").expect("a space")
}

fn name(id: u64) -> [u8; 1] {
    [b'a' + (id - KEYS) as u8]
}

/// The clocks of the process, for one run at a time.
struct Clocks {
    boot: u64,
    up_ms: u64,
    wall_ms: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Clocks {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let clocks = Self { boot: 1, up_ms: 1000, wall_ms: BEGIN_MS, _alone: alone };
        clocks.set();
        clocks
    }

    fn set(&self) {
        set_clocks(Some(([self.boot, 1], self.up_ms, self.wall_ms)));
    }

    fn pass(&mut self, ms: u64) {
        (self.up_ms, self.wall_ms) = (self.up_ms + ms, self.wall_ms + ms);
        self.set();
    }

    fn boot(&mut self) {
        (self.boot, self.up_ms, self.wall_ms) = (self.boot + 1, 500, self.wall_ms + 1000);
        self.set();
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        set_clocks(None);
    }
}

/// A mistake that the store is to make, as the environment says: whether this finds it is a test of this.
fn switch_fault() {
    static SWITCHED: Once = Once::new();
    SWITCHED.call_once(|| {
        let Ok(name) = std::env::var("RECSTORE_FAULT") else { return };
        let known = [
            Fault::ReuseEarly,
            Fault::NoTombstone,
            Fault::TombstoneEarly,
            Fault::DurableEarly,
            Fault::LowerSeqWins,
            Fault::NoScrub,
        ];
        let fault = known.into_iter().find(|fault| format!("{fault:?}") == name);
        recstore::testing::switch(
            fault.unwrap_or_else(|| panic!("RECSTORE_FAULT={name} is none of {known:?}")),
        );
    });
}

/// Does what the input says.
pub fn run(input: &[u8]) {
    switch_fault();
    recstore::testing::take_memory_for_disk();
    thread_local! {
        static EMPTY: [Vec<u8>; LAYOUTS.len()] =
            LAYOUTS.each_ref().map(|(layout, extents)| empty_store(&options(layout, *extents)));
    }
    let mut input = Input::new(input);
    let number = input.below(LAYOUTS.len());
    let (layout, extents) = &LAYOUTS[number];
    let empty = EMPTY.with(|empty| empty[number].clone());
    let mut machine = Machine::new(&empty, options(layout, *extents), *layout);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        machine.operation(&mut input);
    }
    machine.finish();
}

/// What the disk may hold: per sector, every state since the last flush. But for the seats, which are told by
/// file locks, and half of a small file.
struct Tracker {
    disk: Disk,
    layout: Layout,
    /// What the last flush left.
    base: Vec<u8>,
    /// What the file held when it was last looked at.
    now: Vec<u8>,
    buffer: Vec<u8>,
    states: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    lens: Vec<usize>,
    /// Steps until a death, if one is to come.
    dies_in: Option<usize>,
    /// What the file held at the death.
    dead: Option<Vec<u8>>,
    /// A flush begins after the last look.
    is_flushing: bool,
    /// Whose version is flushed by itself, if one is.
    durable_id: Option<u64>,
    /// Steps until the next look.
    looks_every: usize,
    steps: usize,
}

impl Tracker {
    fn new(disk: Disk, layout: Layout) -> Self {
        let base = disk.read();
        Self {
            now: base.clone(),
            buffer: base.clone(),
            states: BTreeMap::new(),
            lens: vec![base.len()],
            base,
            disk,
            layout,
            dies_in: None,
            dead: None,
            is_flushing: false,
            durable_id: None,
            looks_every: 0,
            steps: 0,
        }
    }

    /// A step of the store.
    fn step(&mut self, name: &'static str) {
        if self.dead.is_some() {
            return;
        }
        self.steps += 1;
        self.settle();
        if EVERYTHING_FLUSHED.contains(&name) {
            self.flushed();
        } else if name == ONE_FLUSHED {
            self.one_flushed();
        } else if FLUSHING_STEPS.contains(&name) {
            self.look();
            self.is_flushing = true;
        } else if self.looks_every != 0 && self.steps.is_multiple_of(self.looks_every) {
            self.look();
        }
        match &mut self.dies_in {
            Some(0) => {
                self.is_flushing = false; // It never came to that.
                self.look();
                self.dies_in = None;
                self.dead = Some(self.disk.read());
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    /// If a flush was about to begin, it has ended: what the last look saw is on disk.
    fn settle(&mut self) {
        if std::mem::take(&mut self.is_flushing) {
            self.base.clone_from(&self.now);
            self.states.clear();
            self.lens = vec![self.base.len()];
        }
    }

    /// Notes what has changed since the last look.
    fn look(&mut self) {
        if self.dead.is_some() {
            return; // What the call did after that has never been.
        }
        self.settle();
        let mut buffer = std::mem::take(&mut self.buffer);
        self.disk.read_but_seats_into(&mut buffer);
        if buffer.len() != self.now.len() {
            self.lens.push(buffer.len());
            self.now.resize(buffer.len(), 0);
        }
        for (i, (new, old)) in buffer.chunks(SECTOR).zip(self.now.chunks_mut(SECTOR)).enumerate() {
            if new != old {
                old.copy_from_slice(new);
                let mut sector = [0; SECTOR];
                sector[..new.len()].copy_from_slice(new);
                self.states.entry(i).or_default().push(sector);
            }
        }
        self.buffer = buffer;
    }

    /// As `look`. Of a store that was clean, a backup has flushed that it is in use, and has changed nothing else.
    fn look_after_backup(&mut self) {
        let is_clean = |bytes: &[u8]| bytes.get(CLEAN..CLEAN + 8) == Some(&1_u64.to_le_bytes()[..]);
        let was_clean = is_clean(&self.now);
        self.look();
        if was_clean && !is_clean(&self.now) {
            self.flushed();
        }
    }

    /// All that is in the file is on disk.
    fn flushed(&mut self) {
        self.look();
        self.base.clone_from(&self.now);
        self.states.clear();
        self.lens = vec![self.base.len()];
    }

    /// The pages are on disk in which the version lies that is flushed by itself.
    fn one_flushed(&mut self) {
        self.look();
        let word =
            |at: usize| self.now.get(at..at + 8).map_or(0, |w| u64::from_le_bytes(w.try_into().expect("8")));
        let is_it = |&at: &usize| {
            word(at) >> 63 == 1 && Some(word(at + 8)) == self.durable_id && word(at + 16) & LONE != 0
        };
        // Slots alone are looked at: other words may look like a header of a small id.
        let slots = (0..).map(|slot| self.layout.slot(slot)).take_while(|&at| at < self.now.len());
        let newest = slots.filter(is_it).max_by_key(|&at| word(at));
        let slot = newest.expect("the version that was flushed");
        let end = slot + 32 + (word(slot + 24) & ((1 << 30) - 1)) as usize;
        self.base.resize(self.now.len(), 0);
        self.lens = vec![self.base.len()];
        for sector in slot / PAGE * (PAGE / SECTOR)..end.div_ceil(PAGE) * (PAGE / SECTOR) {
            let bytes = sector * SECTOR..((sector + 1) * SECTOR).min(self.now.len());
            if let (Some(to), Some(from)) = (self.base.get_mut(bytes.clone()), self.now.get(bytes)) {
                to.copy_from_slice(from);
                self.states.remove(&sector);
            }
        }
    }

    /// What the disk holds after a loss of power, as the input says.
    fn image(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        self.look();
        let way = input.u8();
        let len = self.lens[input.below(self.lens.len())].max(self.base.len());
        let mut image = self.base.clone();
        image.resize(len, 0);
        // Seats are not looked at, and are taken as they are: a process that is gone holds none.
        image[SEATS..SUPERBLOCK_B].copy_from_slice(&self.disk.read()[SEATS..SUPERBLOCK_B]);
        for (&sector, states) in &self.states {
            let at = sector * SECTOR;
            let pick = match way % 4 {
                0 => input.below(states.len() + 1),
                1 => states.len() - input.below(states.len() + 1),
                2 => states.len().min(input.below(2) * states.len()),
                _ => (input.below(4) != 1) as usize * states.len(),
            };
            if let Some(state) = pick.checked_sub(1).and_then(|pick| states.get(pick))
                && let Some(to) = image.get_mut(at..at + SECTOR)
            {
                to.copy_from_slice(state);
            }
        }
        image
    }
}

/// The store, its handles, and what is known of its records.
struct Machine {
    disk: Disk,
    options: Options,
    layout: Layout,
    tracker: Rc<RefCell<Tracker>>,
    handles: [Option<Store>; 2],
    model: BTreeMap<u64, Vec<u8>>,
    /// The same of keys.
    keys: BTreeMap<u64, Vec<u8>>,
    clocks: Clocks,
    /// Records of keys are there, or of their deadlines.
    has_keyed: bool,
    /// Per id, the states since the last flush, the one at the flush first. Absent: as the model says.
    past: BTreeMap<u64, Vec<State>>,
    counter: u64,
    /// The version that each id was last given.
    versions: BTreeMap<u64, u64>,
}

/// How a call ended, as far as the model is concerned.
enum Ended {
    /// As it should.
    Well,
    /// There was no room.
    Full,
}

impl Machine {
    fn new(bytes: &[u8], options: Options, layout: Layout) -> Self {
        let disk = Disk::new(bytes);
        let tracker = Rc::new(RefCell::new(Tracker::new(disk.again(), layout)));
        let theirs = Rc::clone(&tracker);
        set_hook(Some(Box::new(move |name| theirs.borrow_mut().step(name))));
        Self {
            disk,
            options,
            layout,
            tracker,
            handles: [None, None],
            model: BTreeMap::new(),
            keys: BTreeMap::new(),
            clocks: Clocks::new(),
            has_keyed: false,
            past: BTreeMap::new(),
            counter: 0,
            versions: BTreeMap::new(),
        }
    }

    /// The handle of this number, opened if it is not.
    fn handle(&mut self, number: usize) -> &Store {
        if self.handles[number].is_none() {
            self.handles[number] = Some(self.open());
        }
        self.handles[number].as_ref().expect("opened just now")
    }

    /// Opens the store; deaths on the way are outlived.
    fn open(&mut self) -> Store {
        for _ in 0..3 {
            let opened = self.options.open(self.disk.path());
            let store = opened.unwrap_or_else(|e| panic!("the store does not open: {e}"));
            if !self.died() {
                return store;
            }
            drop(store);
            self.bury();
        }
        panic!("dies without being told to");
    }

    fn died(&self) -> bool {
        let mut tracker = self.tracker.borrow_mut();
        tracker.dies_in = None;
        tracker.dead.is_some()
    }

    /// Puts the file back to what it held at the death. The handle that died is gone already.
    fn bury(&mut self) {
        let mut dead = self.tracker.borrow_mut().dead.take().expect("a death");
        // Another handle may know of an extent that is not there any more.
        dead.resize(self.disk.len().max(dead.len()), 0);
        self.disk.write(&dead);
        self.tracker.borrow_mut().look();
    }

    fn operation(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let number = usize::from(what >> 5 & 1);
        if what >> 6 == 3 {
            let mut tracker = self.tracker.borrow_mut();
            tracker.dies_in = Some(input.below(64));
        }
        match what % 32 {
            0..=7 => self.put(input, number, Durability::Process),
            8 => self.put(input, number, Durability::Disk),
            9..=12 => self.delete(input, number),
            13 | 14 => self.update(input, number),
            15 | 16 => self.compare_and_swap(input, number),
            17 => self.write_many(input, number),
            18 | 19 => self.sync(number),
            20 => self.detach(number, true),
            21 => self.detach(number, false),
            22 | 26 if what >> 6 == 2 => self.key(input, number),
            22 => self.look_at_all(number),
            23 => self.repair(number),
            24 => self.crowd(input, number),
            25 => self.tracker.borrow_mut().looks_every = input.below(8),
            26 => self.backup(number),
            27 => self.pin(input, number, what >> 7 == 1),
            28 => self.reserve(input, number),
            31 => self.batch(input, number),
            _ => self.lose_power(input),
        }
    }

    fn id(input: &mut Input<'_>) -> u64 {
        match input.below(64) {
            id if id < IDS => id as u64,
            id => u64::MAX - id as u64,
        }
    }

    /// Bytes that were never written before.
    fn value(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        self.counter += 1;
        let len = input.below(self.layout.record_size + 1);
        let filler = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = [self.counter.to_le_bytes(), filler.to_le_bytes()].concat();
        bytes.iter().copied().cycle().take(len).collect()
    }

    /// Does a call of one handle that writes some records, and notes how it ended: `states` are those that its
    /// ids are to have.
    fn call(
        &mut self,
        number: usize,
        states: &[(u64, State)],
        work: impl FnOnce(&Store) -> recstore::Result<()>,
    ) {
        let before: Vec<(u64, State)> = states.iter().map(|(id, _)| (*id, self.known(*id))).collect();
        let armed = self.tracker.borrow_mut().dies_in.take();
        self.handle(number);
        self.tracker.borrow_mut().dies_in = armed;
        let store = self.handles[number].take().expect("a handle");
        let ended = match work(&store) {
            Ok(()) => Ended::Well,
            Err(Error::Full { .. }) => Ended::Full,
            Err(error) => panic!("{error}"),
        };
        self.tracker.borrow_mut().look();
        if self.died() {
            drop(store);
            self.bury();
            for ((id, was), (_, becomes)) in before.iter().zip(states) {
                let is = self.get(1 - number, *id);
                assert!(
                    is == *was || is == *becomes,
                    "id {id} after a death: {is:?}, not {was:?} nor {becomes:?}"
                );
                // Whoever takes the region's lock heals it, and a write that was on its way may arrive.
                let healer = self.handle(1 - number);
                let heal = if is_key(*id) {
                    space(healer).update(name(*id), |_| None::<Vec<u8>>)
                } else {
                    healer.update(*id, |_| None::<Vec<u8>>)
                };
                assert!(matches!(heal, Ok(None)), "{heal:?}");
                let later = self.get(1 - number, *id);
                assert!(later == is || later == *becomes, "id {id} healed: {later:?} after {is:?}");
                let is = later;
                self.set(*id, was.clone());
                self.set(*id, becomes.clone());
                self.set(*id, is);
            }
            return;
        }
        self.handles[number] = Some(store);
        for ((id, was), (_, becomes)) in before.iter().zip(states) {
            let is = self.get(number, *id);
            match ended {
                Ended::Well => assert!(is == *becomes, "id {id}: {is:?}, not {becomes:?}"),
                // Of several writes, some may be done.
                Ended::Full if states.len() > 1 => {
                    assert!(is == *was || states.iter().any(|(i, s)| i == id && *s == is), "id {id}: {is:?}");
                }
                Ended::Full => assert!(is == *was, "id {id}: {is:?}, not {was:?}, though there was no room"),
            }
            self.set(*id, is);
        }
    }

    /// The record as a handle sees it.
    fn get(&mut self, number: usize, id: u64) -> State {
        if is_key(id) {
            return key_in(self.handle(number), id);
        }
        let record = self.handle(number).get(id).unwrap_or_else(|e| panic!("get {id}: {e}"))?;
        let version = record.version().get();
        let last = self.versions.entry(id).or_default();
        *last = (*last).max(version);
        Some(record.into_data())
    }

    /// The record as it should be.
    fn known(&self, id: u64) -> State {
        if is_key(id) {
            let now_ms = self.clocks.wall_ms;
            return self.keys.get(&id).filter(|state| end_of(state) > now_ms).cloned();
        }
        self.model.get(&id).cloned()
    }

    /// Notes a state that a record has from now on.
    fn set(&mut self, id: u64, state: State) {
        let now = self.known(id);
        self.past.entry(id).or_insert_with(|| vec![now]).push(state.clone());
        self.note(id, state);
    }

    fn note(&mut self, id: u64, state: State) {
        let model = if is_key(id) { &mut self.keys } else { &mut self.model };
        match state {
            Some(bytes) => _ = model.insert(id, bytes),
            None => _ = model.remove(&id),
        }
    }

    /// A call for a key with a deadline; or time passes.
    fn key(&mut self, input: &mut Input<'_>, number: usize) {
        if self.layout.record_size < KEYED_BYTES {
            return;
        }
        self.has_keyed = true;
        let (id, ttl_ms) = (KEYS + input.below(KEYS_MAX) as u64, 1000 * (1 + input.below(50) as u64));
        let (ttl, end_ms) = (Ttl::after(Duration::from_millis(ttl_ms)), self.clocks.wall_ms + ttl_ms);
        self.counter += 1;
        let value = self.counter.to_le_bytes();
        let was = self.known(id);
        match input.u8() % 12 {
            0 | 1 => self.call(number, &[(id, keyed(&value, end_ms))], |store| {
                space(store).put_with(name(id), value, ttl).map(drop)
            }),
            2 => self.call(number, &[(id, keyed(&value, NEVER))], |store| {
                space(store).put(name(id), value).map(drop)
            }),
            3..=5 => {
                let becomes = was.as_ref().and_then(|was| keyed(&was[..8], end_ms));
                self.call(number, &[(id, becomes)], |store| {
                    assert_eq!(space(store).touch(name(id), ttl)?, was.is_some(), "touch");
                    Ok(())
                });
            }
            6 => {
                let becomes = keyed(&value, was.as_ref().map_or(NEVER, |was| end_of(was)));
                self.call(number, &[(id, becomes)], |store| {
                    space(store).update(name(id), |old| {
                        assert_eq!(old, was.as_ref().map(|was| &was[..8]), "update of a key");
                        Some(value)
                    })?;
                    Ok(())
                });
            }
            7 => self.call(number, &[(id, None)], |store| {
                assert_eq!(space(store).delete(name(id))?, was.is_some(), "delete of a key");
                Ok(())
            }),
            8 => {
                let becomes = was.clone().or_else(|| keyed(&value, end_ms));
                self.call(number, &[(id, becomes)], |store| {
                    let space = space(store).with_ttl(ttl);
                    let mut batch = store.batch();
                    batch.require_in(&space, name(id), None)?;
                    batch.put_in(&space, name(id), value.to_vec())?;
                    let is_done = matches!(batch.commit()?, Commit::Done(_));
                    assert_eq!(is_done, was.is_none(), "a batch that requires absence");
                    Ok(())
                });
            }
            9 | 10 => {
                let budget = 1 + u32::from(input.u8());
                self.call(number, &[], |store| store.sweep(budget).map(drop));
            }
            _ => self.clocks.pass(ttl_ms),
        }
    }

    fn put(&mut self, input: &mut Input<'_>, number: usize, durability: Durability) {
        let (id, value) = (Self::id(input), self.value(input));
        let last = self.versions.get(&id).copied().unwrap_or(0);
        let mut version = None;
        self.tracker.borrow_mut().durable_id = Some(id);
        self.call(number, &[(id, Some(value.clone()))], |store| {
            version = Some(store.put_with(id, &value, durability)?.get());
            Ok(())
        });
        assert!(version.is_none_or(|v| v > last), "version {version:?} of id {id} after {last}");
        if durability == Durability::Disk && version.is_some() && self.handles[number].is_some() {
            self.past.remove(&id);
        }
    }

    fn delete(&mut self, input: &mut Input<'_>, number: usize) {
        let id = Self::id(input);
        let is_there = self.model.contains_key(&id);
        self.call(number, &[(id, None)], |store| {
            let deleted = store.delete(id)?;
            assert_eq!(deleted, is_there, "delete {id}");
            Ok(())
        });
    }

    fn update(&mut self, input: &mut Input<'_>, number: usize) {
        let (id, value) = (Self::id(input), self.value(input));
        let was = self.model.get(&id).cloned();
        let becomes = if input.u8().is_multiple_of(8) { None } else { Some(value) };
        let expected = becomes.clone().or_else(|| was.clone());
        self.call(number, &[(id, expected)], |store| {
            let version = store.update(id, |old| {
                assert_eq!(old, was.as_deref(), "update {id}");
                becomes.clone()
            })?;
            assert_eq!(version.is_some(), becomes.is_some());
            Ok(())
        });
    }

    fn compare_and_swap(&mut self, input: &mut Input<'_>, number: usize) {
        let (id, value) = (Self::id(input), self.value(input));
        let is = self.handle(number).version(id).expect("a version");
        let expected = match input.u8() % 4 {
            0 => None,
            1 => Some(Version::from_u64(input.u8().into())),
            _ => is,
        };
        let becomes = if expected == is { Some(value.clone()) } else { self.model.get(&id).cloned() };
        self.call(number, &[(id, becomes)], |store| {
            match store.compare_and_swap(id, expected, &value)? {
                Swap::Done(version) => assert!(expected == is && is.is_none_or(|is| is < version)),
                Swap::Conflict { current } => assert!(expected != is && current == is),
            }
            Ok(())
        });
    }

    fn write_many(&mut self, input: &mut Input<'_>, number: usize) {
        let mut writes = BTreeMap::new();
        for _ in 0..1 + input.below(12) {
            writes.insert(Self::id(input), self.value(input));
        }
        let states: Vec<(u64, State)> = writes.iter().map(|(&id, v)| (id, Some(v.clone()))).collect();
        self.call(number, &states, |store| {
            let written = store.write_many(writes.iter().map(|(&id, v)| (id, &v[..])))?;
            assert_eq!(written, writes.len());
            Ok(())
        });
    }

    /// All of it, or none: also when the handle dies, and when there is no room.
    fn batch(&mut self, input: &mut Input<'_>, number: usize) {
        let mut changes = BTreeMap::new();
        for _ in 0..1 + input.below(6) {
            let value = self.value(input);
            changes.insert(Self::id(input), (!input.u8().is_multiple_of(4)).then_some(value));
        }
        let becomes: Vec<(u64, State)> = changes.clone().into_iter().collect();
        let was: Vec<(u64, State)> = changes.keys().map(|id| (*id, self.model.get(id).cloned())).collect();
        let mut is_full = false;
        self.call(number, &becomes, |store| {
            let mut batch = store.batch();
            for (id, value) in &changes {
                match value {
                    Some(value) => batch.put(*id, &value[..])?,
                    None => batch.delete(*id),
                }
            }
            let committed = batch.commit();
            is_full = matches!(committed, Err(Error::Full { .. }));
            assert!(matches!(committed?, Commit::Done(_)), "a conflict, and there was no condition");
            Ok(())
        });
        let is: Vec<(u64, State)> = changes.keys().map(|id| (*id, self.model.get(id).cloned())).collect();
        assert!(is == was || is == becomes && !is_full, "of a batch: {is:?}, not {was:?} nor {becomes:?}");
    }

    /// What is borrowed stays as it is, whatever the other handle does.
    fn pin(&mut self, input: &mut Input<'_>, number: usize, with_snapshot: bool) {
        self.tracker.borrow_mut().dies_in = None;
        self.handle(number);
        let store = self.handles[number].take().expect("a handle");
        let snapshot = with_snapshot.then(|| (store.snapshot().expect("a snapshot"), self.model.clone()));
        let mut feed = store.changes().expect("a feed");
        let mut mirror = BTreeMap::new();
        follow(&mut feed, &mut mirror);
        assert!(mirror.keys().eq(self.model.keys()), "a mirror that has caught up");
        let pin = store.pin().expect("a pin");
        let mut borrowed = Vec::new();
        for _ in 0..1 + input.below(6) {
            let id = Self::id(input);
            let bytes = pin.get(id).expect("a record");
            assert_eq!(bytes, self.model.get(&id).map(|v| &v[..]), "pin: id {id}");
            borrowed.push((id, bytes, bytes.map(<[u8]>::to_vec)));
            for _ in 0..input.below(4) {
                match input.u8() % 4 {
                    0 => self.delete(input, 1 - number),
                    1 => self.sync(1 - number),
                    _ => self.put(input, 1 - number, Durability::Process),
                }
            }
        }
        for (id, bytes, copy) in &borrowed {
            assert!(*bytes == copy.as_deref(), "id {id}: changed while it was borrowed");
        }
        drop(pin);
        follow(&mut feed, &mut mirror);
        let now = |id: &u64| store.version(*id).expect("a version");
        assert!(mirror.keys().eq(self.model.keys()) && mirror.iter().all(|(id, v)| now(id) == Some(*v)));
        drop(feed);
        if let Some((snapshot, was)) = snapshot {
            for id in 0..IDS as u64 {
                let bytes = snapshot.get(id).expect("a record");
                assert_eq!(bytes, was.get(&id).map(|v| &v[..]), "snapshot: id {id}");
            }
            let records =
                snapshot.iter().map(|r| r.expect("a record")).map(|(id, _, data)| (id, data.to_vec()));
            assert_eq!(records.collect::<BTreeMap<u64, Vec<u8>>>(), was);
        }
        self.handles[number] = Some(store);
    }

    /// A record that is filled in place, and committed or not.
    fn reserve(&mut self, input: &mut Input<'_>, number: usize) {
        let (id, value) = (Self::id(input), self.value(input));
        let is_committed = !input.u8().is_multiple_of(4);
        let becomes = if is_committed { Some(value.clone()) } else { self.model.get(&id).cloned() };
        self.call(number, &[(id, becomes)], |store| {
            let mut reservation = store.reserve(id, value.len())?;
            reservation.write_at(0, &value)?;
            if is_committed { reservation.commit().map(drop) } else { Ok(()) }
        });
    }

    /// Many small records, so that the index moves; or away with them.
    fn crowd(&mut self, input: &mut Input<'_>, number: usize) {
        let (from, count) = (1000 + input.below(4) as u64 * 200, 1 + input.below(256) as u64);
        let is_delete = input.u8() % 2 == 1;
        for id in from..from + count {
            let bytes = id.to_le_bytes()[..self.layout.record_size.min(8)].to_vec();
            if is_delete && self.model.contains_key(&id) {
                self.call(number, &[(id, None)], |store| store.delete(id).map(drop));
            } else if !is_delete {
                let before = self.model.len();
                self.call(number, &[(id, Some(bytes.clone()))], |store| store.put(id, &bytes).map(drop));
                if self.model.len() == before && self.model.get(&id) != Some(&bytes) {
                    break; // Full.
                }
            }
        }
    }

    fn sync(&mut self, number: usize) {
        let mut synced = false;
        self.call(number, &[], |store| {
            store.sync()?;
            synced = true;
            Ok(())
        });
        if synced && self.handles[number].is_some() {
            self.past.clear();
        }
    }

    fn detach(&mut self, number: usize, close: bool) {
        let Some(store) = self.handles[number].take() else { return };
        if close {
            store.close().unwrap_or_else(|e| panic!("close: {e}"));
        } else {
            drop(store);
        }
        self.tracker.borrow_mut().look();
        if self.died() {
            self.bury();
        } else if close {
            self.past.clear();
        }
    }

    fn look_at_all(&mut self, number: usize) {
        self.tracker.borrow_mut().dies_in = None;
        self.handle(number);
        let read_only = self.options.open_read_only(self.disk.path());
        let read_only = read_only.unwrap_or_else(|e| panic!("does not open for reading: {e}"));
        let store = self.handles[number].as_ref().expect("a handle");
        // First by one that can't repair what a death has left.
        for store in [&read_only, store] {
            self.compare(store);
            assert!(self.is_count(store.len().expect("a length")));
            let stats = store.stats().expect("numbers");
            assert!(stats.slots >= stats.records + stats.free_slots + stats.retired_slots);
        }
        let stats = read_only.stats().expect("numbers");
        assert!(self.is_count(stats.records));
    }

    /// Whether the store may have so many records. Those of keys that are over, and of deadlines, are not counted one by one.
    fn is_count(&self, records: u64) -> bool {
        let plain = self.model.len() as u64;
        if self.has_keyed { records >= plain } else { records == plain }
    }

    fn compare(&self, store: &Store) {
        let damage = store.verify().expect("a check").damage;
        assert!(damage.is_empty(), "{damage:?}");
        let records = store.iter().map(|r| r.expect("a record")).map(|r| (r.id(), r.into_data()));
        assert_eq!(records.collect::<BTreeMap<u64, Vec<u8>>>(), self.model);
        let ids: Vec<u64> = (0..IDS as u64).collect();
        let mut seen = 0;
        let each = |id, found: Option<(Version, &[u8])>| {
            assert_eq!(found.map(|f| f.1), self.model.get(&id).map(|v| &v[..]));
            seen += 1;
        };
        store.get_many(&ids, each).expect("records");
        assert_eq!(seen, ids.len());
        for id in KEYS..KEYS + KEYS_MAX as u64 {
            assert_eq!(key_in(store, id), self.known(id), "key {}", id - KEYS);
        }
    }

    fn repair(&mut self, number: usize) {
        self.tracker.borrow_mut().dies_in = None;
        let report = self.handle(number).repair().expect("a repair");
        assert!(report.dropped.is_empty() && report.fixed.is_empty(), "of a good store: {report:?}");
    }

    /// A copy is what the store is, to the record.
    fn backup(&mut self, number: usize) {
        self.tracker.borrow_mut().dies_in = None;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("copy");
        self.handle(number);
        set_hook(None); // The copy's steps are not the store's.
        let copied = self.handle(number).backup(&path).map(|_| self.options.open_read_only(&path));
        let theirs = Rc::clone(&self.tracker);
        set_hook(Some(Box::new(move |name| theirs.borrow_mut().step(name))));
        self.tracker.borrow_mut().look_after_backup();
        match copied {
            Ok(copy) => {
                let copy = copy.expect("a copy that opens");
                let records: BTreeMap<u64, Vec<u8>> =
                    copy.iter().map(|r| r.expect("a record")).map(|r| (r.id(), r.into_data())).collect();
                assert_eq!(records, self.model);
            }
            // The copy has the same ceiling, and its tables may lie otherwise.
            Err(Error::Full { .. }) => {}
            Err(error) => panic!("backup: {error}"),
        }
    }

    fn lose_power(&mut self, input: &mut Input<'_>) {
        let armed = self.tracker.borrow_mut().dies_in.take();
        self.tracker.borrow_mut().look();
        let image = self.tracker.borrow_mut().image(input);
        self.handles = [None, None];
        self.disk.write(&image);
        // The machine comes up with another boot id.
        self.disk.patch(CONTROL + 64, &self.counter.to_le_bytes());
        *self.tracker.borrow_mut() = Tracker::new(self.disk.again(), self.layout);
        self.tracker.borrow_mut().dies_in = armed;
        self.clocks.boot();
        self.handle(0);
        let past = std::mem::take(&mut self.past);
        let ids: BTreeSet<u64> =
            self.model.keys().chain(self.keys.keys()).chain(past.keys()).copied().collect();
        for id in ids {
            let is = self.get(0, id);
            let may_be = match past.get(&id) {
                Some(states) if is_key(id) => may_be_left(states, &is, self.clocks.wall_ms),
                Some(states) => states.contains(&is),
                None => self.known(id) == is,
            };
            assert!(
                may_be,
                "id {id} after a loss of power: {is:?}, not {:?}, nor {:?}",
                self.known(id),
                past.get(&id)
            );
            self.note(id, is);
        }
        self.look_at_all(0);
    }

    fn finish(mut self) {
        self.look_at_all(0);
        set_hook(None);
    }
}

/// The state of a key in a store.
fn key_in(store: &Store, id: u64) -> State {
    let space = space(store);
    let value = space.get(name(id)).unwrap_or_else(|e| panic!("key {}: {e}", id - KEYS))?.into_data();
    let end = space.expires_at(name(id)).expect("a deadline");
    let end_ms =
        |end: std::time::SystemTime| end.duration_since(UNIX_EPOCH).expect("a time").as_millis() as u64;
    keyed(&value, end.map_or(NEVER, end_ms))
}

/// Whether a key with these states may be so after a loss of power.
fn may_be_left(states: &[State], is: &State, now_ms: u64) -> bool {
    match is {
        None => states.iter().any(|state| state.as_ref().is_none_or(|state| end_of(state) <= now_ms)),
        Some(is) => {
            let had = |part: fn(&[u8]) -> &[u8]| states.iter().flatten().any(|state| part(state) == part(is));
            had(|state| &state[..8]) && had(|state| &state[8..])
        }
    }
}

/// Takes in all changes that there are.
fn follow(feed: &mut Changes<'_>, mirror: &mut BTreeMap<u64, Version>) {
    while let Some(change) = feed.next_timeout(Duration::ZERO).expect("a change") {
        match change {
            Change::Written { id, version } => {
                let before = mirror.insert(id, version);
                assert!(before < Some(version), "id {id} went from {before:?} to {version:?}");
            }
            Change::Deleted { id } => assert!(mirror.remove(&id).is_some(), "id {id} was not told of"),
            _ => {}
        }
    }
}
