//! Torture: 4 writer and 2 reader processes work on one store of 2 regions, and are killed with
//! SIGKILL all the time and replaced. What was acknowledged is never lost, nothing is ever torn,
//! and nobody waits for the dead.
//!
//! `RECSTORE_TORTURE_SECONDS` (3) is how long, `RECSTORE_SEED` what is drawn. Fails when: a value is
//! torn or another id's; a read gives a version older than one acknowledged before the read began, or
//! other bytes under an acknowledged version; an acknowledged increment is lost, or one appears that
//! nobody began; a record that one writer owns is anything but its last acknowledged state or the
//! one that was under way at its death; a call takes ten seconds; `verify` finds anything.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::common::superblock::create_seeded;
use crate::common::value::{parse, value};
use crate::common::{self, Me, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::{Error, Store, Swap};

const WRITERS: usize = 4;
const READERS: usize = 2;
/// Anybody puts these; never deleted.
const SHARED: Range<u64> = 0..200;
/// Anybody increments these.
const COUNTERS: Range<u64> = 1000..1004;
/// The writer on place `id % WRITERS` puts and deletes these, and nobody else.
const OWNED: Range<u64> = 2000..2040;

const RECORD_SIZE: usize = 200;
/// Reads between two messages of a reader.
const LOOKS: u64 = 200;
const KILL_EVERY: Duration = Duration::from_millis(100);
const BLOCKED_MAX: Duration = Duration::from_secs(10);

/// What a writer does in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Nothing,
    Put,
    Increment,
    IncrementBySwap,
    OwnedPut,
    OwnedDelete,
    OwnedMany,
    Sync,
}

const DEEDS: [Deed; 8] = [
    Deed::Nothing,
    Deed::Put,
    Deed::Increment,
    Deed::IncrementBySwap,
    Deed::OwnedPut,
    Deed::OwnedDelete,
    Deed::OwnedMany,
    Deed::Sync,
];

/// What a worker tells: what it has done, and what it will do next.
#[derive(Clone, Copy, Debug)]
struct Message {
    done: Deed,
    id: u64,
    counter: u64,
    version: u64,
    next: Deed,
    next_id: u64,
    next_counter: u64,
    took: u64,
}

const MESSAGE_BYTES: usize = 64;

impl Message {
    fn empty(counter: u64, took: u64) -> Self {
        let (done, next) = (Deed::Nothing, Deed::Nothing);
        Self { done, id: 0, counter, version: 0, next, next_id: 0, next_counter: 0, took }
    }

    fn bytes(self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let words = [
            self.done as u64,
            self.id,
            self.counter,
            self.version,
            self.next as u64,
            self.next_id,
            self.next_counter,
            self.took,
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap());
        Self {
            done: DEEDS[word(0) as usize],
            id: word(1),
            counter: word(2),
            version: word(3),
            next: DEEDS[word(4) as usize],
            next_id: word(5),
            next_counter: word(6),
            took: word(7),
        }
    }
}

/// The ids that `OwnedMany` of `id` writes.
fn many(id: u64) -> impl Iterator<Item = u64> {
    (id..OWNED.end).step_by(WRITERS).take(3)
}

fn count_of(bytes: Option<&[u8]>, id: u64) -> u64 {
    bytes.map_or(0, |b| parse(id, b).unwrap_or_else(|e| panic!("{e}")).1)
}

fn length(counter: u64) -> usize {
    32 + (counter as usize * 7) % (RECORD_SIZE - 31)
}

