//! Progress of long work, on standard error, when that is a terminal. In a pipe there is none.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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

/// A sign of life for work that does not say how far it is.
pub(crate) fn working(message: &'static str) -> ProgressBar {
    let spinner = spinner("{elapsed_precise} {spinner} {msg}");
    spinner.set_message(message);
    if !spinner.is_hidden() {
        spinner.enable_steady_tick(Duration::from_millis(100));
    }
    spinner
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
    if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND)
    } else {
        ProgressDrawTarget::hidden()
    }
}
