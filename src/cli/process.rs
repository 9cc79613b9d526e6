//! Facts about a process from the kernel: whether it is stopped, and its command line.

use std::fs;

/// A process, as seen from here. A process id from another PID namespace names no process here, or another one.
pub(crate) struct Process {
    /// Stopped by a signal or a debugger: it keeps its locks until it goes on.
    pub(crate) is_stopped: bool,
    /// Its command line, without control characters.
    pub(crate) command: String,
}

impl Process {
    /// Looks it up.
    pub(crate) fn look(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name in parentheses, which may hold anything, comes the state.
        let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The directory of the program says little and takes room.
        let program = command.split(' ').next().unwrap_or_default();
        let directory = program.rfind('/').map_or(0, |slash| slash + 1);
        let command = &command[directory..];
        let command: String =
            command.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(Self { is_stopped: matches!(state, 'T' | 't'), command })
    }
}

/// The state of a holder of a lock or a seat: `alive`, `stopped`, `dead`; or `inherited`: its process has ended, and another process has
/// its descriptor of the file, with its locks.
pub(crate) fn state_of(pid: u32, pid_exists: Option<bool>, alive: bool) -> &'static str {
    if !alive {
        "dead"
    } else if pid_exists == Some(false) {
        "inherited"
    } else if Process::look(pid).is_some_and(|process| process.is_stopped) {
        "stopped"
    } else {
        "alive"
    }
}
