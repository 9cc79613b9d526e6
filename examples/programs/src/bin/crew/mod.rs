//! A crew: worker processes that share out tasks among themselves, through one record of the store, the
//! board. `image_filter` and `matrix_multiply` work this way.
//!
//! The board holds, for each task, whether it is free, taken or done, and by whom. A worker takes a task
//! by `update`, one step that no other process can come between. It does the task, which may be done
//! twice without harm, and marks it as done. When nothing is free it sleeps until the board changes.
//!
//! Who is dead is not guessed from the time that passes: the program started its workers, and the
//! kernel tells it when one has ended. It puts that worker's tasks back, and the others wake up and
//! take them. When the program itself is killed, its workers' standard input ends: they wipe the
//! board, which sends everyone home, and the last to leave removes the store; if that was the program,
//! which could not, its next run does.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::thread;

use bytemuck::{Pod, Zeroable};
use recstore::{Shared, Store};

use crate::common::program::argument;
use crate::common::{Failure, Writer};

/// The record that the board is. The other ids are the program's.
const BOARD: u64 = u64::MAX;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const DONE: u32 = 2;

/// What a worker says when it has attached.
const READY: &str = "ready";
/// What it says when a task is done.
const HAS_DONE: &str = "done";
/// What it says when it waits in the middle of a task to be killed.
const STOPPED: &str = "stopped ";

/// A task on the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Task {
    state: u32,
    worker: u32,
}

impl Task {
    pub(crate) fn is_done(self) -> bool {
        self.state == DONE
    }

    /// Who has taken it or done it.
    pub(crate) fn worker(self) -> Option<u32> {
        (self.state != FREE).then_some(self.worker)
    }
}

/// Bytes that a record must take for a board of so many tasks.
pub(crate) fn board_bytes(tasks: usize) -> usize {
    tasks * size_of::<Task>()
}

/// Every task, as the board has it now.
pub(crate) fn board(store: &Store) -> Result<Vec<Task>, Failure> {
    Ok(store.slices::<Task>()?.get(BOARD)?.unwrap_or_default())
}

/// Changes the board in one step, if there is one and `change` says that it did.
fn change(store: &Store, change: impl FnOnce(&mut [Task]) -> bool) -> recstore::Result<bool> {
    let changed = store.update(BOARD, |old| {
        let mut tasks: Vec<Task> = bytemuck::pod_collect_to_vec(old?);
        change(&mut tasks).then(|| bytemuck::cast_slice(&tasks).to_vec())
    })?;
    Ok(changed.is_some())
}

/// A worker's side.
pub(crate) struct Member<'a> {
    store: &'a Store,
    number: u32,
    is_victim: bool,
    left_alone: Receiver<()>,
}

/// Attaches to the store, does `work` with the arguments that [`Crew::start`] was given, and leaves.
pub(crate) fn join(
    arguments: &[String],
    work: impl FnOnce(&Member<'_>, &[String]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let name: String = argument(arguments, 0)?;
    let store = Arc::new(RwLock::new(Some(Store::shared(&name)?)));
    let (alive, left_alone) = mpsc::channel::<()>();
    thread::spawn({
        let store = Arc::clone(&store);
        move || {
            let _alive = alive;
            let _ = io::stdin().read_to_end(&mut Vec::new());
            // Nobody puts tasks back any more: no tasks, so that nobody waits for one.
            if let Some(store) = store.read().ok().as_deref().and_then(Option::as_ref) {
                let _ = store.put(BOARD, &[]);
            }
        }
    });
    let attached = || {
        let store = store.read().map_err(|_| "a thread panicked")?;
        let store: &Shared = store.as_ref().ok_or("the store is gone")?;
        let (number, is_victim) = (argument(arguments, 1)?, argument(arguments, 2)?);
        say(READY)?;
        work(&Member { store, number, is_victim, left_alone }, &arguments[3..])
    };
    let done = attached();
    // The handle must be gone before this process is, or nobody removes the store.
    drop(store.write().map_err(|_| "a thread panicked")?.take());
    done
}

fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

impl Member<'_> {
    pub(crate) fn store(&self) -> &Store {
        self.store
    }

    /// Takes the task that was dealt to this worker, or the first that is free and that `may_begin`.
    /// Waits until there is one; `None` when all are done.
    pub(crate) fn take(&self, may_begin: impl Fn(&[Task], usize) -> bool) -> Result<Option<usize>, Failure> {
        // It watches before it looks, so that no change falls in between.
        let mut watch = self.store.watch(BOARD)?;
        loop {
            let mut taken = None;
            let mut all_done = false;
            change(self.store, |tasks| {
                all_done = tasks.iter().all(|task| task.is_done());
                let mine = Task { state: TAKEN, worker: self.number };
                taken = tasks
                    .iter()
                    .position(|&task| task == mine)
                    .or_else(|| (0..tasks.len()).find(|&n| tasks[n].state == FREE && may_begin(tasks, n)));
                let changed = taken.is_some_and(|n| tasks[n] != mine);
                if let Some(n) = taken {
                    tasks[n] = mine;
                }
                changed
            })?;
            if taken.is_some() || all_done {
                return Ok(taken);
            }
            watch.wait(None)?;
        }
    }

    /// Marks a task as done.
    pub(crate) fn done(&self, task: usize) -> Result<(), Failure> {
        change(self.store, |tasks| {
            let Some(entry) = tasks.get_mut(task) else { return false };
            *entry = Task { state: DONE, worker: self.number };
            true
        })?;
        say(HAS_DONE)
    }

    /// Where the victim, if this worker is it, says where it is and waits to be killed.
    pub(crate) fn stop_if_victim(&self, place: impl std::fmt::Display) -> Result<(), Failure> {
        if !self.is_victim {
            return Ok(());
        }
        say(format_args!("{STOPPED}{place}"))?;
        let _ = self.left_alone.recv(); // Ends when the program does.
        Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) // nobody is there to be told
    }
}

