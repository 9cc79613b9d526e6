//! What the examples with several processes share: a writer process, which is this program run once
//! more, and what it acknowledges over a pipe.
//!
//! A writer acknowledges a record by a line on its standard output, written after `put` returned. What
//! it has written to the pipe outlives it, so the line is there to be read even if the writer is
//! killed right after it.

#![allow(dead_code, reason = "each example uses a part of this")]

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// Why an example failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The first argument of a process that is a writer.
pub(crate) const WRITER: &str = "--writer";

/// Fails unless the claim holds.
pub(crate) fn check(holds: bool, claim: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("not so: {}", claim()).into()) }
}

/// In a writer: waits until its standard input is closed, by which the process that started it says
/// that it may go on.
pub(crate) fn wait_for_release() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// A writer process, seen from the process that started it. Dropped, it is killed.
pub(crate) struct Writer {
    child: Child,
    acknowledgements: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    /// Starts this program once more, as a writer.
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?)
            .arg(WRITER)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("a writer without a pipe")?;
        Ok(Self { child, acknowledgements: BufReader::new(stdout).lines() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it wrote; waits for it. `None` once the writer has ended.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<String>> {
        self.acknowledgements.next().transpose()
    }

    /// The writer's standard input. Nothing is written to it: a writer that waits, waits for its end,
    /// which comes when this is dropped or when this process dies.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Kills it: SIGKILL, which no process can catch. Returns once the process is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        // `wait` would close the pipe first, and that is how a waiting writer learns that it may go on.
        let stdin = self.stdin();
        self.child.kill()?;
        self.child.wait()?;
        drop(stdin);
        Ok(())
    }

    /// Waits for its end, and gives how it came.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let status = self.child.wait()?;
        check(status.success(), || format!("writer {} ended well ({status})", self.pid()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail only where there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
