//! How one test becomes several processes: its binary runs itself again as a *worker*.
//!
//! A worker is told its role by an environment variable and talks with the test over a socket that
//! is its standard input: lines or bytes, both ways. What a worker sent before SIGKILL arrives; then
//! the socket ends. Whoever waits, waits for a message or for the end, never for a time; the bound
//! of a minute only turns a hang into a failure.
//!
//! Every module that starts workers has a test `child_entry`, which does nothing unless it is one. Which one runs, the place
//! tells that starts the worker: a module of `tests/NAME/main.rs` has its own.

// Every test binary uses a part of this.
#![allow(dead_code)]

pub(crate) mod superblock;
pub(crate) mod value;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Longer than anything here takes on a busy machine: past it, it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const ROLE: &str = "RECSTORE_TEST_ROLE";
const SEED: &str = "RECSTORE_SEED";
const NO_SKIP: &str = "RECSTORE_NO_SKIP";

/// What a worker's line begins with when it can't do its part here; the reason follows.
pub(crate) const SKIPPED: &str = "skipped: ";

/// Whether a search tries all that it tries in an ordinary run, or a part: a build with debug assertions is several times as
/// slow. With `RECSTORE_WHOLE_SEARCH=1` it tries all the same, as in `.ci/run`.
pub(crate) fn is_whole_search() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("RECSTORE_WHOLE_SEARCH").is_some()
}

/// The stride of a search, from that of a whole one.
pub(crate) fn share(stride: i64) -> i64 {
    if is_whole_search() { stride } else { 3 * stride }
}

/// Says that a test, or a part of it, is skipped, and why. Where `RECSTORE_NO_SKIP` is set, that is a failure: a run
/// that can do everything does not pass by doing less.
pub(crate) fn skipped(why: impl std::fmt::Display) {
    assert!(std::env::var_os(NO_SKIP).is_none(), "skipped, and {NO_SKIP} is set: {why}");
    // Not by a macro: the harness keeps to itself what those print in a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A random generator whose seed is printed, and taken back from `RECSTORE_SEED`.
pub(crate) fn seeded() -> StdRng {
    StdRng::seed_from_u64(seed())
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let seed = number_from_env(SEED).unwrap_or_else(rand::random);
    println!("replay with {SEED}={seed}");
    seed
}

/// A number from the environment.
pub(crate) fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A directory that goes when it is dropped.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("recstore-test-").tempdir().expect("a temporary directory")
}

/// Yields until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited for a minute: {what}");
        std::thread::yield_now();
    }
}

/// The user that this process acts as.
pub(crate) fn user() -> u32 {
    std::fs::metadata("/proc/self").expect("/proc").uid()
}

/// A process that plays a role of this test binary. Killed when dropped.
pub(crate) struct Worker {
    role: String,
    child: Child,
    stream: BufReader<UnixStream>,
}

impl Worker {
    /// Starts a worker; `with` is its environment.
    #[track_caller]
    pub(crate) fn spawn(role: &str, with: &[(&str, &str)]) -> Self {
        Self::start(role, with, CloneFlags::empty()).expect("a worker")
    }

