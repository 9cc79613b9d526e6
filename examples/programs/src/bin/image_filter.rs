//! A photograph goes through a chain of filters, done by several processes. Its rows are records of a
//! store in memory. A worker takes a band of rows, reads the rows that it needs, its neighbours' among
//! them, where they lie (pins), and writes each new row where it will lie (reservations). With `--kill`
//! a worker is killed in the middle of a row, and another does its band. The picture must be the one
//! that a single process makes, byte for byte.
//!
//! ```text
//! cargo program image_filter -- --processes 2 --kill
//! ```
//!
//! The filters follow one another without a break in between: a band can be blurred as soon as the
//! bands around it have been brightened, while others are still being so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use image::imageops::FilterType;
use image::{ImageReader, RgbImage};
use recstore::Store;

use common::arguments::Common;
use common::program::argument;
use common::{Failure, check, memory, program};
use crew::{Crew, Event, Member, Task, board, board_bytes};

mod common;
mod crew;

/// Rows of a band: a task.
const BAND: usize = 16;

/// Filter a photograph with several processes, in a store in memory
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,

    /// What is done to the photograph; several, one after another, are possible [default: all]
    #[arg(long, value_enum, value_name = "FILTER")]
    filter: Vec<Filter>,

    /// `hubble`, `astronaut`, or the path of a PNG or JPEG file
    #[arg(long, default_value = "hubble")]
    photo: String,

    /// The photograph is cut and resized to this
    #[arg(long, default_value = "1920x1080", value_parser = size)]
    size: (u32, u32),

    /// The photograph as it is
    #[arg(long, conflicts_with = "size")]
    native: bool,

    /// Where the result goes; of several filters, the result of each fills a vertical strip, from the
    /// original on the left [default: image_filter.png in the directory for temporary files]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Filter {
    /// A fifth brighter
    Brightness,
    /// Each pixel a weighted mean of those at most 8 away
    Blur,
    /// How steeply the brightness changes (the Sobel operator)
    Edges,
}

const ALL: [Filter; 3] = [Filter::Brightness, Filter::Blur, Filter::Edges];

/// Weights of the blur, of the pixels from 8 before to 8 behind: a bell curve, 256 in all.
const BLUR: [u16; 17] = [2, 4, 7, 11, 16, 20, 25, 28, 30, 28, 25, 20, 16, 11, 7, 4, 2];

const _: () = {
    let (mut sum, mut n) = (0, 0);
    while n < BLUR.len() {
        sum += BLUR[n];
        n += 1;
    }
    assert!(sum == 256);
};

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides
        .filter(|&(w, h)| (16..=16_384).contains(&w) && (16..=16_384).contains(&h))
        .ok_or_else(|| "WIDTHxHEIGHT, each of 16 to 16384".into())
}

fn main() -> ExitCode {
    program::run(|arguments| crew::join(arguments, work), demonstrate)
}

impl Filter {
    fn name(self) -> &'static str {
        match self {
            Self::Brightness => "brightness",
            Self::Blur => "blur",
            Self::Edges => "edges",
        }
    }

    /// How many rows above and below a row it needs.
    fn reach(self) -> usize {
        match self {
            Self::Brightness => 0,
            Self::Blur => BLUR.len() / 2,
            Self::Edges => 1,
        }
    }

    /// Makes one row, `out`. `rows` are the old one, in the middle, and those within reach.
    fn row(self, rows: &[&[u8]], out: &mut [u8]) {
        match self {
            Self::Brightness => brighten(rows[0], out),
            Self::Blur => blur(rows, out),
            Self::Edges => edges(rows, out),
        }
    }
}

fn brighten(row: &[u8], out: &mut [u8]) {
    for (new, &old) in out.iter_mut().zip(row) {
        *new = (u16::from(old) * 6 / 5).min(255) as u8;
    }
}

