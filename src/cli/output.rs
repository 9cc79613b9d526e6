//! Standard output and standard error, and the meaning of a failed write.
//!
//! The `print` macros panic when the pipe is closed; everything goes through here instead.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::Failure;

/// Writes a message for the user to standard error. A failure to write it is ignored.
pub(crate) fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "recstore: {message}");
}

/// Set by `--quiet`.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From here on [`note`] says nothing.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether [`note`] says nothing.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a message about success or progress; not with `--quiet`.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    if !is_quiet() {
        say(message);
    }
}

/// Whether these bytes could change how a terminal behaves, or are no text.
pub(crate) fn is_binary(data: &[u8]) -> bool {
    if data.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return false; // As most records are; what follows takes its time.
    }
    match str::from_utf8(data) {
        Ok(text) => text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')),
        Err(_) => true,
    }
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Buffered standard output. Call [`Output::finish`]: unflushed bytes may be lost.
pub(crate) struct Output(BufWriter<io::StdoutLock<'static>>);

impl Output {
    /// Takes standard output.
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        writeln!(self.0, "{text}").map_err(|error| Failure::output(&error))
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Writes the buffered bytes.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        // The inner writer keeps the bytes after the last newline, hence both.
        self.0.flush().map_err(|error| Failure::output(&error))
    }

    /// Hands over the rest.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A number of things: `1 record`, `2 records`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The beginning of a record for people: printable text as it is, all other bytes escaped, so that no
/// record can move the cursor or color the terminal.
pub(crate) fn preview(data: &[u8], chars_max: usize) -> String {
    let head = &data[..data.len().min(chars_max)];
    if head.iter().all(|byte| matches!(byte, b' '..=b'[' | b']'..=b'~')) {
        // As most records are; what follows takes its time.
        let goes_on = if head.len() < data.len() { "…" } else { "" };
        return (String::from_utf8_lossy(head) + goes_on).into_owned();
    }
    let mut shown = String::new();
    let mut left = chars_max;
    for chunk in data.utf8_chunks() {
        for c in chunk.valid().chars() {
            if left == 0 {
                shown.push('…');
                return shown;
            }
            left -= 1;
            match c {
                '"' | '\'' => shown.push(c),
                _ => shown.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            if left == 0 {
                shown.push('…');
                return shown;
            }
            left -= 1;
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_has_no_raw_control_bytes() {
        assert_eq!(preview(b"plain \"text\"", 48), "plain \"text\"");
        assert_eq!(preview(b"\x1b[31m\r\n\0\xff\\", 48), "\\u{1b}[31m\\r\\n\\0\\xff\\\\");
        assert_eq!(preview("\u{202e}🦀".as_bytes(), 48), "\\u{202e}🦀");
    }

    #[test]
    fn a_long_preview_says_that_it_goes_on() {
        assert_eq!(preview(b"abcdef", 6), "abcdef");
        assert_eq!(preview(b"abcdefg", 6), "abcdef…");
        assert_eq!(preview(&[0xff; 3], 2), "\\xff\\xff…");
    }
}
