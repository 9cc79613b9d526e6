//! What the figures were measured on.

use serde_json::{Value as Json, json};

/// Touches memory, which in a fresh virtual machine costs much more the first time.
pub fn touch_memory(bytes: usize) {
    let available =
        field("/proc/meminfo", "MemAvailable:").and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0);
    let mut memory = vec![0u8; bytes.min(available * 1024 / 3)];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let value = line[name.len()..].trim_start_matches([':', '\t', ' ']);
    Some(value.split(" kB").next().unwrap_or(value).trim().to_owned())
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// Machine and versions.
pub fn describe() -> Json {
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory KiB": field("/proc/meminfo", "MemTotal:"),
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "load": first_line("/proc/loadavg"),
        "versions": versions(),
    })
}

/// The peers' versions, from the lock file that this was built with.
pub fn versions() -> Vec<(String, String)> {
    let lock = include_str!("../Cargo.lock");
    let mut found = Vec::new();
    let names = [
        "recstore",
        "heed",
        "lmdb-master-sys",
        "redb",
        "rusqlite",
        "libsqlite3-sys",
        "fjall",
        "dashmap",
        "crc32fast",
    ];
    let mut name = "";
    for line in lock.lines() {
        if let Some(rest) = line.strip_prefix("name = ") {
            name = rest.trim_matches('"');
        } else if let Some(version) = line.strip_prefix("version = ")
            && names.contains(&name)
        {
            found.push((name.to_owned(), version.trim_matches('"').to_owned()));
        }
    }
    found.push(("SQLite".to_owned(), rusqlite::version().to_owned()));
    found
}