/// What happens in the crew.
pub(crate) enum Event {
    /// A worker has done a task.
    Done { worker: u32 },
    /// A worker was killed: by us at the place that it had told, or by somebody else. To be followed
    /// by [`Crew::put_back`].
    Died { worker: u32, pid: u32, place: Option<String> },
}

enum Told {
    Line(String),
    Ended(ExitStatus),
    Failed(Failure),
}

/// The program's side.
pub(crate) struct Crew<'a> {
    store: &'a Store,
    arguments: Vec<String>,
    told: Receiver<(u32, Told)>,
    teller: Sender<(u32, Told)>,
    /// Of each worker that was ever started: its process id, and where it stopped.
    workers: Vec<(u32, Option<String>)>,
    alive: u32,
}

impl<'a> Crew<'a> {
    /// Starts workers, the first of them the victim if there is to be one, and waits until all are
    /// attached. They wait for the board.
    pub(crate) fn start(
        store: &'a Shared,
        name: &str,
        count: u32,
        first_is_victim: bool,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, Failure> {
        let (teller, told) = mpsc::channel();
        let arguments = [name.to_owned()].into_iter().chain(arguments).collect();
        let mut crew = Self { store, arguments, told, teller, workers: Vec::new(), alive: 0 };
        for worker in 0..count {
            crew.add(first_is_victim && worker == 0)?;
        }
        for _ in 0..count {
            match crew.told.recv()? {
                (_, Told::Line(line)) if line == READY => {}
                (worker, _) => return Err(format!("worker {worker} did not attach").into()),
            }
        }
        Ok(crew)
    }

    fn add(&mut self, is_victim: bool) -> Result<u32, Failure> {
        let number = self.workers.len() as u32;
        let (name, rest) = self.arguments.split_first().ok_or("no name")?;
        let own = [name.clone(), number.to_string(), is_victim.to_string()];
        let mut writer = Writer::start(own.iter().chain(rest))?;
        self.workers.push((writer.pid(), None));
        self.alive += 1;
        let teller = self.teller.clone();
        thread::spawn(move || {
            let mut listen = || -> Result<ExitStatus, Failure> {
                while let Some(line) = writer.next_line()? {
                    let stopped = line.starts_with(STOPPED);
                    teller.send((number, Told::Line(line)))?;
                    if stopped {
                        writer.kill()?;
                    }
                }
                Ok(writer.wait()?)
            };
            let end = listen().map_or_else(Told::Failed, Told::Ended);
            let _ = teller.send((number, end));
        });
        Ok(number)
    }

    /// Puts up the board. The first task is dealt to the first worker, so that the victim has one for
    /// certain; the others are free.
    pub(crate) fn begin(&self, tasks: usize) -> Result<(), Failure> {
        let mut board = vec![Task { state: FREE, worker: 0 }; tasks];
        if let Some(first) = board.first_mut() {
            first.state = TAKEN;
        }
        self.store.slices()?.put(BOARD, &board)?;
        Ok(())
    }

    /// Waits for the next event; `None` when all workers have gone home.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Failure> {
        while self.alive > 0 {
            let (worker, told) = self.told.recv()?;
            let (pid, place) = self.workers.get_mut(worker as usize).ok_or("an unknown worker")?;
            match told {
                Told::Line(line) => {
                    if line == HAS_DONE {
                        return Ok(Some(Event::Done { worker }));
                    }
                    if let Some(at) = line.strip_prefix(STOPPED) {
                        *place = Some(at.to_owned());
                    }
                }
                Told::Failed(failure) => return Err(failure),
                Told::Ended(status) => {
                    self.alive -= 1;
                    if status.signal().is_some() {
                        return Ok(Some(Event::Died { worker, pid: *pid, place: place.take() }));
                    }
                    if !status.success() {
                        return Err(format!("worker {worker} failed ({status})").into());
                    }
                }
            }
        }
        Ok(None)
    }

    /// Puts back what a dead worker had taken, and gives it. If nobody is left, somebody is hired.
    pub(crate) fn put_back(&mut self, worker: u32) -> Result<Vec<usize>, Failure> {
        let lost = Task { state: TAKEN, worker };
        let mut back = Vec::new();
        change(self.store, |tasks| {
            for (n, task) in tasks.iter_mut().enumerate().filter(|(_, task)| **task == lost) {
                *task = Task { state: FREE, worker: 0 };
                back.push(n);
            }
            !back.is_empty()
        })?;
        if self.alive == 0 && board(self.store)?.iter().any(|task| !task.is_done()) {
            self.add(false)?;
        }
        Ok(back)
    }
}
