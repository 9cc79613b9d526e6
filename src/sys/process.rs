//! Facts about processes, for people: only the texts of errors depend on them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// The table of locks is read this many times before a lock is believed not to be in it.
const LOOKS_AT_LOCKS: u32 = 8;

/// The number of this process's PID namespace, or 0 if `/proc` does not tell.
pub(crate) fn pid_namespace() -> u32 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino() as u32)
}

/// Whether a process with this id exists in this process's PID namespace, and has not ended.
pub(crate) fn exists(pid: u32) -> bool {
    let Some(number) = libc::pid_t::try_from(pid).ok().filter(|&number| number > 0) else { return false };
    // SAFETY: signal 0 is not sent; the call only says whether it could be.
    let refused = unsafe { libc::kill(number, 0) } != 0;
    // A process of another user may not be signaled, but exists.
    if refused && std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
        return false;
    }
    // A zombie has ended, though its id exists. The state follows the name, which may hold any characters.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// A process that has a `flock` on the file, by `/proc/locks`: the one that has it exclusively, if there is one.
pub(crate) fn flock_holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    // The table is read in parts. While other processes lock and unlock, lines between two parts may be missing.
    (0..LOOKS_AT_LOCKS).find_map(|_| {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        flock_holder_in(&locks, metadata.dev(), metadata.ino())
    })
}

fn flock_holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let device = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    // btrfs gives other device numbers to `stat` than the kernel has in this table.
    let inode = format!(":{inode}");
    let holders = |is_it: &dyn Fn(&str) -> bool, exclusive: bool| {
        locks.lines().find_map(|line| {
            // 3: FLOCK  ADVISORY  WRITE 4711 fd:00:123456 0 EOF
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "FLOCK", _, kind, pid, place, ..] = words[..] else { return None };
            (is_it(place) && (kind == "WRITE") == exclusive).then(|| pid.parse().ok())?
        })
    };
    let exact = |place: &str| place == device;
    let alike = |place: &str| place.ends_with(&inode);
    holders(&exact, true)
        .or_else(|| holders(&exact, false))
        .or_else(|| holders(&alike, true))
        .or_else(|| holders(&alike, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_flock_is_the_exclusive_one_of_the_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:99 0 EOF\n\
                     2: OFDLCK ADVISORY  WRITE -1 fd:00:99 0 0\n\
                     3: FLOCK  ADVISORY  READ 8 fd:00:99 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 9 fd:01:99 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 12 fd:00:99 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 10 fd:00:99 0 EOF\n\
                     6: FLOCK  ADVISORY  WRITE 11 fd:00:199 0 EOF\n";
        let device = libc::makedev(0xfd, 0);
        assert_eq!(flock_holder_in(locks, device, 99), Some(10));
        let shared = locks.replace("5: FLOCK", "5: POSIX");
        assert_eq!(flock_holder_in(&shared, device, 99), Some(8), "a waiter holds nothing");
        assert_eq!(flock_holder_in(locks, libc::makedev(0, 40), 199), Some(11), "as on btrfs");
        assert_eq!(flock_holder_in(locks, device, 9), None);
        assert_eq!(flock_holder_in("nonsense\n\n1: FLOCK", device, 99), None);
    }

    #[test]
    fn this_process_exists_and_none_without_a_number_does() {
        assert!(exists(std::process::id()) && exists(1));
        assert!(!exists(0) && !exists(u32::MAX) && !exists(i32::MAX as u32));
    }
}
