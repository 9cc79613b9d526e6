//! A product of two matrices, C = A B, by several processes. A lies in a store in memory as panels of
//! rows and B as panels of columns, which the workers read where they lie (pins). C is made of
//! tiles, one for each pair of panels, which they write where it will lie (reservations). What a task
//! is, a row of tiles, a column of tiles or one tile, is chosen by a flag. With `--kill` a worker is
//! killed in the middle of a tile, and another does its task.
//!
//! ```text
//! cargo program matrix_multiply -- --processes 2
//! cargo program matrix_multiply -- --size 500x3000x1000 --partition tiles --kill
//! cargo program matrix_multiply -- --sparse 0.01
//! ```
//!
//! The result is compared with what the same kernel makes of the whole matrices in one process, which
//! also tells how much faster several are, and some of its entries with plain dot products.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recstore::Store;

use common::arguments::Common;
use common::{Failure, check, memory, program};
use crew::{Crew, Event, Member, Task, board, board_bytes};
use matrix::{Matrix, Panels};
use plan::{Partition, Plan};
use progress::{Progress, letter};

#[path = "../common/mod.rs"]
mod common;
#[path = "../crew/mod.rs"]
mod crew;
mod matrix;
mod plan;
mod progress;

/// Entries of the result that are computed anew, one by one.
const PROBES: usize = 64;

/// Multiply matrices with several processes, in a store in memory
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// One number for square matrices; else A is M x K and B is K x N [default: 2000; quick: 400]
    #[arg(long, value_name = "MxKxN", value_parser = size)]
    size: Option<(usize, usize, usize)>,

    /// What a worker takes at a time: of the result a row of tiles, a column of tiles, or a tile
    #[arg(long, value_enum, default_value = "rows")]
    partition: Partition,

    /// A is sparse, in compressed rows (CSR); the number is the share of entries that are not 0
    #[arg(long, value_name = "DENSITY", num_args = 0..=1, default_missing_value = "0.01", value_parser = density)]
    sparse: Option<f64>,
}

fn size(text: &str) -> Result<(usize, usize, usize), String> {
    let sides: Option<Vec<usize>> = text.split('x').map(|side| side.parse().ok()).collect();
    let size = match sides.as_deref() {
        Some(&[n]) => (n, n, n),
        Some(&[m, k, n]) => (m, k, n),
        _ => return Err("N or MxKxN".into()),
    };
    let possible = [size.0, size.1, size.2].iter().all(|side| (1..=20_000).contains(side));
    possible.then_some(size).ok_or_else(|| "each side is 1 to 20000".into())
}

fn density(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "0 to 1".into())
}

fn main() -> ExitCode {
    program::run(|arguments| crew::join(arguments, work), demonstrate)
}

