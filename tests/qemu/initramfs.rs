//! The machine's root: this test binary as its only program, the libraries that it is linked with, and
//! the kernel modules that its disk needs, in a cpio archive.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What may be a module, in the order in which it is needed. What isn't one is built in.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];

/// The archive.
pub(crate) fn build(kernel: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for dir in ["proc", "sys", "dev", "disk", "modules"] {
        archive.dir(dir);
    }
    archive.file(
        "init",
        &fs::read(std::env::current_exe().expect("the path of the test binary")).expect("its bytes"),
    );
    for library in libraries() {
        let bytes = fs::read(&library).expect("a library that is mapped");
        archive.file(library.strip_prefix("/").expect("an absolute path").to_str().expect("UTF-8"), &bytes);
        let name = library.file_name().expect("a file's path").to_string_lossy();
        if name.starts_with("ld-linux") {
            archive.file(&format!("lib64/{name}"), &bytes); // where programs look for their loader
        }
    }
    for (n, module) in modules(kernel).iter().enumerate() {
        archive.file(&format!("modules/{n:02}"), module);
    }
    archive.end()
}

/// The libraries that this process has mapped.
fn libraries() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("the map of this process");
    let mut paths: Vec<_> = maps.lines().filter_map(|l| l.find('/').map(|at| &l[at..])).collect();
    paths.retain(|p| p.contains(".so"));
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(PathBuf::from).collect()
}

/// The modules that the disk needs, each after those that it depends on.
fn modules(kernel: &Path) -> Vec<Vec<u8>> {
    let mut all = BTreeMap::new();
    find(&kernel.join("modules/kernel"), &mut all);
    let mut chosen = Vec::new();
    for name in MODULES {
        choose(name, &all, &mut chosen);
    }
    chosen.into_iter().map(|(_, bytes)| bytes).collect()
}

fn find(dir: &Path, all: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).expect("the kernel's modules") {
        let path = entry.expect("a directory's entry").path();
        if path.is_dir() {
            find(&path, all);
        } else if let Some((name, _)) =
            path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once(".ko"))
        {
            all.insert(name.replace('-', "_"), path);
        }
    }
}

fn choose(name: &str, all: &BTreeMap<String, PathBuf>, chosen: &mut Vec<(String, Vec<u8>)>) {
    let Some(path) = all.get(name) else { return };
    if chosen.iter().any(|(n, _)| n == name) {
        return;
    }
    let bytes = if path.extension().is_some_and(|e| e == "xz") {
        Command::new("xz").arg("-dc").arg(path).output().expect("xz runs").stdout
    } else {
        fs::read(path).expect("a module")
    };
    let key = b"\0depends=";
    let at = bytes.windows(key.len()).position(|w| w == key).expect("a module says what it depends on");
    let value = &bytes[at + key.len()..];
    let value = &value[..value.iter().position(|b| *b == 0).expect("a string ends")];
    let depends = String::from_utf8_lossy(value).replace('-', "_");
    for other in depends.split(',').filter(|n| !n.is_empty()) {
        choose(other, all, chosen);
    }
    chosen.push((name.to_string(), bytes));
}

/// A cpio archive of the kind that the kernel reads ("newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    dirs: Vec<String>,
}

impl Archive {
    fn dir(&mut self, name: &str) {
        if !self.dirs.iter().any(|d| d == name) {
            self.dirs.push(name.to_string());
            self.entry(name, 0o040_755, &[]);
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        let slashes: Vec<usize> = name.match_indices('/').map(|(at, _)| at).collect();
        for at in slashes {
            self.dir(&name[..at]);
        }
        self.entry(name, 0o100_755, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name's length, check
        for field in
            [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0]
        {
            header.push_str(&format!("{field:08X}"));
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
