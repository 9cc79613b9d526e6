//! The search for an image that breaks a promise.

use std::fmt;
use std::ops::ControlFlow;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::testing::FLUSHED;

use crate::check::{Bench, reboot};
use crate::common::superblock::create_seeded;
use crate::disk::{Disk, Image, Pick};
use crate::generate::{self, Setting};
use crate::image;
use crate::layout::{FLUSH_FAILED, Layout};
use crate::oracle::{Mark, Oracle};
use crate::recorder::{Entry, FLUSH_IS_OVER};
use crate::workload::{Life, Op, Values, live};

/// A promise that was broken, and how to see it again.
pub(crate) struct Counterexample {
    /// What to replay it with, if it was found by chance.
    seed: Option<u64>,
    setting: Setting,
    ops: Vec<Op>,
    /// What happened, from the first life to the last.
    story: Vec<String>,
    what: String,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a promise is broken: {}", self.what)?;
        match self.seed {
            Some(seed) => {
                writeln!(f, "  found, and found again, with RECSTORE_SEED={seed}; {:?}", self.setting)?
            }
            None => writeln!(f, "  {:?}", self.setting)?,
        }
        for (n, op) in self.ops.iter().enumerate() {
            writeln!(f, "  {n:3}  {op:?}")?;
        }
        self.story.iter().try_for_each(|s| writeln!(f, "  {s}"))
    }
}

/// Disk and oracle at one moment of a life.
#[derive(Clone)]
struct Scene {
    disk: Disk,
    oracle: Oracle,
    /// What the flush under way has to put on disk.
    flush: Option<Mark>,
    /// What the flush that just ended has put there.
    flushed: Option<Mark>,
    syncs: Vec<Mark>,
    operation: Option<usize>,
    step: &'static str,
    /// The next flush is a sync's second one, for the note that batches are settled. It promises nothing more.
    is_settling: bool,
}

impl Scene {
    fn new(disk: Disk, oracle: Oracle) -> Self {
        Self {
            disk,
            oracle,
            flush: None,
            flushed: None,
            syncs: Vec::new(),
            operation: None,
            step: "the start",
            is_settling: false,
        }
    }

    /// What happened next. Gives the sectors that are in a state which they had not been in.
    fn advance(&mut self, entry: &Entry) -> Result<Vec<usize>, String> {
        match entry {
            Entry::Step { name, len, changes } => {
                self.step = name;
                let fresh = self.disk.change(*len, changes);
                match *name {
                    FLUSH_IS_OVER => {}
                    "sync: batches settled" => self.is_settling = true,
                    // The sync that asked for it has seen it succeed.
                    FLUSHED => self.flushed.take().iter().for_each(|mark| self.oracle.raise(mark)),
                    // It was another's, who promised nothing to anybody.
                    _ => self.flushed = None,
                }
                return Ok(fresh);
            }
            Entry::FlushBegins => {
                self.disk.flush_begins();
                let is_second = std::mem::take(&mut self.is_settling);
                self.flush = if is_second { None } else { Some(self.oracle.mark_of_flush()) };
            }
            Entry::FlushEnds => {
                self.disk.flush_ends();
                self.flushed = self.flush.take();
            }
            Entry::FlushFails => {
                self.disk.flush_fails();
                self.flush = None;
            }
            Entry::SomeFlushed(sectors) => self.disk.flush_some(sectors.clone()),
            Entry::Durable(id) => self.oracle.raise_one(*id),
            Entry::Operation(n) => self.operation = Some(*n),
            Entry::Begin(id, state) => self.oracle.begin(*id, state.clone()),
            Entry::Batch(ids) => self.oracle.batch(ids),
            Entry::Acknowledge(id, version) => self.oracle.acknowledge(*id, *version),
            Entry::SyncBegins => self.syncs.push(self.oracle.mark()),
            Entry::SyncReturned => {
                if let Some(mark) = self.syncs.pop() {
                    self.oracle.raise(&mark);
                }
            }
            Entry::MemoryDoubted => self.oracle.machine_dies(),
            Entry::Look(found) => self.oracle.look(found.clone())?,
            Entry::Refused(found) => self.oracle.refused(found.clone())?,
        }
        Ok(Vec::new())
    }