/// Down the columns, then along the row.
fn blur(rows: &[&[u8]], out: &mut [u8]) {
    let reach = BLUR.len() / 2;
    let mut sums = vec![0u16; out.len()];
    for (row, weight) in rows.iter().zip(BLUR) {
        for (sum, &value) in sums.iter_mut().zip(*row) {
            *sum += weight * u16::from(value); // 255 * 256 at most
        }
    }
    // The outermost pixels stand for those beyond the border.
    let mut wide = vec![0u16; out.len() + 6 * reach];
    for (channel, pixel) in wide.chunks_exact_mut(3).enumerate() {
        let from = channel.saturating_sub(reach).min(out.len() / 3 - 1) * 3;
        for (value, sum) in pixel.iter_mut().zip(&sums[from..]) {
            *value = (sum + 128) >> 8;
        }
    }
    sums.fill(128);
    for (n, weight) in BLUR.into_iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(&wide[3 * n..]) {
            *sum = sum.saturating_add(weight * value);
        }
    }
    for (new, sum) in out.iter_mut().zip(sums) {
        *new = (sum >> 8) as u8;
    }
}

fn edges(rows: &[&[u8]], out: &mut [u8]) {
    let width = out.len() / 3;
    let grey = |row: &[u8]| -> Vec<i32> {
        row.chunks_exact(3)
            .map(|p| (77 * i32::from(p[0]) + 150 * i32::from(p[1]) + 29 * i32::from(p[2])) >> 8)
            .collect()
    };
    let [above, here, below] = [grey(rows[0]), grey(rows[1]), grey(rows[2])];
    for (x, pixel) in out.chunks_exact_mut(3).enumerate() {
        let (l, r) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let across = above[r] + 2 * here[r] + below[r] - above[l] - 2 * here[l] - below[l];
        let down = below[l] + 2 * below[x] + below[r] - above[l] - 2 * above[x] - above[r];
        // Twice as bright, as most edges in a photograph are faint.
        pixel.fill((2 * (across * across + down * down).isqrt()).min(255) as u8);
    }
}

/// What is done to a picture of which size.
#[derive(Clone)]
struct Plan {
    width: usize,
    height: usize,
    filters: Vec<Filter>,
}

impl Plan {
    fn to_arguments(&self) -> Vec<String> {
        let filters = self.filters.iter().map(|filter| filter.name().to_owned());
        [self.width.to_string(), self.height.to_string()].into_iter().chain(filters).collect()
    }

    fn from_arguments(arguments: &[String]) -> Result<Self, Failure> {
        let filters =
            arguments[2..].iter().map(|name| Filter::from_str(name, false)).collect::<Result<_, _>>()?;
        Ok(Self { width: argument(arguments, 0)?, height: argument(arguments, 1)?, filters })
    }

    fn row_bytes(&self) -> usize {
        3 * self.width
    }

    fn bands(&self) -> usize {
        self.height.div_ceil(BAND)
    }

    fn tasks(&self) -> usize {
        self.filters.len() * self.bands()
    }

    /// The filter and the band that a task is.
    fn task(&self, task: usize) -> (usize, usize) {
        (task / self.bands(), task % self.bands())
    }

    fn rows_of(&self, band: usize) -> std::ops::Range<usize> {
        band * BAND..((band + 1) * BAND).min(self.height)
    }

    /// The rows within reach of these; the outermost stand for those beyond the border.
    fn around(&self, rows: &std::ops::Range<usize>, reach: usize) -> impl Iterator<Item = usize> {
        let last = self.height - 1;
        (rows.start..rows.end + 2 * reach).map(move |row| row.saturating_sub(reach).min(last))
    }

    /// Whether the rows that a task needs are there.
    fn may_begin(&self, board: &[Task], task: usize) -> bool {
        let (stage, band) = self.task(task);
        stage == 0
            || self
                .around(&self.rows_of(band), self.filters[stage].reach())
                .all(|row| board[(stage - 1) * self.bands() + row / BAND].is_done())
    }