/// A worker process.
fn work(member: &Member<'_>, arguments: &[String]) -> Result<(), Failure> {
    let plan = Plan::from_arguments(arguments)?;
    let matrices = Store::shared(&arguments[0])?;
    let pin = matrices.pin()?;
    let mut panels = Panels::new(&pin, plan.is_sparse);
    let mut product = Vec::new();
    while let Some(task) = member.take(|_, _| true)? {
        let mine: Vec<_> = plan.tiles().filter(|&tile| plan.task_of(tile) == task).collect();
        for &(i, j) in &mine {
            let (rows, columns) = (plan.rows(i).len(), plan.columns(j).len());
            let (a, b) = panels.get((i, j))?;
            let mut room = member.store().reserve(plan.tile(i, j), 8 * rows * columns)?;
            if (i, j) == mine[mine.len() / 2] {
                room.write_at(0, &vec![0xAA; room.len() / 2])?;
                member.stop_if_victim(plan.tile(i, j))?;
            }
            product.clear();
            product.resize(rows * columns, 0.0);
            a.times(plan.k, b, columns, &mut product);
            room.write_slice_at(0, &product)?;
            room.commit()?;
        }
        member.done(task)?;
    }
    Ok(())
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let Common { processes, kill, quick } = arguments.common;
    let (m, k, n) = arguments.size.unwrap_or(if quick { (400, 400, 400) } else { (2000, 2000, 2000) });
    // Enough for everyone to have a few turns, and few enough for large tiles.
    let parts = (4 * processes as usize).max(8);
    let partition = arguments.partition;
    let plan = Plan {
        m,
        k,
        n,
        cuts: (parts.min(m), parts.min(n)),
        partition,
        is_sparse: arguments.sparse.is_some(),
    };
    let mut random = StdRng::seed_from_u64(program::seed()?);
    let a = match arguments.sparse {
        None => Matrix::dense(m, k, &mut random),
        Some(density) => Matrix::sparse(m, k, density, &mut random),
    };
    let b = Matrix::dense(k, n, &mut random);
    let kind = if plan.is_sparse { format!("sparse, {} entries", a.values.len()) } else { "dense".into() };
    println!("matrices   A {m} x {k} ({kind}), B {k} x {n}");

    let mut expected = vec![0.0; m * n];
    let begin = Instant::now();
    a.rows().times(k, &b.values, n, &mut expected);
    let alone = begin.elapsed();
    let operations = 2.0 * a.values.len() as f64 * n as f64;
    let speed = |time: Duration| operations / time.as_secs_f64() / 1e9;
    println!("alone      {:.1} ms, {:.1} Gflop/s: the kernel on the whole matrices", ms(alone), speed(alone));

    let a_panels: Vec<_> = (0..plan.cuts.0).map(|i| plan.rows(i)).collect();
    let b_bytes = 8 * k * n.div_ceil(plan.cuts.1);
    let options = Store::options().record_size(a.record_bytes(&a_panels).max(b_bytes));
    let name = memory::fresh_name(&options)?;
    let matrices = options.shared(&name)?;
    store_panels(&matrices, &plan, &a, &b)?;
    let tile_bytes = 8 * m.div_ceil(plan.cuts.0) * n.div_ceil(plan.cuts.1);
    let name_of_result = format!("{name}-result");
    let result =
        Store::options().record_size(tile_bytes.max(board_bytes(plan.tasks()))).shared(&name_of_result)?;

    let workers = program::count(processes, "process", "processes");
    let begin = Instant::now();
    let mut crew = Crew::start(&result, &name_of_result, processes, kill, plan.to_arguments(&name))?;
    println!("workers    {workers}, started in {:.1} ms", ms(begin.elapsed()));
    let begin = Instant::now();
    crew.begin(plan.tasks())?;
    let mut together = Duration::ZERO;
    let mut taken_over = Vec::new();
    let mut progress = Progress::new(plan.tasks(), processes);
    while let Some(event) = crew.next()? {
        match event {
            Event::Done { worker } => {
                together = begin.elapsed();
                progress.advance(worker);
            }
            Event::Died { worker, pid, place } => {
                if let Some(tile) = place {
                    check(!result.contains(tile.parse()?)?, || {
                        format!("tile {tile}, half written, is not seen")
                    })?;
                    progress.say(&format!(
                        "kill -9    process {pid}, worker {}, in the middle of writing tile {tile}: nobody sees half a tile",
                        letter(worker)
                    ));
                }
                for task in crew.put_back(worker)? {
                    taken_over.push((worker, task));
                }
            }
        }
    }
    progress.finish();
    let board = board(&result)?;
    check(board.iter().all(|task| task.is_done()), || "all tasks are done".into())?;
    check(taken_over.len() >= usize::from(kill), || "a task was taken over".into())?;
    for &(dead, task) in &taken_over {
        let by = board[task].worker().filter(|&by| by != dead).ok_or("nobody took the task over")?;
        println!("taken over task {task}: by worker {}", letter(by));
    }
    let speed_up = alone.as_secs_f64() / together.as_secs_f64();
    println!("together   {:.1} ms, {:.1} Gflop/s: {workers}, in the store", ms(together), speed(together));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("speed-up   {speed_up:.2} times, on {cores} cores");
    draw(&plan, &board, &taken_over);

    let difference = compare(&plan, &result, &expected)?;
    println!(
        "equal      to the product by one process; the largest difference of an entry is {difference:e}"
    );
    let probes = probe(&a, &b, &expected, &mut random)?;
    println!("probed     {probes} entries, against plain dot products");
    for store in [&matrices, &result] {
        let report = store.verify()?;
        check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    }
    drop((matrices, result));
    check(!memory::exists(&name)? && !memory::exists(&name_of_result)?, || {
        "nothing is left in memory".into()
    })?;
    let killed = if kill { ", one of them killed on the way," } else { "" };
    println!(
        "shown: {workers}{killed} multiplied {m} x {k} by {k} x {n} from shared memory, without a copy, \
         {speed_up:.2} times as fast as the same kernel in one process on {cores} cores; the result is the same"
    );
    Ok(())
}

