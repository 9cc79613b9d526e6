//! A block of shared memory with a name. One process creates it and fills it with numbers; others attach
//! to it by its name, see the numbers where they lie, without a copy, and change them. When the last of
//! them has left, it is gone.
//!
//! ```text
//! cargo program shared_block
//! cargo program shared_block -- --processes 2 --kill
//! ```
//!
//! With `--kill`, a process is killed when it has written half of its numbers: nobody sees those, and
//! another does its work. Then all the processes of a second block are killed, and it is gone as well.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use clap::Parser;
use recstore::{Options, Store};

use common::arguments::Common;
use common::{Failure, Writer, check, memory, program, wait_for_release};

mod common;

/// The record that says what the others are.
const SHAPE: u64 = 0;
/// Row `n` of the block is record `FIRST_ROW + n`.
const FIRST_ROW: u64 = 1;
/// Numbers that are written at a time.
const AT_ONCE: usize = 512;
/// What a worker is asked to do, and says that it has done.
const CREATE: &str = "create a block";
const CHANGE: &str = "change a row";
const HALF_WAY: &str = "change half of a row";

/// What the block consists of, for those who know nothing of it but its name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, PartialEq, Zeroable)]
struct Shape {
    rows: u64,
    columns: u64,
    /// Rows that were changed.
    changed: u64,
}

/// A named block of numbers in memory, seen and changed by several processes, and gone afterwards.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// Numbers in each process's row [default: 1000000, or 100000 if quick]
    #[arg(long, value_name = "N")]
    columns: Option<u64>,
}

fn main() -> ExitCode {
    program::run(work, demonstrate)
}

/// What is in a row before its process has changed it.
fn before(row: u64, column: usize) -> f64 {
    row as f64 + column as f64 / 8.0
}

/// What the process makes of a number.
fn change(number: f64) -> f64 {
    2.0 * number + 1.0
}

/// Whether a row is whole: all of it as before, or all of it changed.
fn is_whole(row: u64, numbers: &[f64], is_changed: bool) -> bool {
    (0..).zip(numbers).all(|(column, &number)| {
        let old = before(row, column);
        number == if is_changed { change(old) } else { old }
    })
}

/// A worker process, which knows the block's name and its own row. Attaches, reads, writes, leaves.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let (name, task): (String, String) = (program::argument(arguments, 0)?, program::argument(arguments, 1)?);
    let mut out = io::stdout();
    if task == CREATE {
        let store = options(3, 8).shared(&name)?;
        store.slices::<f64>()?.put(FIRST_ROW, &[1.0, 2.0, 3.0])?;
        writeln!(out, "{CREATE}")?;
        return Ok(wait_for_release()?);
    }

    let row: u64 = program::argument(arguments, 2)?;
    let begin = Instant::now();
    let store = Store::shared(&name)?;
    let attached = begin.elapsed();
    let shape = store.typed::<Shape>()?.get(SHAPE)?.ok_or("the block has no shape")?;

    // The numbers where they lie. What is borrowed stays as it is while the pin lives.
    let begin = Instant::now();
    let pin = store.pin()?;
    let old = pin.get_slice::<f64>(FIRST_ROW + row)?.ok_or("a row is missing")?;
    let seen = begin.elapsed();
    check(old.len() as u64 == shape.columns && is_whole(row, old, false), || {
        format!("row {row} is as it was created")
    })?;

    // The new numbers, written where they will lie. Until `commit` the row is the old one, for everybody.
    let columns = old.len();
    let mut reservation = store.reserve(FIRST_ROW + row, size_of_val(old))?;
    let mut is_half_way = false;
    for (n, old) in old.chunks(AT_ONCE).enumerate() {
        if n * AT_ONCE >= columns / 2 && task == HALF_WAY && !std::mem::replace(&mut is_half_way, true) {
            writeln!(out, "{HALF_WAY}")?;
            wait_for_release()?;
        }
        let new: Vec<f64> = old.iter().map(|&old| change(old)).collect();
        reservation.write_slice_at(n * AT_ONCE, &new)?;
    }
    reservation.commit()?;
    store.typed::<Shape>()?.update(SHAPE, |shape| shape.map(|s| Shape { changed: s.changed + 1, ..s }))?;
    check(is_whole(row, old, false), || "what is borrowed stays".into())?;
    writeln!(
        out,
        "process {} attached in {attached:.0?}, saw row {row} in {seen:.0?}, its checksum checked",
        std::process::id()
    )?;
    Ok(())
}

