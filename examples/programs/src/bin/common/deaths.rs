//! Workers that are killed at any instruction, and those who take over.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Failure, Writer, check};

/// Lines by which a worker that is to be killed tells, on its way, how far it has come.
pub(crate) const REPORTS: u64 = 256;

/// Kills workers at random, one after another, and starts another one in the place of each, until `kills`
/// were killed or all have ended; how many were killed. `rest` says how much a worker has left to do.
pub(crate) fn kill_some(
    workers: Vec<Writer>,
    kills: u64,
    random: &mut StdRng,
    rest: impl Fn(usize) -> u64,
    start: impl Fn(usize) -> Result<Writer, Failure>,
) -> Result<u64, Failure> {
    let reports = (REPORTS * workers.len() as u64 / kills / 2).max(1);
    let mut workers: Vec<Option<Writer>> = workers.into_iter().map(Some).collect();
    let mut killed = 0;
    while killed < kills && workers.iter().any(Option::is_some) {
        let n = random.random_range(0..workers.len());
        let Some(victim) = &mut workers[n] else { continue };
        let mut at_work = true;
        for _ in 0..random.random_range(1..=reports) {
            at_work &= victim.next_line()?.is_some();
        }
        if !at_work {
            workers[n].take().map_or(Ok(()), Writer::finish)?;
            continue;
        }
        // It is in the middle of its work, and dies at any instruction from here on.
        for _ in 0..random.random_range(0..20_000) {
            std::hint::spin_loop();
        }
        victim.kill()?;
        if rest(n) == 0 {
            workers[n] = None; // It was done by then.
            continue;
        }
        killed += 1;
        let mut replacement = start(n)?;
        drop(replacement.stdin());
        workers[n] = Some(replacement);
    }
    for worker in workers.into_iter().flatten() {
        worker.finish()?;
    }
    check(killed > 0, || "a worker was killed before all were done (more work takes longer)".into())?;
    println!("kill -9    {killed} times; each time a new process took over what was not acknowledged");
    Ok(killed)
}
