//! `recstore map`: a picture of the file.

use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use recstore::{ExtentStats, ExtentUse, Stats};

use super::access::Access;
use super::failure::Failure;
use super::ids::size;
use super::output::{Output, counted, is_terminal, note};
use super::progress;

const WIDTH_DEFAULT: usize = 80;
/// Rows of cells at most; more extents share a cell.
const ROWS_MAX: usize = 24;
/// Colors of the terminal's palette that are easy to tell apart, for regions.
const HUES: [u8; 12] = [39, 208, 76, 170, 220, 51, 203, 141, 114, 214, 69, 181];
/// The same for a picture.
const HUES_RGB: [&str; 12] = [
    "#00afff", "#ff8700", "#5fd700", "#d75fd7", "#ffd700", "#00ffff", "#ff5f5f", "#af87ff", "#87d787",
    "#ffaf00", "#5f87ff", "#d7afaf",
];
const DAMAGE: u8 = 196;

/// Draw a picture of the file: the use of each part, how full it is, and where it is damaged
///
/// A cell stands for one extent, or for several of them in a large file. Its shade shows how many of its slots hold a
/// version. Its color shows what --by names. `I` is an index, `?` belongs to no region. With --verify every checksum is
/// checked first, and damaged parts are red, `X`, and named below.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  recstore map s.rec                     in the terminal
  recstore map s.rec --verify            where the damage is
  recstore map s.rec --by age --svg s.svg")]
pub(crate) struct Map {
    /// The store
    store: PathBuf,
    /// What the color shows
    #[arg(long, value_enum, default_value_t = By::Region)]
    by: By,
    /// Check every slot, and show where the file is damaged; exit code 3 if it is
    #[arg(long)]
    verify: bool,
    /// Columns of the picture [default: as wide as the terminal, else 80]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(20..=1000))]
    width: Option<u16>,
    /// Draw with letters and digits alone
    #[arg(long)]
    ascii: bool,
    /// Draw into this SVG file, which must not exist; `-` is standard output
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// The region that owns the extent
    Region,
    /// How full it is
    Fill,
    /// How long ago it was written to, in epochs
    Age,
}

/// One or several extents.
struct Cell {
    used: u64,
    slots: u64,
    region: Option<u32>,
    newest_epoch: u64,
    is_index: bool,
    is_unknown: bool,
    is_damaged: bool,
}

impl Map {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let store = access.look(&self.store)?;
        let stats = store.stats()?;
        let damage = if self.verify {
            progress::of_work("checking every slot", |tell| store.verify_with_progress(tell))?.damage
        } else {
            Vec::new()
        };
        let extents = store.extents()?;
        let damaged: HashSet<u32> = damage.iter().filter_map(|d| extent_of(&extents, d.slot?)).collect();
        let width = self.columns();
        let cells = cells(&extents, width.saturating_sub(2).max(1) * ROWS_MAX, &damaged);

        let mut out = Output::new();
        if let Some(path) = &self.svg {
            let picture = svg(&stats, &cells, self.by);
            if path.as_os_str() == "-" {
                out.bytes(picture.as_bytes())?;
                return out.finish();
            }
            write_new(path, picture.as_bytes())?;
            note(format_args!("{}: {} drawn", path.display(), counted(extents.len() as u64, "extent")));
        } else {
            self.draw(&mut out, &stats, &cells, extents.len(), width)?;
        }
        for place in &damage {
            out.line(format_args!("damaged: {place}"))?;
        }
        out.finish()?;
        match damage.len() {
            0 => Ok(()),
            places => Err(Failure::Damaged(format!(
                "{}: damaged in {}",
                self.store.display(),
                counted(places as u64, "place")
            ))),
        }
    }

    fn columns(&self) -> usize {
        let asked = self.width.map(usize::from);
        let of_shell = || {
            env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| (20..=1000).contains(n))
        };
        let of_terminal =
            || terminal_size::terminal_size().map(|(columns, _)| usize::from(columns.0)).filter(|&n| n >= 20);
        asked.or_else(of_terminal).or_else(of_shell).unwrap_or(WIDTH_DEFAULT)
    }

    fn draw(
        &self,
        out: &mut Output,
        stats: &Stats,
        cells: &[Cell],
        extents: usize,
        width: usize,
    ) -> Result<(), Failure> {
        let in_colour =
            is_terminal() && !self.ascii && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let per_cell = extents.div_ceil(cells.len().max(1)).max(1);
        let each = match per_cell {
            1 => "a cell is an extent".to_owned(),
            n => format!("a cell is {n} extents"),
        };
        out.line(format_args!(
            "{}: {} in {}; {each}",
            stats.path.display(),
            size(stats.file_size),
            counted(extents as u64, "extent")
        ))?;
        for row in cells.chunks(width.saturating_sub(2).max(1)) {
            let mut line = String::new();
            for cell in row {
                let shape = cell.shape(self.ascii);
                match cell.colour(self.by, stats).filter(|_| in_colour) {
                    Some(colour) => _ = write!(line, "\x1b[38;5;{colour}m{shape}\x1b[0m"),
                    None => line.push(shape),
                }
            }
            out.line(format_args!("  {line}"))?;
        }
        let legend = match self.ascii {
            true => ". empty  1-9 tenths full  # full  I index  ? no region's  X damaged",
            false => "· empty  ░ ▒ ▓ █ full  I index  ? no region's  X damaged",
        };
        out.line(format_args!("  {legend}"))
    }
}

