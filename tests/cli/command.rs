//! Runs the built `recstore` as a user would.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use std::{fmt, fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes a second; a command that takes this long hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A directory of its own for a test's stores.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file in the temporary directory");
        path
    }
}

/// How a command ended.
pub(crate) struct Ended {
    /// The exit code; a signal that killed it is negative.
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.out[..self.out.len().min(2000)];
        write!(f, "exit {}\nout: {}\nerr: {}", self.code, shown.escape_ascii(), self.err)
    }
}

impl Ended {
    /// Standard output, which is to be text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.out).expect("text on standard output")
    }

    /// The command has done what it was asked, and says nothing.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    /// The command has done what it was asked, and says this on standard error.
    #[track_caller]
    pub(crate) fn done_saying(self, what: &str) -> Self {
        self.ended(0, what)
    }

    /// The command has this exit code, and says this on standard error.
    #[track_caller]
    pub(crate) fn ended(self, code: i32, what: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(what), "{what:?} is not in {self:?}");
        for line in self.err.lines().take(usize::from(code != 2)) {
            assert!(line.starts_with("recstore: "), "{self:?}");
        }
        self
    }

    /// The command has this exit code, says this on standard error, and gives no data.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, what: &str) -> Self {
        let ended = self.ended(code, what);
        assert!(ended.out.is_empty(), "{ended:?}");
        ended
    }

    /// Each line of standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.text().lines().map(parse).collect()
    }

    /// The lines of standard output, sorted.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.text().lines().collect();
        lines.sort_unstable();
        lines
    }
}

/// The command with these arguments.
pub(crate) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recstore"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command without input.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    finish(command(args).spawn().expect("the command starts"))
}

/// Runs the command with this input.
pub(crate) fn run_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: impl AsRef<[u8]>) -> Ended {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.as_ref().to_vec();
    // The command may end without reading it all.
    let feeding = thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = finish(child);
    feeding.join().expect("the input is fed");
    ended
}

/// Waits for the end of the command; one that hangs fails the test.
#[track_caller]
pub(crate) fn finish(child: Child) -> Ended {
    let pid = child.id();
    let (is_done, done) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let hangs = done.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout);
        if hangs {
            send(pid, Signal::SIGKILL);
        }
        hangs
    });
    let output = child.wait_with_output().expect("the command is waited for");
    drop(is_done);
    let hung = watchdog.join().expect("the watchdog");
    let err = String::from_utf8(output.stderr).expect("text on standard error");
    assert!(!hung, "the command hangs; it said: {err}");
    let signal = || -output.status.signal().expect("a code or a signal");
    Ended { code: output.status.code().unwrap_or_else(signal), out: output.stdout, err }
}

/// Sends a signal to a process.
pub(crate) fn send(pid: u32, signal: Signal) {
    // Of a process that is gone already, the kernel says so, and that is fine.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// A command that a test talks with, line by line.
pub(crate) struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talk {
    pub(crate) fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = command(args);
        // A process group, as a shell makes one for what it runs on a terminal.
        command.stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the command starts");
        let input = child.stdin.take();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (heard, lines) = mpsc::channel();
        // Until the command ends, or the test hangs up.
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| heard.send(line)));
        Self { child, input, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal as a terminal does for Ctrl-C: to the whole process group.
    pub(crate) fn interrupt(&self, signal: Signal) {
        let group = Pid::from_raw(-self.child.id().cast_signed());
        kill(group, signal).expect("the process group is there");
    }

    /// Types a line.
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(format!("{line}\n").as_bytes()).expect("the command reads");
    }

    /// Takes the input away, to feed it from another thread.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("the input is open")
    }

    /// Waits for the next line that the command prints.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        match self.lines.recv_timeout(HANGS) {
            Ok(line) => line,
            Err(error) => {
                send(self.child.id(), Signal::SIGKILL);
                panic!("no line comes from the command: {error}");
            }
        }
    }

    /// All that it still prints until it ends by itself, and how it ends. The input stays open.
    #[track_caller]
    pub(crate) fn wait(self) -> (Vec<String>, Ended) {
        let Self { child, input, lines } = self;
        let ended = finish(child);
        drop(input);
        (lines.iter().collect(), ended)
    }

    /// Ends the input and waits.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Vec<String>, Ended) {
        self.input = None;
        self.wait()
    }

    /// Closes what the command prints to, then waits.
    #[track_caller]
    pub(crate) fn hang_up(self) -> Ended {
        let Self { child, input, lines } = self;
        drop(lines);
        let ended = finish(child);
        drop(input);
        ended
    }
}

/// The writer processes of a `load`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(path).expect("the kernel lists children");
    list.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn wait_until_gone(pid: u32) {
    let started = std::time::Instant::now();
    while is_running(pid) {
        assert!(started.elapsed() < HANGS, "process {pid} does not end");
        thread::yield_now();
    }
}

fn is_running(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // After the name in parentheses comes the state. A zombie has ended.
        Ok(stat) => !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

/// The arguments of a command, paths and texts mixed.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        [$(std::ffi::OsStr::new(&$arg).to_owned()),*]
    };
}
pub(crate) use args;

/// A store with these records.
pub(crate) fn store_of(dir: &Dir, name: &str, records: &[(u64, &[u8])]) -> PathBuf {
    let path = dir.path(name);
    run(args!["create", path]).done_saying("created");
    for (id, data) in records {
        run_with(args!["write", path, id.to_string()], data).done();
    }
    path
}

/// What a record is, which is to be there.
#[track_caller]
pub(crate) fn read(store: &Path, id: u64) -> Vec<u8> {
    run(args!["read", store, id.to_string()]).done().out
}

/// The records of a store, sorted, as `dump` prints them.
#[track_caller]
pub(crate) fn dump(store: &Path) -> Vec<String> {
    run(args!["dump", store]).done().sorted().into_iter().map(String::from).collect()
}
