//! A list of mixed values (integers, floats, text, bytes, booleans, none) in a file. Several processes
//! append to it and change its items at the same time, and it is there again in the next run.
//!
//! ```text
//! cargo program mixed_list
//! cargo program mixed_list -- --processes 2 --kill
//! cargo program mixed_list -- list.rec    # the list is kept; run it again
//! ```
//!
//! # How a list is laid over a store
//!
//! Item `n` is record `n`. An item's place is claimed by writing the item there: `compare_and_swap`, which
//! writes if there is no record yet. So a process that dies in the middle of an append leaves the item as a
//! whole, or nothing: never a place that is claimed and empty, which the others would have to wait for.
//!
//! The length is the first `n` without a record. A counter says where to look for it, and is raised after
//! the append. If its writer dies in between, the counter is behind by one, and who looks from there finds
//! the item, goes on by one, and raises the counter past it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use recstore::{Store, Swap};
use serde::{Deserialize, Serialize};

use common::arguments::Common;
use common::deaths::{REPORTS, kill_some};
use common::scratch::Scratch;
use common::words::Words;
use common::{Failure, Writer, check, program, wait_for_release};

mod common;

/// The record that says where to look for the end of the list.
const LENGTH: u64 = u64::MAX;
/// The record that counts how often this program has run with the list.
const RUNS: u64 = u64::MAX - 1;

/// A list of mixed values in a file, which several processes change at the same time.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// Items that each process appends [default: 50000, or 5000 if quick]
    #[arg(long, value_name = "N")]
    items: Option<u64>,

    /// File of the list; it is kept, and can be used again [default: one that is removed afterwards]
    file: Option<PathBuf>,
}

/// An item.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Value {
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    None,
    Bool(bool),
}

/// A list that any number of processes change at once.
struct MixedList {
    store: Store,
}

impl MixedList {
    /// Opens the list in a file, or begins one. An item takes up to 64 bytes.
    fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { store: Store::options().record_size(64).open_or_create(path)? })
    }

    /// Number of items.
    fn len(&self) -> Result<u64, Failure> {
        let mut end = self.store.counter(LENGTH).get()?;
        while self.store.contains(end)? {
            end += 1;
        }
        Ok(end)
    }

    fn get(&self, index: u64) -> Result<Option<Value>, Failure> {
        Ok(self.store.get(index)?.map(|bytes| postcard::from_bytes(&bytes)).transpose()?)
    }

    /// Makes these the first items, as far as the list has none yet. If this process dies in the middle,
    /// the next one goes on.
    fn begin_with(&self, values: &[Value]) -> Result<(), Failure> {
        for (index, value) in (0..).zip(values) {
            let _ = self.store.compare_and_swap(index, None, &postcard::to_stdvec(value)?)?;
        }
        Ok(())
    }

    /// Appends an item; its index.
    fn push(&self, value: &Value) -> Result<u64, Failure> {
        let bytes = postcard::to_stdvec(value)?;
        let length = self.store.counter(LENGTH);
        let mut index = length.get()?;
        while let Swap::Conflict { .. } = self.store.compare_and_swap(index, None, &bytes)? {
            index += 1;
        }
        length.fetch_max(index + 1)?;
        Ok(index)
    }

    /// Lets `change` say what an item becomes, as one step; fails if there is no such item, or if
    /// `change` does.
    fn update(
        &self,
        index: u64,
        change: impl FnOnce(Value) -> Result<Value, Failure>,
    ) -> Result<(), Failure> {
        let change = |old: Option<&[u8]>| -> Result<Vec<u8>, Failure> {
            let old = old.ok_or_else(|| format!("the list has no item {index}"))?;
            Ok(postcard::to_stdvec(&change(postcard::from_bytes(old)?)?)?)
        };
        let mut failed = None;
        self.store.update(index, |old| change(old).map_err(|failure| failed = Some(failure)).ok())?;
        failed.map_or(Ok(()), Err)
    }

    /// The items in their order, from `index` on.
    fn iter_from(&self, index: u64) -> impl Iterator<Item = Result<Value, Failure>> {
        (index..).map_while(|index| self.get(index).transpose())
    }
}

fn main() -> ExitCode {
    program::run(work, demonstrate)
}

/// What a process appends in its step `n`. All but none and the booleans say who appended them.
fn item(run: u64, process: u64, n: u64) -> Value {
    let key = (run & 0xfff) << 40 | process << 32 | n;
    match n % 6 {
        0 => Value::Int(key as i64),
        1 => Value::Float(key as f64 + 0.5),
        2 => Value::Text(format!("run {run}, process {process}, step {n}")),
        3 => Value::Bytes(key.to_be_bytes().to_vec()),
        4 => Value::None,
        _ => Value::Bool(process.is_multiple_of(2)),
    }
}