    /// Starts a worker that has unshared namespaces (and a user namespace too unless we are root);
    /// fails where that is not allowed. In a new PID namespace it is process 1, and what is spawned
    /// here is its parent.
    #[track_caller]
    pub(crate) fn spawn_in(
        namespaces: CloneFlags,
        role: &str,
        with: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        let user = if user() == 0 { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
        Self::start(role, with, namespaces | user)
    }

    #[track_caller]
    fn start(role: &str, with: &[(&str, &str)], namespaces: CloneFlags) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = command(role, with, theirs.into());
        if !namespaces.is_empty() {
            let ids = std::fs::metadata("/proc/self")?;
            let maps = [format!("0 {} 1", ids.uid()), format!("0 {} 1", ids.gid())];
            // SAFETY: runs between fork and exec, and makes system calls only.
            unsafe { command.pre_exec(move || unshare_and_enter(namespaces, &maps)) };
        }
        let child = command.spawn()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { role: role.to_string(), child, stream: BufReader::new(ours) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) {
        let mut line = line.to_string();
        line.push('\n');
        // A worker that is gone doesn't hear; whoever waits for its answer will see that.
        let _ = self.stream.get_mut().write_all(line.as_bytes());
    }

    /// Waits for a line; `None` when the worker is gone.
    pub(crate) fn line(&mut self) -> Option<String> {
        read_line(&mut self.stream, &self.role)
    }

    /// Waits for this very line.
    pub(crate) fn expect(&mut self, line: &str) {
        match self.line() {
            Some(said) if said == line => {}
            said => panic!("worker {}: said {said:?} where {line:?} was due", self.role),
        }
    }

    /// Waits for a line and gives it.
    pub(crate) fn hear(&mut self) -> String {
        let heard = self.line();
        heard.unwrap_or_else(|| panic!("worker {} ended ({:?})", self.role, self.child.wait()))
    }

    /// Another handle on the socket, to read messages from in a thread.
    pub(crate) fn stream(&self) -> UnixStream {
        self.stream.get_ref().try_clone().expect("a descriptor")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a worker that was not waited for");
    }

    /// Ends the conversation: the worker reads the end.
    pub(crate) fn hang_up(&self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Both).expect("a socket");
    }

    /// SIGKILL; gone when this returns.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().expect("a child")
    }

    /// SIGSTOP; stopped when this returns.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        self.wait_until_stopped();
    }

    /// Waits until somebody has stopped it.
    pub(crate) fn wait_until_stopped(&self) {
        assert!(self.stops(), "worker {} ended and was not stopped", self.role);
    }

    /// Waits until somebody has stopped it, or it has ended: whether it is stopped. It can be waited for afterwards.
    pub(crate) fn stops(&self) -> bool {
        let how = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(Pid::from_raw(self.child.id() as i32)), how).expect("a child");
        matches!(status, WaitStatus::Stopped(..))
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// Waits for a good end.
    pub(crate) fn finish(&mut self) {
        let status = self.wait();
        assert!(status.success(), "worker {}: {status}", self.role);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Unshares namespaces. A new PID namespace is entered by a child only: that goes on, and the
/// process itself waits for it, and ends as it did. The maps make us root in a new user namespace.
fn unshare_and_enter(namespaces: CloneFlags, [users, groups]: &[String; 2]) -> std::io::Result<()> {
    nix::sched::unshare(namespaces)?;
    if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        // Before exec, which would take the new namespace's capabilities from a user without a name.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", users)?;
        std::fs::write("/proc/self/gid_map", groups)?;
    }
    if !namespaces.contains(CloneFlags::CLONE_NEWPID) {
        return Ok(());
    }
    // SAFETY: this process has one thread, and makes system calls only until it ends or execs.
    unsafe {
        let child = libc::fork();
        match child {
            -1 => Err(std::io::Error::last_os_error()),
            0 => {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            }
            child => {
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                let mut status = 0;
                libc::waitpid(child, &mut status, 0);
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 })
            }
        }
    }
}

/// The test that a worker runs which is started there: that of the module below the `main.rs` of the binary.
fn entry(place: &Location<'_>) -> String {
    let (_, path) = place.file().rsplit_once("tests/").expect("a file of a test");
    let module = path.split_once('/').and_then(|(_, below)| below.split(['/', '.']).next());
    match module.filter(|module| *module != "main") {
        Some(module) => format!("{module}::child_entry"),
        None => "child_entry".into(),
    }
}

/// A command that runs this test binary in a role, with `stdin` to talk over.
#[track_caller]
fn command(role: &str, with: &[(&str, &str)], stdin: OwnedFd) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of the test binary"));
    command.arg(entry(Location::caller())).args(["--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).envs(with.iter().copied());
    command.stdin(Stdio::from(stdin)).stdout(Stdio::null());
    command
}

fn read_line(from: &mut impl BufRead, who: &str) -> Option<String> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(_) => line.strip_suffix('\n').map(str::to_string),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(e) => panic!("{who}: silent for a minute ({e})"),
    }
}

