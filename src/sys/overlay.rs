//! Overlay file systems, and their upper directories.
//!
//! A file of the upper directory has two inodes: its own, and that of the overlay. Both map the same pages, but file locks belong
//! to the inode that was opened. So a process that opens the file in the upper directory would take a process for dead that has
//! it open through the overlay.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::file::directory;

/// The mount point of the overlay in whose upper directory `path` lies, if this process sees one.
pub(crate) fn overlay_above(path: &Path) -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let overlays = overlays(&mounts);
    if overlays.is_empty() {
        return None;
    }
    // A file that is about to be created is where its directory is.
    let path = fs::canonicalize(path).or_else(|_| fs::canonicalize(directory(path))).ok()?;
    let is_above = |upper: &PathBuf| fs::canonicalize(upper).is_ok_and(|upper| path.starts_with(upper));
    overlays.into_iter().find(|(_, upper)| is_above(upper)).map(|(mounted, _)| mounted)
}

/// The mount point and the upper directory of each overlay in a table of mounts.
fn overlays(mounts: &[u8]) -> Vec<(PathBuf, PathBuf)> {
    let overlay = |line: &[u8]| {
        // 36 35 98:0 / /mnt/merged rw,noatime shared:1 - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = words.iter().position(|&word| word == b"-")?;
        if *words.get(dash + 1)? != b"overlay" {
            return None;
        }
        let options = words.get(dash + 3)?;
        let upper =
            options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"upperdir="))?;
        Some((unescaped(words.get(4)?), unescaped(upper)))
    };
    mounts.split(|&byte| byte == b'\n').filter_map(overlay).collect()
}

/// A path as the table writes it: `\040` is a space, and so on.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(escaped) if byte == b'\\' => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_directories_of_overlays_are_read_from_the_table_of_mounts() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            36 35 0:40 / /mnt/a\\040b rw,noatime shared:1 - overlay x rw,lowerdir=/l,upperdir=/up\\054per,workdir=/w\n\
            37 35 0:41 / /ro rw - overlay overlay ro,lowerdir=/l:/m\n\
            nonsense - overlay\n";
        assert_eq!(overlays(table), [(PathBuf::from("/mnt/a b"), PathBuf::from("/up,per"))]);
    }
}