/// Puts A into the store as panels of rows, and B as panels of columns.
fn store_panels(store: &Store, plan: &Plan, a: &Matrix, b: &Matrix) -> Result<(), Failure> {
    for panel in 0..plan.cuts.0 {
        a.put(store, panel, &plan.rows(panel))?;
    }
    for panel in 0..plan.cuts.1 {
        let columns = plan.columns(panel);
        let mut room = store.reserve(matrix::OF_B + panel as u64, 8 * plan.k * columns.len())?;
        for (n, row) in b.values.chunks_exact(plan.n).enumerate() {
            room.write_slice_at(n * columns.len(), &row[columns.clone()])?;
        }
        room.commit()?;
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The result as characters: who computed which tile, and a mark where a dead worker had begun the task.
/// Of very many tiles it shows some.
fn draw(plan: &Plan, board: &[Task], taken_over: &[(u32, usize)]) {
    let mark = if taken_over.is_empty() { "" } else { "; *: taken over" };
    let (height, width) = (plan.rows(0).len(), plan.columns(0).len());
    println!("who computed which tile of C ({height} x {width} entries each{mark})");
    for i in (0..plan.cuts.0).step_by(plan.cuts.0.div_ceil(32)) {
        let tiles = (0..plan.cuts.1).step_by(plan.cuts.1.div_ceil(32)).flat_map(|j| {
            let task = plan.task_of((i, j));
            let by = board[task].worker().map_or('.', letter);
            [by, if taken_over.iter().any(|&(_, taken)| taken == task) { '*' } else { by }]
        });
        println!("           {}", tiles.collect::<String>());
    }
}

/// The largest difference between the tiles and the whole product, which must be one of rounding.
fn compare(plan: &Plan, result: &Store, expected: &[f64]) -> Result<f64, Failure> {
    let pin = result.pin()?;
    let mut largest = 0.0f64;
    for (i, j) in plan.tiles() {
        let tile = pin.get_slice::<f64>(plan.tile(i, j))?.ok_or("a tile is missing")?;
        let columns = plan.columns(j);
        check(tile.len() == plan.rows(i).len() * columns.len(), || format!("tile {i}, {j} is whole"))?;
        for (row, values) in plan.rows(i).zip(tile.chunks_exact(columns.len())) {
            for (value, wanted) in values.iter().zip(&expected[row * plan.n..][columns.clone()]) {
                // Not `f64::max`, which passes over a NaN.
                let difference = (value - wanted).abs();
                if difference > largest || difference.is_nan() {
                    largest = difference;
                }
            }
        }
    }
    // Entries are sums of `k` products of numbers below 1.
    let rounding = 2.0 * f64::EPSILON * (plan.k * plan.k) as f64;
    check(largest <= rounding, || format!("the result is the serial one (they differ by {largest:e})"))?;
    Ok(largest)
}

/// Computes some entries anew.
fn probe(a: &Matrix, b: &Matrix, product: &[f64], random: &mut StdRng) -> Result<usize, Failure> {
    let (m, n) = (product.len() / b.width, b.width);
    for _ in 0..PROBES {
        let (i, j) = (random.random_range(0..m), random.random_range(0..n));
        let (mut sum, mut size) = (0.0f64, 0.0f64);
        for (k, value) in a.row(i) {
            let term = value * b.values[k * n + j];
            sum += term;
            size += term.abs();
        }
        let rounding = f64::EPSILON * a.width as f64 * size;
        check((sum - product[i * n + j]).abs() <= rounding, || format!("entry {i}, {j} is {sum}"))?;
    }
    Ok(PROBES)
}