/// A worker process: in each step it changes three of the items that all processes change, and appends
/// one. It begins with the first step that is not acknowledged yet.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let list = MixedList::open(&program::argument::<PathBuf>(arguments, 0)?)?;
    let words = Words::open(&program::argument::<String>(arguments, 1)?)?;
    let [run, process, steps]: [u64; 3] = [
        program::argument(arguments, 2)?,
        program::argument(arguments, 3)?,
        program::argument(arguments, 4)?,
    ];
    let acknowledged = words.word(process as usize);
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    wait_for_release()?;
    for n in acknowledged.load(Ordering::Acquire)..steps {
        list.update(0, |value| match value {
            Value::Int(number) => Ok(Value::Int(number + 1)),
            other => Err(format!("item 0 is no integer ({other:?})").into()),
        })?;
        list.update(2, |_| Ok(Value::Text(format!("process {process} was here, step {n}"))))?;
        list.update(5, |value| Ok(Value::Bool(value != Value::Bool(true))))?;
        list.push(&item(run, process, n))?;
        // Release: not before the step is done.
        acknowledged.store(n + 1, Ordering::Release);
        if n % steps.div_ceil(REPORTS) == 0 {
            writeln!(out, "{n}")?; // Fails if this process's parent is gone; then it ends too.
        }
    }
    Ok(list.store.close()?)
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    match &arguments.file {
        Some(file) => run(&arguments, file),
        None => {
            let scratch = Scratch::new()?;
            run(&arguments, &scratch.path().join("list.rec"))
        }
    }
}

fn run(arguments: &Arguments, path: &Path) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let steps = arguments.items.unwrap_or(if quick { 5_000 } else { 50_000 }).max(1);
    let total = steps * u64::from(processes);

    let list = MixedList::open(path)?;
    let run = list.store.counter(RUNS).add(1)?;
    list.begin_with(&[
        Value::Int(42),
        Value::Float(2.5),
        Value::Text("hello".into()),
        Value::Bytes(b"bytes".to_vec()),
        Value::None,
        Value::Bool(true),
    ])?;
    let (before, first) = (list.len()?, list.get(0)?);
    println!("list       {}, {before} items; run {run} with it", path.display());
    show(&list)?;

    let words = Words::create()?;
    let start = |process: usize| -> Result<Writer, Failure> {
        let numbers = [run, process as u64, steps].map(|number| number.to_string());
        let arguments = [path.into(), words.address().into()];
        let mut worker = Writer::start(arguments.into_iter().chain(numbers.map(PathBuf::from)))?;
        check(worker.next_line()?.as_deref() == Some("ready"), || "a worker gets ready".into())?;
        Ok(worker)
    };
    let rest = |process: usize| steps - words.word(process).load(Ordering::Acquire);
    let mut workers = (0..processes as usize).map(start).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    workers.iter_mut().for_each(|worker| drop(worker.stdin()));
    let mut killed = 0;
    if kill {
        let mut random = StdRng::seed_from_u64(program::seed()?);
        killed = kill_some(workers, if quick { 5 } else { 20 }, &mut random, rest, start)?;
    } else {
        workers.into_iter().try_for_each(Writer::finish)?;
    }
    let each = begin.elapsed().as_nanos() / u128::from(total);
    check((0..processes as usize).all(|process| rest(process) == 0), || "all steps are done".into())?;
    list.store.close()?;

    // What is in the file, for somebody who opens it afterwards.
    let list = MixedList::open(path)?;
    let mut expected: HashMap<Vec<u8>, i64> = HashMap::new();
    for process in 0..u64::from(processes) {
        for n in 0..steps {
            *expected.entry(postcard::to_stdvec(&item(run, process, n))?).or_default() += 1;
        }
    }
    let (mut found, mut others) = (0, 0);
    for value in list.iter_from(before) {
        match expected.get_mut(&postcard::to_stdvec(&value?)?) {
            Some(count) => {
                *count -= 1;
                found += 1;
            }
            None => others += 1, // Another run of this program is at work with the list.
        }
    }
    check(expected.values().all(|&missing| missing <= 0), || {
        "every acknowledged append is in the list".into()
    })?;
    let (Some(Value::Int(first)), Some(Value::Int(last))) = (first, list.get(0)?) else {
        return Err("item 0 is no integer".into());
    };
    let sum = (last - first) as u64;
    check(sum >= total, || format!("item 0 was raised by 1 in each of {total} steps ({sum})"))?;
    let length = list.len()?;
    if others == 0 {
        // The two others are the counters.
        check(list.store.len()? == length + 2, || "the list has no hole".into())?;
        let most = total + killed;
        check(found <= most, || format!("at most one append more for each of {killed} killed ({found})"))?;
        check(sum <= most, || {
            format!("item 0 was raised once more at most for each of {killed} killed ({sum})")
        })?;
    }
    let report = list.store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    let locked = list.store.stats()?.regions.iter().filter(|region| region.lock.is_some()).count();
    check(locked == 0, || "no lock is held".into())?;
    println!("now        {length} items, in the file, opened again");
    show(&list)?;
    list.store.close()?;
    println!(
        "shown: {processes} processes appended {total} mixed values to one list and changed its items{}: none is lost, \
         there is no hole; {each} ns for an append and three changes",
        if kill { format!(", {killed} of them were killed") } else { String::new() }
    );
    Ok(())
}

/// Prints the first items, which all the processes change, and the last ones.
fn show(list: &MixedList) -> Result<(), Failure> {
    let length = list.len()?;
    let first: Vec<Value> = list.iter_from(0).take(6).collect::<Result<_, _>>()?;
    println!("           first {first:?}");
    if length > 12 {
        let last: Vec<Value> = list.iter_from(length - 4).collect::<Result<_, _>>()?;
        println!("           last  {last:?}");
    }
    Ok(())
}