fn writer(me: &mut Me) {
    let serial: u64 = me.var("SERIAL").parse().unwrap();
    let place: u64 = me.var("PLACE").parse().unwrap();
    let mut rng = StdRng::seed_from_u64(me.var("SEED").parse::<u64>().unwrap() ^ (serial << 32));
    let begun = Instant::now();
    let store = Store::open(me.var("STORE")).unwrap();
    let mut last = Message::empty(0, begun.elapsed().as_nanos() as u64);
    for counter in 1.. {
        let owned = OWNED.start + place + rng.random_range(0..(OWNED.end - OWNED.start) / 4) * 4;
        let (deed, id) = match rng.random_range(0..1000) {
            0..400 => (Deed::Put, rng.random_range(SHARED)),
            400..550 => (Deed::Increment, rng.random_range(COUNTERS)),
            550..650 => (Deed::IncrementBySwap, rng.random_range(COUNTERS)),
            650..820 => (Deed::OwnedPut, owned),
            820..920 => (Deed::OwnedDelete, owned),
            920..998 => (Deed::OwnedMany, owned),
            _ => (Deed::Sync, 0),
        };
        me.send(&Message { next: deed, next_id: id, next_counter: counter, ..last }.bytes());
        let begun = Instant::now();
        let data = value(id, serial, counter, length(counter));
        let mut version = 0;
        match deed {
            Deed::Nothing => {}
            Deed::Put => version = store.put(id, &data).unwrap().get(),
            Deed::Increment => {
                let add = |old: Option<&[u8]>| Some(value(id, serial, count_of(old, id) + 1, 64));
                version = store.update(id, add).unwrap().expect("written").get();
            }
            Deed::IncrementBySwap => loop {
                let old = store.get(id).unwrap();
                let now = value(id, serial, count_of(old.as_deref(), id) + 1, 64);
                if let Swap::Done(v) = store.compare_and_swap(id, old.map(|r| r.version()), &now).unwrap() {
                    version = v.get();
                    break;
                }
            },
            Deed::OwnedPut => version = store.put(id, &data).unwrap().get(),
            Deed::OwnedDelete => _ = store.delete(id).unwrap(),
            Deed::OwnedMany => {
                let all: Vec<_> =
                    many(id).map(|id| (id, value(id, serial, counter, length(counter)))).collect();
                store.write_many(all.iter().map(|(id, data)| (*id, &data[..]))).unwrap();
            }
            Deed::Sync => store.sync().unwrap(),
        }
        let took = if deed == Deed::Sync { 0 } else { begun.elapsed().as_nanos() as u64 };
        last = Message { done: deed, id, counter, version, took, ..last };
    }
}

fn reader(me: &mut Me) {
    let serial: u64 = me.var("SERIAL").parse().unwrap();
    let mut rng = StdRng::seed_from_u64(me.var("SEED").parse::<u64>().unwrap() ^ (serial << 32));
    // Some can't repair: they read around what is broken, or say so.
    let read_only = serial.is_multiple_of(3);
    let open = || {
        if !read_only {
            return Store::open(me.var("STORE")).unwrap();
        }
        loop {
            match Store::open_read_only(me.var("STORE")) {
                Err(Error::NeedsRepair { .. }) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    };
    let store = open();
    let mut seen: HashMap<u64, u64> = HashMap::new();
    let mut look = |how: &str, id: u64, version: u64, data: &[u8]| {
        parse(id, data).unwrap_or_else(|e| panic!("{how}: version {version}: {e}"));
        let newest = seen.entry(id).or_default();
        assert!(
            version >= *newest,
            "{how}: id {id}: version {version} after {newest}, read-only: {read_only}"
        );
        *newest = version;
    };
    loop {
        let mut took = 0;
        for _ in 0..LOOKS {
            let id = match rng.random_range(0..3) {
                0 => rng.random_range(COUNTERS),
                1 => rng.random_range(OWNED),
                _ => rng.random_range(SHARED),
            };
            let begun = Instant::now();
            match store.get(id) {
                Ok(Some(record)) => look("get", id, record.version().get(), &record),
                Ok(None) => {}
                Err(Error::NeedsRepair { .. }) if read_only => {}
                Err(e) => panic!("{e}"),
            }
            took = took.max(begun.elapsed().as_nanos() as u64);
        }
        let mut met = HashMap::new();
        for record in store.iter() {
            match record {
                Ok(record) => {
                    let id = record.id();
                    look("iter", id, record.version().get(), &record);
                    let twice = met.insert(id, record.version().get());
                    assert_eq!(twice, None, "iter gave id {id} twice, now {}", record.version());
                }
                Err(Error::NeedsRepair { .. }) if read_only => {}
                Err(e) => panic!("{e}"),
            }
        }
        me.send(&Message::empty(LOOKS, took).bytes());
    }
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "writer" => writer(&mut me),
        "reader" => reader(&mut me),
        other => panic!("no role {other}"),
    }
}

/// What arrives from a worker: messages, or its end.
struct News {
    place: usize,
    messages: Vec<Message>,
    ended: bool,
}

fn listen(place: usize, worker: &Worker, to: SyncSender<News>) {
    let mut stream = std::io::BufReader::with_capacity(64 * MESSAGE_BYTES, worker.stream());
    std::thread::spawn(move || {
        loop {
            let mut messages = Vec::new();
            let mut bytes = [0; MESSAGE_BYTES];
            let ended = loop {
                match stream.read_exact(&mut bytes) {
                    Ok(()) => messages.push(Message::parse(&bytes)),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        panic!("{place}: silent for a minute")
                    }
                    Err(_) => break true,
                }
                if stream.buffer().len() < MESSAGE_BYTES {
                    break false;
                }
            };
            if to.send(News { place, messages, ended }).is_err() || ended {
                return;
            }
        }
    });
}