    /// All filters by this process alone, in its own memory: the picture after each.
    fn alone(&self, photo: &RgbImage) -> Vec<Vec<u8>> {
        let mut pictures: Vec<Vec<u8>> = Vec::new();
        for filter in &self.filters {
            let old: &[u8] = pictures.last().map_or(photo.as_raw(), |picture| picture);
            let rows: Vec<&[u8]> = self
                .around(&(0..self.height), filter.reach())
                .map(|row| &old[row * self.row_bytes()..][..self.row_bytes()])
                .collect();
            let mut new = vec![0; old.len()];
            let windows = rows.windows(2 * filter.reach() + 1);
            for (out, rows) in new.chunks_exact_mut(self.row_bytes()).zip(windows) {
                filter.row(rows, out);
            }
            pictures.push(new);
        }
        pictures
    }
}

/// The record of a row: of the photograph at stage 0, and of the picture after filter `stage`.
fn id(stage: usize, row: usize) -> u64 {
    (stage as u64) << 32 | row as u64
}

/// A worker process.
fn work(member: &Member<'_>, arguments: &[String]) -> Result<(), Failure> {
    let plan = Plan::from_arguments(arguments)?;
    let store = member.store();
    while let Some(task) = member.take(|board, task| plan.may_begin(board, task))? {
        let (stage, band) = plan.task(task);
        let filter = plan.filters[stage];
        let rows = plan.rows_of(band);
        // What the pin gives lies in the store, and stays as it is for as long as the pin is there.
        let pin = store.pin()?;
        let old = plan
            .around(&rows, filter.reach())
            .map(|row| pin.get(id(stage, row))?.ok_or_else(|| format!("row {row} is missing").into()))
            .collect::<Result<Vec<&[u8]>, Failure>>()?;
        let middle = rows.start + rows.len() / 2;
        let mut new = vec![0; plan.row_bytes()];
        for (row, around) in rows.zip(old.windows(2 * filter.reach() + 1)) {
            let mut room = store.reserve(id(stage + 1, row), plan.row_bytes())?;
            if row == middle {
                room.write_at(0, &vec![0xAA; plan.row_bytes() / 2])?;
                member.stop_if_victim(format_args!("{} {row}", stage + 1))?;
            }
            filter.row(around, &mut new);
            room.write_at(0, &new)?;
            room.commit()?;
        }
        drop(pin);
        member.done(task)?;
    }
    Ok(())
}

