//! How far the workers are.

use std::io::{IsTerminal, stderr};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// What a worker is called in the picture.
pub(crate) fn letter(worker: u32) -> char {
    ('A'..='Z').chain('a'..='z').chain('0'..='9').nth(worker as usize).unwrap_or('?')
}

/// Bars on a terminal, a line for each quarter elsewhere.
pub(crate) struct Progress {
    bars: Option<(MultiProgress, ProgressBar, Vec<ProgressBar>)>,
    tasks: usize,
    done: usize,
}

impl Progress {
    pub(crate) fn new(tasks: usize, workers: u32) -> Self {
        let bars = stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = |template| {
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
            };
            let bar = |name: String, template| {
                let bar = all.add(ProgressBar::new(tasks as u64).with_style(style(template)));
                bar.set_prefix(name);
                bar.tick();
                bar
            };
            let total = bar("all".into(), "{prefix:9} {bar:40} {pos} of {len} tasks");
            let each = (0..workers)
                .map(|worker| bar(format!("worker {}", letter(worker)), "{prefix:9} {bar:40} {pos}"))
                .collect();
            (all, total, each)
        });
        Self { bars, tasks, done: 0 }
    }

    pub(crate) fn advance(&mut self, worker: u32) {
        self.done += 1;
        match &self.bars {
            Some((_, total, each)) => {
                total.inc(1);
                if let Some(bar) = each.get(worker as usize) {
                    bar.inc(1);
                }
            }
            None => {
                let quarter = |done: usize| 4 * done / self.tasks;
                if quarter(self.done) > quarter(self.done - 1) {
                    println!("progress   {} of {} tasks", self.done, self.tasks);
                }
            }
        }
    }

    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            Some((all, ..)) => all.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some((_, total, each)) = &self.bars {
            each.iter().chain([total]).for_each(ProgressBar::abandon);
        }
    }
}