/// Who wrote an owned record, and its counter there; `None`: absent.
type State = Option<(u64, u64)>;

/// What the checker knows.
#[derive(Default)]
struct Known {
    /// The newest acknowledged version of a shared record, its writer and counter.
    shared: HashMap<u64, (u64, u64, u64)>,
    /// Acknowledged increments, and those that were under way at a death.
    increments: HashMap<u64, (u64, u64)>,
    owned: HashMap<u64, State>,
    acknowledged: u64,
    reads: u64,
    longest: u64,
}

impl Known {
    /// A worker's message: its deed is acknowledged.
    fn take(&mut self, serial: u64, m: &Message) {
        self.longest = self.longest.max(m.took);
        self.acknowledged += u64::from(m.done != Deed::Nothing);
        match m.done {
            Deed::Nothing => self.reads += m.counter,
            Deed::Put => {
                let newest = self.shared.entry(m.id).or_default();
                assert_ne!(newest.0, m.version, "id {}: one version for two writes", m.id);
                if newest.0 < m.version {
                    *newest = (m.version, serial, m.counter);
                }
            }
            Deed::Increment | Deed::IncrementBySwap => self.increments.entry(m.id).or_default().0 += 1,
            Deed::OwnedPut => _ = self.owned.insert(m.id, Some((serial, m.counter))),
            Deed::OwnedDelete => _ = self.owned.insert(m.id, None),
            Deed::OwnedMany => many(m.id).for_each(|id| _ = self.owned.insert(id, Some((serial, m.counter)))),
            Deed::Sync => {}
        }
    }

    /// A writer is dead, and `last` is the last that it said: what it owned is as it said, or one
    /// deed further.
    fn bury(&mut self, store: &Store, place: usize, serial: u64, last: Option<Message>) {
        let next = last.map_or((Deed::Nothing, 0, 0), |m| (m.next, m.next_id, m.next_counter));
        if matches!(next.0, Deed::Increment | Deed::IncrementBySwap) {
            self.increments.entry(next.1).or_default().1 += 1;
        }
        for id in OWNED.filter(|id| *id as usize % WRITERS == place) {
            let is = store.get(id).unwrap().map(|r| parse(id, &r).unwrap_or_else(|e| panic!("{e}")));
            let was = self.owned.get(&id).copied().unwrap_or(None);
            let after = match next.0 {
                Deed::OwnedPut if next.1 == id => Some((serial, next.2)),
                Deed::OwnedDelete if next.1 == id => None,
                Deed::OwnedMany if many(next.1).any(|other| other == id) => Some((serial, next.2)),
                _ => was,
            };
            assert!(
                is == was || is == after,
                "owned id {id}: {is:?}; acknowledged {was:?}, and {next:?} of writer {serial} was under way"
            );
            self.owned.insert(id, is);
        }
    }

    /// A shared record is not older than the newest that was acknowledged.
    fn check(&mut self, store: &Store, id: u64) {
        let Some(&(version, writer, counter)) = self.shared.get(&id) else { return };
        let begun = Instant::now();
        let record = store.get(id).unwrap().unwrap_or_else(|| panic!("id {id}: version {version} is lost"));
        self.longest = self.longest.max(begun.elapsed().as_nanos() as u64);
        let by = parse(id, &record).unwrap_or_else(|e| panic!("{e}"));
        let read = record.version().get();
        assert!(read >= version, "id {id}: version {read} read, {version} acknowledged before");
        assert!(read > version || by == (writer, counter), "id {id}: {by:?} is not what was acknowledged");
    }