fn demonstrate(arguments: Arguments) -> Result<(), Failure> {
    let photo = open(&arguments)?;
    let filters = if arguments.filter.is_empty() { ALL.to_vec() } else { arguments.filter.clone() };
    let plan = Plan { width: photo.width() as usize, height: photo.height() as usize, filters };
    let names: Vec<&str> = plan.filters.iter().map(|filter| filter.name()).collect();
    println!(
        "photo      {}, {} x {}, {}: {} bands of {BAND} rows to do",
        arguments.photo,
        plan.width,
        plan.height,
        names.join(" then "),
        plan.tasks()
    );

    let begin = Instant::now();
    let expected = plan.alone(&photo);
    let alone = begin.elapsed();
    println!("alone      {:.1} ms: one process, in its own memory", ms(alone));

    let options = Store::options().record_size(plan.row_bytes().max(board_bytes(plan.tasks())));
    let name = memory::fresh_name(&options)?;
    let store = options.shared(&name)?;
    for (row, data) in photo.as_raw().chunks_exact(plan.row_bytes()).enumerate() {
        store.put(id(0, row), data)?;
    }
    let Common { processes, kill, .. } = arguments.common;
    let workers = program::count(processes, "process", "processes");
    let begin = Instant::now();
    let mut crew = Crew::start(&store, &name, processes, kill, plan.to_arguments())?;
    println!("workers    {workers}, started in {:.1} ms", ms(begin.elapsed()));

    let begin = Instant::now();
    crew.begin(plan.tasks())?;
    let mut together = Duration::ZERO;
    let mut shares = BTreeMap::new();
    let mut taken_over = Vec::new();
    while let Some(event) = crew.next()? {
        match event {
            Event::Done { worker } => {
                together = begin.elapsed();
                *shares.entry(worker).or_insert(0) += 1;
            }
            Event::Died { worker, pid, place } => {
                if let Some(place) = place {
                    let (stage, row) = place.split_once(' ').ok_or("a place without a row")?;
                    let half_written = id(stage.parse()?, row.parse()?);
                    check(!store.contains(half_written)?, || {
                        format!("row {row}, half written, is not seen")
                    })?;
                    println!(
                        "kill -9    process {pid}, worker {worker}, in the middle of writing row {row}: nobody sees half a row"
                    );
                }
                for task in crew.put_back(worker)? {
                    taken_over.push((worker, task));
                }
            }
        }
    }
    let board = board(&store)?;
    check(board.iter().all(|task| task.is_done()), || "all bands are done".into())?;
    check(taken_over.len() >= usize::from(kill), || "a band was taken over".into())?;
    for &(dead, task) in &taken_over {
        let (stage, band) = plan.task(task);
        let by = board[task].worker().filter(|&by| by != dead).ok_or("nobody took the band over")?;
        println!("taken over band {band} of {}: by worker {by}", names[stage]);
    }
    println!(
        "together   {:.1} ms: {workers}, in the store ({:.2} times as fast as alone)",
        ms(together),
        alone.as_secs_f64() / together.as_secs_f64()
    );
    let shares: Vec<String> =
        shares.iter().map(|(worker, bands)| format!("worker {worker} {bands}")).collect();
    println!("bands      {}", shares.join(", "));

    {
        let pin = store.pin()?;
        for (stage, picture) in (1..).zip(&expected) {
            for (row, data) in picture.chunks_exact(plan.row_bytes()).enumerate() {
                check(pin.get(id(stage, row))? == Some(data), || {
                    format!("row {row} after {} is the one that a single process makes", names[stage - 1])
                })?;
            }
        }
    }
    let report = store.verify()?;
    check(report.is_clean(), || format!("verify finds no damage ({:?})", report.damage))?;
    let output = arguments.output.unwrap_or_else(|| std::env::temp_dir().join("image_filter.png"));
    save(&store, &plan, &output)?;
    println!("picture    {}", output.display());

    drop(store);
    check(!memory::exists(&name)?, || "nothing is left in memory".into())?;
    let killed = if kill { ", one of them killed on the way," } else { "" };
    println!(
        "shown: {workers}{killed} filtered {} rows in shared memory without a lock held over any of them, \
         and every byte is the same as from one process ({:.1} ms alone, {:.1} ms together)",
        plan.filters.len() * plan.height,
        ms(alone),
        ms(together)
    );
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn open(arguments: &Arguments) -> Result<RgbImage, Failure> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let path = match arguments.photo.as_str() {
        "hubble" => data.join("hubble_deep_field.jpg"),
        "astronaut" => data.join("astronaut.png"),
        path => PathBuf::from(path),
    };
    let place = |e: &dyn std::error::Error| format!("{}: {e}", path.display());
    let photo = ImageReader::open(&path).map_err(|e| place(&e))?;
    let photo = photo.with_guessed_format()?.decode().map_err(|e| place(&e))?;
    if arguments.native {
        return Ok(photo.into_rgb8());
    }
    let (width, height) = if arguments.common.quick { (480, 270) } else { arguments.size };
    Ok(photo.resize_to_fill(width, height, FilterType::Triangle).into_rgb8())
}

/// Writes the picture: the last filter's if there is one filter, else strips from all stages.
fn save(store: &Store, plan: &Plan, path: &Path) -> Result<(), Failure> {
    let stages: Vec<usize> =
        if plan.filters.len() == 1 { vec![1] } else { (0..=plan.filters.len()).collect() };
    let pin = store.pin()?;
    let mut pixels = Vec::with_capacity(plan.height * plan.row_bytes());
    for row in 0..plan.height {
        for (n, &stage) in stages.iter().enumerate() {
            let at = |n: usize| n * plan.width / stages.len() * 3;
            let data = pin.get(id(stage, row))?.ok_or("a row is missing")?;
            pixels.extend_from_slice(&data[at(n)..at(n + 1)]);
        }
    }
    let picture = RgbImage::from_raw(plan.width as u32, plan.height as u32, pixels);
    Ok(picture.ok_or("a picture of another size")?.save(path)?)
}