impl Cell {
    fn fill(&self) -> f64 {
        if self.slots == 0 { 0.0 } else { self.used as f64 / self.slots as f64 }
    }

    fn shape(&self, ascii: bool) -> char {
        let tenths = (self.fill() * 10.0).ceil() as usize;
        match self {
            Self { is_damaged: true, .. } => 'X',
            Self { is_unknown: true, .. } => '?',
            Self { is_index: true, .. } => 'I',
            _ if ascii => ['.', '1', '2', '3', '4', '5', '6', '7', '8', '9', '#'][tenths.min(10)],
            _ => ['·', '░', '░', '░', '▒', '▒', '▒', '▓', '▓', '▓', '█'][tenths.min(10)],
        }
    }

    fn colour(&self, by: By, stats: &Stats) -> Option<u8> {
        if self.is_damaged {
            return Some(DAMAGE);
        }
        let region = self.region?;
        Some(match by {
            By::Region => HUES[region as usize % HUES.len()],
            By::Fill => 232 + (self.fill() * 23.0) as u8,
            By::Age => 255 - (self.age(stats) * 20.0) as u8,
        })
    }

    fn rgb(&self, by: By, stats: &Stats) -> String {
        let Some(region) = self.region.filter(|_| !self.is_damaged) else {
            return if self.is_damaged {
                "#d70000"
            } else if self.is_index {
                "#9e9e9e"
            } else {
                "#303030"
            }
            .to_owned();
        };
        let grey = |share: f64| {
            let level = (255.0 - share * 215.0) as u8;
            format!("#{level:02x}{level:02x}{level:02x}")
        };
        match by {
            By::Region => HUES_RGB[region as usize % HUES_RGB.len()].to_owned(),
            By::Fill => grey(self.fill()),
            By::Age => grey(1.0 - self.age(stats)),
        }
    }

    /// 0: written to in the current epoch; 1: long ago, or never.
    fn age(&self, stats: &Stats) -> f64 {
        let epochs = stats.epoch.saturating_sub(self.newest_epoch) as f64;
        epochs / (stats.epoch.max(1) as f64)
    }
}

/// The number of the extent in which a slot lies.
fn extent_of(extents: &[ExtentStats], slot: u32) -> Option<u32> {
    let holds = |e: &&ExtentStats| e.first_slot.is_some_and(|first| slot.wrapping_sub(first) < e.slots);
    extents.iter().find(holds).map(|extent| extent.extent)
}

/// The extents, as at most `cells_max` cells.
fn cells(extents: &[ExtentStats], cells_max: usize, damaged: &HashSet<u32>) -> Vec<Cell> {
    let per_cell = extents.len().div_ceil(cells_max.max(1)).max(1);
    extents
        .chunks(per_cell)
        .map(|part| {
            let all = |usage: fn(&ExtentUse) -> bool| part.iter().all(|e| usage(&e.usage));
            Cell {
                used: part.iter().map(|e| u64::from(e.used_slots)).sum(),
                slots: part.iter().map(|e| u64::from(e.slots)).sum(),
                region: part.iter().find_map(|e| match e.usage {
                    ExtentUse::Slots { region } => Some(region),
                    _ => None,
                }),
                newest_epoch: part.iter().map(|e| e.newest_epoch).max().unwrap_or(0),
                is_index: all(|usage| matches!(usage, ExtentUse::Index)),
                is_unknown: all(|usage| matches!(usage, ExtentUse::Unknown)),
                is_damaged: part.iter().any(|e| damaged.contains(&e.extent)),
            }
        })
        .collect()
}

/// The picture as SVG: a square for each cell.
fn svg(stats: &Stats, cells: &[Cell], by: By) -> String {
    const SIDE: usize = 12;
    const COLUMNS: usize = 64;
    let rows = cells.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (COLUMNS * SIDE + 20, rows * SIDE + 60);
    let name = stats.path.display().to_string();
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"20\">{name}: {}, \
         {}, {}</text>\n",
        size(stats.file_size),
        counted(stats.records, "record"),
        counted(u64::from(stats.extents), "extent"),
    );
    for (n, cell) in cells.iter().enumerate() {
        let (x, y) = (10 + n % COLUMNS * SIDE, 32 + n / COLUMNS * SIDE);
        let side = SIDE - 1;
        let opacity = if by == By::Region && cell.region.is_some() && !cell.is_damaged {
            0.25 + 0.75 * cell.fill()
        } else {
            1.0
        };
        let _ = writeln!(
            picture,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"{}\" fill-opacity=\"{opacity:.2}\"/>",
            cell.rgb(by, stats)
        );
    }
    let what = match by {
        By::Region => "colour: region; strength: fill",
        By::Fill => "darker: fuller",
        By::Age => "darker: written to later",
    };
    let _ = writeln!(
        picture,
        "<text x=\"10\" y=\"{}\">{what}; grey: index; red: damaged</text>\n</svg>",
        height - 12
    );
    picture
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}