    fn place(&self) -> String {
        match self.operation {
            Some(n) => format!("operation {n}, at the step {:?}", self.step),
            None => format!("opening, at the step {:?}", self.step),
        }
    }
}

/// The bytes of a new store.
fn new_store(bench: &Bench, layout: &Layout, seed: u64) -> Vec<u8> {
    let _ = std::fs::remove_file(&bench.store);
    drop(create_seeded(&layout.options(), &bench.store, seed));
    std::fs::read(&bench.store).expect("the store's bytes")
}

/// Runs a workload on a file with these bytes.
fn run(
    bench: &mut Bench,
    layout: &Layout,
    bytes: &[u8],
    oracle: &Oracle,
    ops: &[Op],
    values: &Values,
) -> Life {
    // Into the same file, for what a process leaves in memory is that file's alone.
    std::fs::write(&bench.store, bytes).expect("the store's bytes");
    bench.tally.lives += 1;
    live(&bench.store, layout, oracle.ids().count() as u64, ops, values)
}

fn is_step(entry: &Entry) -> bool {
    matches!(entry, Entry::Step { .. })
}

/// How much is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) crash_points: usize,
    pub(crate) images: usize,
    /// Whether a smaller workload is looked for that breaks a promise too.
    pub(crate) shrink: bool,
}

/// A random chain of lives: a workload, a crash (or a death of the process alone), the recovery
/// and another workload, a crash in one of these, and so on. Images are made and checked at crash
/// points drawn from every life.
pub(crate) fn chain(bench: &mut Bench, seed: u64, effort: Effort) -> Result<(), Box<Counterexample>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let setting = generate::setting(&mut rng);
    let count = rng.random_range(4..=40);
    let ops = generate::ops(&mut rng, &setting, count);
    one_chain(bench, &mut rng, &setting, ops.clone(), effort).map_err(|found| {
        let smaller = if effort.shrink { shrink(bench, &setting, ops, effort) } else { None };
        Box::new(Counterexample { seed: Some(seed), ..*smaller.unwrap_or(found) })
    })
}

fn one_chain(
    bench: &mut Bench,
    rng: &mut StdRng,
    setting: &Setting,
    mut ops: Vec<Op>,
    effort: Effort,
) -> Result<(), Box<Counterexample>> {
    let (layout, mut story) = (&setting.layout, Vec::new());
    let mut bytes = new_store(bench, layout, rng.random());
    let mut scene = Scene::new(Disk::new(bytes.clone()), Oracle::new(setting.ids));
    let values = Values::default();
    let first_ops = ops.clone();
    let broken = |story: &[String], what: String| {
        let (ops, story) = (first_ops.clone(), story.to_vec());
        Err(Box::new(Counterexample { seed: None, setting: *setting, ops, story, what }))
    };
    for life in 0..4 {
        if life > 0 {
            let count = rng.random_range(0..12);
            ops = generate::ops(rng, setting, count);
            story.push(format!("life {life}: {ops:?}"));
        }
        let recorded = run(bench, layout, &bytes, &scene.oracle, &ops, &values);
        let steps = recorded.entries.iter().filter(|e| is_step(e)).count();
        // Crash points, and the one (the last of them as drawn) that the next life comes from.
        let mut points: Vec<usize> = (0..effort.crash_points).map(|_| rng.random_range(0..steps)).collect();
        let next = points[0];
        points.sort_unstable();
        let (mut step, mut left) = (0, None);
        for entry in &recorded.entries {
            if let Err(what) = scene.advance(entry) {
                story.push(format!("life {life}: {}", scene.place()));
                return broken(&story, what);
            }
            if !is_step(entry) {
                continue;
            }
            for _ in points.iter().filter(|&&p| p == step) {
                bench.tally.crash_points += 1;
                for _ in 0..effort.images {
                    let image = image::random(rng, &scene.disk, layout);
                    if life > 0 && scene.operation.is_none() {
                        bench.tally.during_recovery += 1;
                    }
                    if let Err((what, how)) = examine(bench, &scene, &image, layout) {
                        story.push(format!("life {life}: power lost in {}; {how}", scene.place()));
                        return broken(&story, what);
                    }
                }
            }
            if step == next {
                left = Some(scene.clone());
            }
            step += 1;
        }
        if let Some(error) = recorded.error {
            return broken(&story, error);
        }
        let Some(mut dying) = left else { return Ok(()) };
        if rng.random_bool(0.3) {
            story.push(format!("life {life}: process dies in {}", dying.place()));
            dying.disk.flush_fails();
            bytes = dying.disk.now().to_vec();
            if bytes[FLUSH_FAILED..FLUSH_FAILED + 8] != [0; 8] {
                dying.oracle.machine_dies(); // Memory is not believed after that.
            }
            scene = Scene::new(dying.disk, dying.oracle);
        } else {
            let image = image::random(rng, &dying.disk, layout);
            story.push(format!(
                "life {life}: power lost in {}; {}",
                dying.place(),
                difference(&dying, &image, layout)
            ));
            bytes = dying.disk.bytes(&image);
            reboot(&mut bytes);
            dying.oracle.machine_dies();
            dying.oracle.versions_rise &= !image.is_spoiled();
            scene = Scene::new(Disk::new(bytes.clone()), dying.oracle);
        }
    }
    Ok(())
}

