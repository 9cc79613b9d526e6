//! Child processes: started, brought to the same line, sent off together.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use crate::clock::Outcome;
use crate::work::Job;

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

fn start(job: &Job) -> Running {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--child")
        .arg(job.to_json().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    Running { child, out }
}

impl Running {
    fn is_ready(&mut self) -> bool {
        let mut line = String::new();
        self.out.read_line(&mut line).is_ok() && line == "ready\n"
    }

    fn go(&mut self) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(b"go\n");
    }

    fn finish(mut self) -> Option<Vec<Outcome>> {
        let mut text = String::new();
        self.out.read_to_string(&mut text).ok()?;
        if !self.child.wait().ok()?.success() {
            return None;
        }
        let all: Json = serde_json::from_str(&text).ok()?;
        let number = |j: &Json| j.as_f64().unwrap_or(0.0);
        let pairs = |j: &Json| j.as_array().cloned().unwrap_or_default();
        Some(
            pairs(&all)
                .iter()
                .map(|o| Outcome {
                    ops: number(&o["ops"]) as u64,
                    seconds: number(&o["seconds"]),
                    cpu_seconds: number(&o["cpu_seconds"]),
                    ops_in_all: number(&o["ops_in_all"]) as u64,
                    latencies: pairs(&o["latencies"])
                        .iter()
                        .map(|p| (number(&p[0]) as u64, number(&p[1]) as u64))
                        .collect(),
                    extra: pairs(&o["extra"])
                        .iter()
                        .map(|p| (p[0].as_str().unwrap_or_default().to_owned(), number(&p[1])))
                        .collect(),
                })
                .collect(),
        )
    }
}

/// Runs the jobs side by side; what their workers measured. `None`: one of them failed.
pub fn run(jobs: &[Job]) -> Option<Vec<Outcome>> {
    let mut children: Vec<Running> = jobs.iter().map(start).collect();
    let all_ready = children.iter_mut().all(Running::is_ready);
    if !all_ready {
        for child in &mut children {
            let _ = child.child.kill();
        }
    }
    children.iter_mut().for_each(Running::go);
    let outcomes: Vec<_> = children.into_iter().map(Running::finish).collect();
    Some(outcomes.into_iter().collect::<Option<Vec<_>>>()?.concat())
}

/// A child that has a store open until it is let go.
pub struct Keeper(Option<Running>);

impl Keeper {
    pub fn start(job: &Job) -> Self {
        let mut running = start(job);
        running.is_ready();
        Self(Some(running))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(mut running) = self.0.take() {
            running.go();
            running.finish();
        }
    }
}

/// Runs the job for a while and kills it, as `kill -9` does.
pub fn run_and_kill(job: &Job, after: Duration) {
    let mut running = start(job);
    if running.is_ready() {
        running.go();
        std::thread::sleep(after);
    }
    let _ = running.child.kill();
    let _ = running.child.wait();
}