/// What a worker says to show that it goes on.
pub(crate) const GOES_ON: &str = ".";

/// Runs a role in a process of its own and fails if it fails. What it says is printed.
#[track_caller]
pub(crate) fn alone(role: &str, with: &[(&str, &str)]) {
    attend(Worker::spawn(role, with));
}

/// The same in namespaces of its own, or says that it was skipped, and why.
#[track_caller]
pub(crate) fn alone_in(namespaces: CloneFlags, role: &str, with: &[(&str, &str)]) {
    match Worker::spawn_in(namespaces, role, with) {
        Ok(worker) => attend(worker),
        Err(e) => skipped(format_args!("no namespaces of our own: {e}")),
    }
}

fn attend(mut worker: Worker) {
    while let Some(line) = worker.line() {
        match line.strip_prefix(SKIPPED) {
            Some(why) => skipped(why),
            None if line == GOES_ON => {}
            None => println!("{line}"),
        }
    }
    worker.finish();
}

/// A worker's side: its role, and the socket to the test.
pub(crate) struct Me {
    pub(crate) role: String,
    stream: BufReader<UnixStream>,
}

impl Me {
    /// What this process is to play, if it is a worker.
    pub(crate) fn from_env() -> Option<Self> {
        let role = std::env::var(ROLE).ok()?;
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        Some(Self { role, stream: BufReader::new(stdin.into()) })
    }

    /// What the test passed in the environment.
    pub(crate) fn var(&self, name: &str) -> String {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
    }

    /// Sends a line. Ends the process when the test is gone.
    pub(crate) fn say(&mut self, line: &str) {
        self.send(format!("{line}\n").as_bytes());
    }

    /// Sends bytes, likewise.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.stream.get_mut().write_all(bytes).is_err() {
            std::process::exit(2);
        }
    }

    /// Waits for a line. Ends the process when the test is gone.
    pub(crate) fn line(&mut self) -> String {
        match read_line(&mut self.stream, "the test") {
            Some(line) => line,
            None => std::process::exit(2),
        }
    }

    /// Waits until the test has gone.
    pub(crate) fn wait_for_the_end(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }
}

/// Forks. The child runs `body` and ends with its result, or with 99 if it panics. Only for workers
/// that have a single thread at work.
pub(crate) fn in_fork(body: impl FnOnce() -> i32) -> Pid {
    // SAFETY: this process is a worker; its other thread, if any, is the test harness's and waits
    // for this one, so it holds no lock that the child could need.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(99);
            // SAFETY: ends this process without running what the parent registered for its own end.
            unsafe { libc::_exit(code) }
        }
    }
}

/// How a forked child ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum End {
    Exited(i32),
    Killed,
}

/// Waits for a forked child: it exits or dies of SIGKILL; nothing else.
pub(crate) fn wait_for(child: Pid) -> End {
    match waitpid(child, None).expect("a child") {
        WaitStatus::Exited(_, code) => End::Exited(code),
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => End::Killed,
        other => panic!("a child ended otherwise: {other:?}"),
    }
}

/// Writes a store as the disk may be after a loss of power: each sector as it was at the flush, or as it is now.
#[cfg(feature = "testing")]
pub(crate) fn lose_power(
    image: &std::path::Path,
    synced: &[u8],
    now: &[u8],
    share: f64,
    rng: &mut impl rand::Rng,
) {
    let mut bytes = now.to_vec();
    for (at, sector) in synced.chunks(512).enumerate() {
        if rng.random_bool(share) {
            bytes[at * 512..][..sector.len()].copy_from_slice(sector);
        }
    }
    std::fs::write(image, bytes).unwrap();
    recstore::testing::set_boot_id(image).unwrap();
}