/// Checks an image. If it breaks a promise, as much of it as can be is made to have reached the disk.
fn examine(bench: &mut Bench, scene: &Scene, image: &Image, layout: &Layout) -> Result<(), (String, String)> {
    let try_it = |bench: &mut Bench, image: &Image| {
        let versions_rise = scene.oracle.versions_rise && !image.is_spoiled();
        bench.check(scene.disk.bytes(image), layout, &scene.oracle, versions_rise)
    };
    let Err(mut what) = try_it(bench, image) else { return Ok(()) };
    let newest: Vec<(usize, usize)> = scene.disk.changed().collect();
    let mut least = image.clone();
    for n in 0..least.picks.len() {
        let Some(&(_, state)) = newest.iter().find(|s| s.0 == least.picks[n].0) else { continue };
        for pick in [Pick::State(state), Pick::State(0)] {
            if least.picks[n].1 == pick {
                break;
            }
            let before = std::mem::replace(&mut least.picks[n].1, pick);
            match try_it(bench, &least) {
                Err(still) => {
                    what = still;
                    break;
                }
                Ok(()) => least.picks[n].1 = before,
            }
        }
    }
    Err((what, difference(scene, &least, layout)))
}

/// An image in words.
fn difference(scene: &Scene, image: &Image, layout: &Layout) -> String {
    let newest: Vec<(usize, usize)> = scene.disk.changed().collect();
    let mut words =
        vec![format!("{} sectors had changed; all but these are at their newest state:", newest.len())];
    for &(sector, pick) in &image.picks {
        let state = newest.iter().find(|s| s.0 == sector).map_or(0, |s| s.1);
        if pick != Pick::State(state) {
            words.push(format!("{}: {pick:?} of {state}", layout.describe(sector)));
        }
    }
    if image.len != scene.disk.now().len() {
        words.push(format!("length {} and not {}", image.len, scene.disk.now().len()));
    }
    words.join("\n       ")
}

/// A smaller workload that breaks a promise too, if one is found.
fn shrink(bench: &mut Bench, setting: &Setting, ops: Vec<Op>, effort: Effort) -> Option<Box<Counterexample>> {
    let breaks = |bench: &mut Bench, ops: &[Op]| {
        (0..12).find_map(|seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            one_chain(bench, &mut rng, setting, ops.to_vec(), effort).err()
        })
    };
    let mut best = breaks(bench, &ops)?;
    let mut ops = ops;
    let mut at = 0;
    while at < ops.len() {
        let mut fewer = ops.clone();
        fewer.remove(at);
        match breaks(bench, &fewer) {
            Some(found) => (best, ops) = (found, fewer),
            None => at += 1,
        }
    }
    Some(best)
}