    fn check_counters(&self, store: &Store) {
        for id in COUNTERS {
            let (acknowledged, maybe) = self.increments.get(&id).copied().unwrap_or_default();
            let count = count_of(store.get(id).unwrap().as_deref(), id);
            assert!(
                (acknowledged..=acknowledged + maybe).contains(&count),
                "counter {id}: {count}; {acknowledged} acknowledged, {maybe} under way at a death"
            );
        }
    }
}

/// One of the places that processes live and die on.
struct Place {
    worker: Worker,
    serial: u64,
    last: Option<Message>,
    killed: bool,
}

fn fill(path: &Path, seed: u64, place: usize, serial: u64, to: &SyncSender<News>) -> Place {
    let role = if place < WRITERS { "writer" } else { "reader" };
    let with = [
        ("STORE", path.to_str().unwrap()),
        ("SEED", &seed.to_string()),
        ("SERIAL", &serial.to_string()),
        ("PLACE", &place.to_string()),
    ];
    let worker = Worker::spawn(role, &with);
    listen(place, &worker, to.clone());
    Place { worker, serial, last: None, killed: false }
}

#[test]
fn writers_that_are_killed_all_the_time_lose_nothing_acknowledged_and_hold_up_nobody() {
    let lasting = Duration::from_secs(common::number_from_env("RECSTORE_TORTURE_SECONDS").unwrap_or(3));
    let seed = common::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = common::scratch();
    let path = dir.path().join("torture.rec");
    let options = Store::options().record_size(RECORD_SIZE).regions(2).slots_per_extent(32);
    let store = create_seeded(&options, &path, seed);

    let (to, news) = sync_channel(256);
    let mut serial = 0;
    let mut places: Vec<Place> = (0..WRITERS + READERS)
        .map(|place| {
            serial += 1;
            fill(&path, seed, place, serial, &to)
        })
        .collect();
    let mut known = Known::default();
    let begun = Instant::now();
    let mut next_kill = begun + KILL_EVERY;
    let (mut kills, mut ended, mut over) = (0u64, 0, false);

    while ended < places.len() {
        let now = Instant::now();
        if now >= next_kill && !over {
            next_kill += KILL_EVERY;
            over = now - begun >= lasting;
            kills += 1;
            let writer = rng.random_range(0..WRITERS);
            let reader = if rng.random_ratio(1, 5) { WRITERS + rng.random_range(0..READERS) } else { writer };
            for (place, p) in places.iter_mut().enumerate() {
                if over || place == writer || place == reader {
                    p.killed = true;
                    let _ = p.worker.kill();
                }
            }
            continue;
        }
        let until = if over { common::PATIENCE } else { next_kill.saturating_duration_since(now) };
        let news = match news.recv_timeout(until) {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) if !over => continue,
            Err(RecvTimeoutError::Timeout) => panic!("a killed worker's socket doesn't end"),
            Err(RecvTimeoutError::Disconnected) => unreachable!("`to` is alive"),
        };
        let p = &mut places[news.place];
        for message in &news.messages {
            known.take(p.serial, message);
        }
        p.last = news.messages.last().copied().or(p.last);
        known.check(&store, rng.random_range(SHARED));
        if news.ended {
            let status = p.worker.wait();
            assert!(p.killed && status.signal() == Some(9), "worker on place {}: {status}", news.place);
            if news.place < WRITERS {
                known.bury(&store, news.place, p.serial, p.last);
            }
            if over {
                ended += 1;
            } else {
                serial += 1;
                places[news.place] = fill(&path, seed, news.place, serial, &to);
            }
        }
    }
    SHARED.for_each(|id| known.check(&store, id));
    known.check_counters(&store);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    drop(store);
    let store = Store::open(&path).unwrap();
    SHARED.for_each(|id| known.check(&store, id));
    known.check_counters(&store);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");

    let longest = Duration::from_nanos(known.longest);
    println!(
        "{kills} kills, {} writes acknowledged, {} reads, longest call {longest:?}, seed {seed}",
        known.acknowledged, known.reads
    );
    assert!(longest < BLOCKED_MAX, "somebody was blocked for {longest:?}");
    assert!(known.acknowledged > 0 && known.reads > 0, "nothing was tried");
}
