//! Progress of long work, on standard error. It is shown only on a terminal to which no other program writes meanwhile: standard output
//! must not be a pipe, because its reader may write to the terminal too. Commands that print records to a terminal as they go
//! have no bar either.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recstore::Progress;

use super::output::is_quiet;

const REDRAWS_PER_SECOND: u8 = 10;

/// A bar that counts bytes of input; without a known total, what came by.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => bar(total, "{elapsed_precise} {wide_bar} {bytes}/{total_bytes} {eta} {msg}"),
        None => spinner("{elapsed_precise} {spinner} {bytes} {bytes_per_sec} {msg}"),
    }
}

/// A bar that counts records.
pub(crate) fn records(total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => bar(total, "{elapsed_precise} {wide_bar} {human_pos}/{human_len} {eta}"),
        None => spinner("{elapsed_precise} {spinner} {human_pos} records"),
    }
}

/// Does work that tells its progress, with a bar.
pub(crate) fn of_work<T>(message: &'static str, work: impl FnOnce(&dyn Fn(Progress)) -> T) -> T {
    let bar = bar(100, "{elapsed_precise} {msg} {wide_bar} {percent} % {eta}");
    bar.set_message(message);
    keep_moving(&bar);
    let done = work(&|at| {
        bar.set_length(at.total);
        bar.set_position(at.done);
    });
    bar.finish_and_clear();
    done
}

/// Does work that does not tell its progress, with a sign of life.
pub(crate) fn while_working<T>(message: &'static str, work: impl FnOnce() -> T) -> T {
    let spinner = spinner("{elapsed_precise} {spinner} {msg}");
    spinner.set_message(message);
    keep_moving(&spinner);
    let done = work();
    spinner.finish_and_clear();
    done
}

fn keep_moving(bar: &ProgressBar) {
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
}

fn bar(total: u64, template: &str) -> ProgressBar {
    styled(ProgressBar::with_draw_target(Some(total), target()), template)
}

fn spinner(template: &str) -> ProgressBar {
    styled(ProgressBar::with_draw_target(None, target()), template)
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn target() -> ProgressDrawTarget {
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stderr().is_terminal() && !is_dumb && !is_quiet() && !output_is_pipe() {
        ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND)
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn output_is_pipe() -> bool {
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let kind = output.and_then(|output| output.metadata()).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}