/// All images of a workload, from the operation `from` on: at each step those that were not possible
/// before it. The recovery from every `nth` is recorded and crashed in turn.
pub(crate) fn exhaust(
    bench: &mut Bench,
    setting: &Setting,
    ops: &[Op],
    from: usize,
    bound: u64,
    nth: u64,
) -> Result<(), Box<Counterexample>> {
    let (mut rng, layout) = (StdRng::seed_from_u64(1), &setting.layout);
    let bytes = new_store(bench, layout, 1);
    let oracle = Oracle::new(setting.ids);
    let values = Values::default();
    let life = run(bench, layout, &bytes, &oracle, ops, &values);
    let mut scene = Scene::new(Disk::new(bytes), oracle);
    let mut seen = 0;
    let broken = |story: Vec<String>, what: String| {
        Err(Box::new(Counterexample { seed: None, setting: *setting, ops: ops.to_vec(), story, what }))
    };
    for entry in &life.entries {
        let fresh = match scene.advance(entry) {
            Ok(fresh) => fresh,
            Err(what) => return broken(vec![scene.place()], what),
        };
        if !is_step(entry) || scene.operation.map_or(from > 0, |n| n < from) {
            continue;
        }
        bench.tally.crash_points += 1;
        let mut again = Vec::new();
        let outcome = image::every(&mut rng, &scene.disk, layout, &fresh, bound, |image| {
            seen += 1;
            if seen % nth == 0 {
                again.push(image.clone());
            }
            match examine(bench, &scene, &image, layout) {
                Ok(()) => ControlFlow::Continue(()),
                Err(broken) => ControlFlow::Break(broken),
            }
        });
        if let ControlFlow::Break((what, how)) = outcome {
            return broken(vec![format!("power lost in {}; {how}", scene.place())], what);
        }
        for image in again {
            if let Err((what, how)) = crash_again(bench, &mut rng, layout, &scene, &image, &values) {
                let first =
                    format!("power lost in {}; {}", scene.place(), difference(&scene, &image, layout));
                return broken(vec![first, how], what);
            }
        }
    }
    match life.error {
        Some(error) => broken(vec![], error),
        None => Ok(()),
    }
}

/// Recovers from an image, and loses power at every step of that.
fn crash_again(
    bench: &mut Bench,
    rng: &mut StdRng,
    layout: &Layout,
    scene: &Scene,
    image: &Image,
    values: &Values,
) -> Result<(), (String, String)> {
    let mut bytes = scene.disk.bytes(image);
    reboot(&mut bytes);
    let mut oracle = scene.oracle.clone();
    oracle.machine_dies();
    oracle.versions_rise &= !image.is_spoiled();
    let life = run(bench, layout, &bytes, &oracle, &[], values);
    let mut second = Scene::new(Disk::new(bytes), oracle);
    for entry in &life.entries {
        let fresh =
            second.advance(entry).map_err(|what| (what, format!("recovering: {}", second.place())))?;
        if !is_step(entry) {
            continue;
        }
        bench.tally.crash_points += 1;
        let before = bench.tally.images;
        let outcome = image::every(rng, &second.disk, layout, &fresh, 16, |image| {
            match examine(bench, &second, &image, layout) {
                Ok(()) => ControlFlow::Continue(()),
                Err(broken) => ControlFlow::Break(broken),
            }
        });
        bench.tally.during_recovery += bench.tally.images - before;
        if let ControlFlow::Break((what, how)) = outcome {
            return Err((what, format!("power lost again in {}; {how}", second.place())));
        }
    }
    life.error.map_or(Ok(()), |error| Err((error, "recovering".to_owned())))
}