fn options(columns: u64, regions: u32) -> Options {
    let bytes = (columns as usize * size_of::<f64>()).max(size_of::<Shape>());
    Store::options().record_size(bytes).regions(regions)
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let columns = arguments.columns.unwrap_or(if quick { 100_000 } else { 1_000_000 }).max(2);
    let rows = u64::from(processes);

    let options = options(columns, processes);
    let name = memory::fresh_name(&options)?;
    let store = options.shared(&name)?;
    for row in 0..rows {
        let mut reservation = store.reserve(FIRST_ROW + row, columns as usize * size_of::<f64>())?;
        for first in (0..columns as usize).step_by(AT_ONCE) {
            let columns = first..columns.min((first + AT_ONCE) as u64) as usize;
            let numbers: Vec<f64> = columns.map(|column| before(row, column)).collect();
            reservation.write_slice_at(first, &numbers)?;
        }
        reservation.commit()?;
    }
    store.typed::<Shape>()?.put(SHAPE, &Shape { rows, columns, changed: 0 })?;
    let bytes = rows * columns * size_of::<f64>() as u64;
    println!(
        "created    {name}: {rows} rows of {columns} numbers, {:.1} MiB",
        bytes as f64 / f64::from(1 << 20)
    );

    // What this process borrows now it has until it lets the pin go, whatever the others write.
    let pin = store.pin()?;
    let first = pin.get_slice::<f64>(FIRST_ROW)?.ok_or("a row is missing")?;

    if kill {
        let row = rows - 1;
        let mut victim = Writer::start([name.as_str(), HALF_WAY, &row.to_string()])?;
        check(victim.next_line()?.as_deref() == Some(HALF_WAY), || "the victim came half way".into())?;
        victim.kill()?;
        let pin = store.pin()?;
        let numbers = pin.get_slice::<f64>(FIRST_ROW + row)?.ok_or("a row is missing")?;
        check(is_whole(row, numbers, false), || format!("row {row} is as it was before the victim came"))?;
        println!(
            "kill -9    process {}, half way in row {row}: the row is whole, and as it was",
            victim.pid()
        );
    }
    let mut workers = Vec::new();
    for row in 0..rows {
        workers.push(Writer::start([name.as_str(), CHANGE, &row.to_string()])?);
    }
    for mut worker in workers {
        let said = worker.next_line()?.ok_or("a worker ended early")?;
        worker.finish()?;
        println!("attached   {said}");
    }

    check(is_whole(0, first, false), || "what is borrowed stays".into())?;
    drop(pin);
    let pin = store.pin()?;
    for row in 0..rows {
        let numbers = pin.get_slice::<f64>(FIRST_ROW + row)?.ok_or("a row is missing")?;
        check(numbers.len() as u64 == columns && is_whole(row, numbers, true), || {
            format!("row {row} is what its process wrote")
        })?;
    }
    let shape = store.typed::<Shape>()?.get(SHAPE)?;
    check(shape == Some(Shape { rows, columns, changed: rows }), || {
        format!("all rows are changed ({shape:?})")
    })?;
    println!("changed    every row is what its process wrote; what was borrowed before stayed as it was");

    drop(pin);
    drop(store);
    check(!memory::exists(&name)?, || "the block is gone with its last user".into())?;
    println!("gone       {name}");

    if kill {
        // Nobody leaves this one: its only process is killed.
        let mut only = Writer::start([name.as_str(), CREATE])?;
        check(only.next_line()?.as_deref() == Some(CREATE), || "a second block is created".into())?;
        only.kill()?;
        check(memory::exists(&name)?, || "nobody was left to remove it".into())?;
        let store = options.shared(&name)?;
        check(store.is_empty()?, || "who comes next begins with an empty block".into())?;
        drop(store);
        check(!memory::exists(&name)?, || "the second block is gone too".into())?;
        println!(
            "kill -9    process {}, the only one of a second block: the next to come found it, and it is gone",
            only.pid()
        );
    }
    println!(
        "shown: {processes} processes attached to a block by its name, saw {columns} numbers each without a copy, and \
         changed them{}; nothing is left of it",
        if kill { "; one was killed half way, and nobody saw a torn row" } else { "" }
    );
    Ok(())
}
