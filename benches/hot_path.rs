//! Instructions that `get` and `put` take, counted by callgrind, so that a slower hot path is seen whatever
//! else the machine does.
//!
//! ```text
//! cargo bench --bench hot_path                 count, and compare with benches/instructions.txt
//! cargo bench --bench hot_path -- --accept     count, and make that the new expectation
//! ```
//!
//! Each piece of work is run twice by a child under callgrind, with more repetitions the second time: the
//! difference is what the repetitions take, and nothing else. The stores have a fixed hash key, so that a
//! run puts every record where the last one put it.
//!
//! What is left to chance: the compiler, whose version goes with the counts, and the processor, for which the C
//! library chooses its `memcpy`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use recstore::{Commit, Store};

#[allow(dead_code, reason = "other users need more of it")]
#[path = "../tests/common/superblock.rs"]
mod superblock;

const RECORDS: u64 = 20_000;
const HASH_KEY: u64 = 0x7e57_ab1e;
/// Repetitions of the two runs.
const TIMES: [u64; 2] = [10_000, 30_000];
/// A change beyond this share fails.
const TOLERANCE: f64 = 0.05;
/// The same, if another compiler made the file's counts: its code differs by itself.
const TOLERANCE_OF_COMPILERS: f64 = 0.25;
const COMPILER: &str = "# Counted with ";
const WORKS: [(&str, usize); 11] = [
    ("get", 64),
    ("get", 1024),
    ("get_many", 64),
    ("miss", 64),
    ("put", 64),
    ("put", 1024),
    ("write_many", 64),
    ("batch", 64),
    ("pin", 64),
    ("get_key", 64),
    ("put_key", 64),
];

/// Does a piece of work so many times.
fn work(name: &str, size: usize, times: u64, path: &Path) -> recstore::Result<()> {
    // A ceiling that valgrind's address space has room for.
    // A key of 16 bytes, a name of one, and 8 bytes more.
    let record_size = if name.ends_with("_key") { size + 25 } else { size };
    let options = Store::options().record_size(record_size).max_size(1 << 30);
    let store = superblock::create_seeded(&options, path, HASH_KEY);
    let mut data = vec![7u8; size];
    let space = store.space("s")?;
    let key = |id: u64| u128::from(id).to_le_bytes();
    for id in 0..RECORDS {
        if name.ends_with("_key") {
            space.put(key(id), &data)?;
        } else {
            store.put(id, &data)?;
        }
    }
    let mut out = Vec::with_capacity(size);
    let mut ids = (0..).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % RECORDS);
    let mut next = || ids.next().unwrap_or(0);
    for n in 0..times {
        data[..8].copy_from_slice(&n.to_le_bytes());
        match name {
            "get" => assert!(store.get_into(next(), &mut out)?.is_some()),
            "get_key" => assert!(space.get_into(key(next()), &mut out)?.is_some()),
            "put_key" => drop(space.put(key(next()), &data)?),
            "miss" => assert!(store.get_into(RECORDS + next(), &mut out)?.is_none()),
            "put" => drop(store.put(next(), &data)?),
            // A hundredth of a call.
            "get_many" if n % 100 == 0 => {
                let ids: [u64; 100] = std::array::from_fn(|_| next());
                store.get_many(&ids, |_, found| assert!(found.is_some()))?;
            }
            "write_many" if n % 100 == 0 => {
                let ids: [u64; 100] = std::array::from_fn(|_| next());
                store.write_many(ids.iter().map(|&id| (id, &data[..])))?;
            }
            // A tenth of a commit.
            "batch" if n % 10 == 0 => {
                let mut batch = store.batch();
                for _ in 0..10 {
                    batch.put(next(), &data[..])?;
                }
                assert!(matches!(batch.commit()?, Commit::Done(_)));
            }
            "pin" => assert!(store.pin()?.get(next())?.is_some()),
            _ => {}
        }
    }
    Ok(())
}

/// Instructions of one child's whole life.
fn instructions(name: &str, size: usize, times: u64) -> Result<u64, String> {
    let dir = std::env::temp_dir();
    let path = dir.join(format!("recstore-hot-path-{}-{name}-{size}-{times}.rec", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().map_err(|e| e.to_string())?)
        .args(["--work", name, &size.to_string(), &times.to_string()])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(text.into_owned());
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, n)| n.trim().parse().ok()).ok_or_else(|| text.into_owned())
}

/// The compiler that `cargo` uses, which is what built this a moment ago.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn expectation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn expected(text: &str, name: &str, size: usize) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} {size} ")))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

/// Counts, and compares; the share by which a count may differ, if one differs by more.
fn compare(accept: bool) -> Result<Option<f64>, String> {
    let before = std::fs::read_to_string(expectation()).unwrap_or_default();
    let compiler = compiler();
    let then = before.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("unknown");
    let tolerance = if then == compiler { TOLERANCE } else { TOLERANCE_OF_COMPILERS };
    if then != compiler && !accept {
        let percent = tolerance * 100.0;
        println!(
            "The expected counts are of {then}, and this is {compiler}: {percent:.0} % either way pass.\n"
        );
    }
    let mut after = format!(
        "# Instructions of one operation: see hot_path.rs. Work, bytes of a record, instructions.\n{COMPILER}{compiler}\n"
    );
    let mut good = true;
    println!("{:<12}{:>8}{:>14}{:>14}{:>10}", "work", "bytes", "instructions", "expected", "change");
    for (name, size) in WORKS {
        let [few, many] = TIMES.map(|times| instructions(name, size, times));
        let each = many?.saturating_sub(few?) as f64 / (TIMES[1] - TIMES[0]) as f64;
        after += &format!("{name} {size} {each:.0}\n");
        let Some(was) = expected(&before, name, size) else {
            good = false;
            println!("{name:<12}{size:>8}{each:>14.0}{:>14}{:>10}  NEW", "-", "-");
            continue;
        };
        let change = each / was - 1.0;
        let verdict = match change {
            _ if change > tolerance => "  MORE",
            _ if change < -tolerance => "  FEWER",
            _ => "",
        };
        good &= verdict.is_empty();
        println!("{name:<12}{size:>8}{each:>14.0}{was:>14.0}{:>+9.1}%{verdict}", change * 100.0);
    }
    if accept {
        std::fs::write(expectation(), after).map_err(|e| e.to_string())?;
        return Ok(None);
    }
    Ok((!good).then_some(tolerance))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--work", name, size, times, path] = arguments[..] {
        let done = work(name, size.parse().unwrap_or(64), times.parse().unwrap_or(0), Path::new(path));
        return if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("no valgrind: instructions are not counted");
        return ExitCode::SUCCESS;
    }
    match compare(arguments == ["--accept"]) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(tolerance)) => {
            println!(
                "\nThe hot path changed by more than {:.0} %, or is counted for the first time. If that is as it \
                 should be,\naccept it, and commit benches/instructions.txt:\n\n    \
                 cargo bench --bench hot_path -- --accept\n",
                tolerance * 100.0
            );
            ExitCode::FAILURE
        }
        Err(what) => {
            println!("{what}");
            ExitCode::FAILURE
        }
    }
}
