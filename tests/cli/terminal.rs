//! On a terminal: the command runs on a pseudo terminal, and a `vt100` parser is what the user sees.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;

use crate::command::{Dir, Talk, args, command, run, run_with, send, store_of, wait_until_gone};

/// Longer than anything here takes.
const HANGS: Duration = Duration::from_secs(60);
const ROWS: u16 = 24;
const WIDTHS: [u16; 3] = [60, 80, 200];

/// A command on a terminal.
struct Terminal {
    child: Child,
    keys: File,
    pieces: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    /// All that was written to the terminal.
    raw: Vec<u8>,
}

/// What of the command is not the terminal.
#[derive(Default)]
struct Else {
    input: Option<Stdio>,
    output: Option<Stdio>,
    term: Option<&'static str>,
}

impl Terminal {
    fn new(args: &[OsString], columns: u16, other: Else) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo terminal");
        let tty = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let mut command = command(args);
        command
            .stdin(other.input.unwrap_or_else(|| tty(&pty.slave)))
            .stdout(other.output.unwrap_or_else(|| tty(&pty.slave)))
            .stderr(tty(&pty.slave))
            .env("TERM", other.term.unwrap_or("xterm-256color"))
            .env_remove("NO_COLOR")
            .env_remove("COLUMNS");
        let slave = pty.slave.as_raw_fd();
        // SAFETY: between fork and exec there are two system calls, and nothing else.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                match libc::ioctl(slave, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let child = command.spawn().expect("the command starts");
        drop(command);
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (seen, pieces) = channel();
        // The terminal ends with an error once the command has ended.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if seen.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys, pieces, parser: vt100::Parser::new(ROWS, columns, 200), raw: Vec::new() }
    }

    fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// Waits until the screen is as it is to be.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            let left = HANGS.saturating_sub(begun.elapsed());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.take(&piece),
                Err(error) => {
                    let _ = self.child.kill();
                    panic!("not seen: {what} ({error}); the screen is\n{screen}");
                }
            }
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.raw.extend_from_slice(piece);
        self.parser.process(piece);
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits for the end: the exit code, the last screen, and all that was written.
    #[track_caller]
    fn end(mut self) -> (i32, String, Vec<u8>) {
        let begun = Instant::now();
        loop {
            match self.pieces.recv_timeout(HANGS.saturating_sub(begun.elapsed())) {
                Ok(piece) => self.take(&piece),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("the command hangs; the screen is\n{}", self.screen());
                }
            }
        }
        let status = self.child.wait().expect("the command is waited for");
        (status.code().unwrap_or(-1), self.screen(), self.raw)
    }
}

fn store_with_records(dir: &Dir) -> PathBuf {
    let store = dir.path("s.rec");
    run(args!["create", store, "--regions", "4", "--slots-per-extent", "16", "--record-size", "64"])
        .done_saying("created");
    let lines: String = (0..1000).map(|id| format!("{{\"id\":{id},\"data\":\"record {id}\"}}\n")).collect();
    run_with(args!["load", store], lines).done_saying("1000 records");
    store
}

#[test]
fn top_shows_alive_stopped_and_dead_processes_at_every_width_and_leaves_the_terminal_as_it_was() {
    let dir = Dir::new();
    let store = store_with_records(&dir);
    for columns in WIDTHS {
        let mut load = Talk::new(args!["load", store, "--ack"]);
        load.say(r#"{"id":3,"data":"three"}"#);
        assert_eq!(load.hear(), "3");
        let mut top = Terminal::new(&args!["top", store, "--interval", "0.05"], columns, Else::default());
        let pid = load.pid().to_string();
        let line_of = |screen: &str| screen.lines().find(|line| line.starts_with(&pid)).map(str::to_owned);
        let screen = top.until("the process", |screen| {
            line_of(screen).is_some_and(|line| line.contains("alive")) && screen.contains("q quit")
        });
        assert!(screen.contains("writes/s") && screen.contains("1000 records"), "{screen}");
        send(load.pid(), Signal::SIGSTOP);
        top.until("stopped", |screen| line_of(screen).is_some_and(|line| line.contains("stopped")));
        send(load.pid(), Signal::SIGKILL);
        wait_until_gone(load.pid());
        top.until("gone or dead", |screen| line_of(screen).is_none_or(|line| line.contains("dead")));
        top.press("s");
        top.until("another order", |screen| screen.contains("sort: writes/s"));
        top.press("p");
        top.until("a pause", |screen| screen.contains("PAUSED"));
        top.press("q");
        let (code, screen, raw) = top.end();
        assert_eq!(code, 0, "{screen}");
        assert!(screen.trim().is_empty(), "something is left on the screen:\n{screen}");
        assert!(
            raw.ends_with(b"\x1b[?25h") || raw.windows(6).any(|w| w == b"\x1b[?25h"),
            "the cursor is back"
        );
    }
}

#[test]
fn the_map_fits_every_terminal_and_shows_damage_in_red() {
    let dir = Dir::new();
    let store = store_with_records(&dir);
    let mut content = fs::read(&store).expect("the store");
    let at = content.windows(10).position(|bytes| bytes == b"record 777").expect("the record's bytes");
    content[at] ^= 1;
    fs::write(&store, content).expect("the store");
    for columns in WIDTHS {
        let map = Terminal::new(&args!["map", store, "--verify"], columns, Else::default());
        let (code, screen, raw) = map.end();
        assert_eq!(code, 3, "{screen}");
        let cells =
            screen.lines().skip_while(|line| !line.starts_with("  ")).take_while(|l| l.starts_with("  "));
        let cells: Vec<&str> = cells.collect();
        assert!(cells.iter().any(|line| line.contains('X')), "{screen}");
        assert!(cells.iter().all(|line| line.chars().count() <= usize::from(columns)), "{screen}");
        assert!(raw.windows(14).any(|bytes| bytes == b"\x1b[38;5;196mX\x1b["), "the damage is red: {screen}");
    }
}

/// A load that has come to the end of what is there, and waits for more.
fn waiting_load(dir: &Dir, other: Else) -> (Terminal, std::io::PipeWriter) {
    let store = store_of(dir, "l.rec", &[]);
    let (input, mut feed) = std::io::pipe().expect("a pipe");
    let other = Else { input: Some(input.into()), ..other };
    let load = Terminal::new(&args!["load", store, "--writers", "2"], 60, other);
    feed.write_all(b"{\"id\":1,\"data\":\"x\"}\n").expect("the command reads");
    (load, feed)
}

#[test]
fn a_bar_is_one_line_of_sixty_columns_and_is_gone_at_the_end() {
    let dir = Dir::new();
    let (mut load, feed) = waiting_load(&dir, Else::default());
    let screen = load.until("a bar", |screen| screen.contains("00:00:"));
    assert_eq!(screen.trim().lines().count(), 1, "{screen}");
    drop(feed);
    let (code, screen, _) = load.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.starts_with("recstore: ") && !screen.contains("00:00:"), "{screen}");
}

#[test]
fn there_is_no_bar_where_something_else_may_write_to_the_terminal() {
    // Nor on a terminal that can't move its cursor.
    for is_piped in [true, false] {
        let dir = Dir::new();
        let output = is_piped.then(Stdio::piped);
        let term = (!is_piped).then_some("dumb");
        let (load, feed) = waiting_load(&dir, Else { output, term, ..Else::default() });
        drop(feed);
        let (code, screen, raw) = load.end();
        assert_eq!(code, 0, "{screen}");
        assert!(!raw.contains(&0x1b) && !screen.contains("00:00:"), "{screen}");
    }
}

#[test]
fn records_on_a_terminal_end_their_line_and_cannot_confuse_it() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[(1, b"text"), (2, b"\x1b[31mred"), (3, b"")]);
    let shown = |args: &[OsString]| Terminal::new(args, 80, Else::default()).end();
    let (code, screen, raw) = shown(&args!["read", store, "1"]);
    assert_eq!((code, screen.as_str(), raw.as_slice()), (0, "text", &b"text\r\n"[..]));
    let (code, screen, raw) = shown(&args!["read", store, "2"]);
    assert!(code == 4 && screen.contains("is binary") && !raw.contains(&0x1b), "{screen}");
    assert_eq!(shown(&args!["read", store, "2", "--binary"]).1, "red");
    run(args!["add", store, "pages/home", "7"]).done();
    assert_eq!(shown(&args!["read", store, "pages/home"]).1, "a counter: 7");
    let (_, screen, raw) = shown(&args!["list", store]);
    assert!(screen.contains("u{1b}[31mred") && !raw.contains(&0x1b), "{screen}");
}

#[test]
fn who_waits_at_a_terminal_is_told_what_to_type() {
    let dir = Dir::new();
    let store = store_of(&dir, "a.rec", &[]);
    let mut write = Terminal::new(&args!["write", store, "1"], 60, Else::default());
    write.until("what to do", |screen| screen.contains("end it with Ctrl-D"));
    write.press("typed\n\x04");
    assert_eq!(write.end().0, 0);
    assert_eq!(run(args!["read", store, "1"]).done().out, b"typed\n");
    let mut load = Terminal::new(&args!["load", store, "--ack"], 60, Else::default());
    load.until("what to do", |screen| screen.contains("end with Ctrl-D"));
    load.press("{\"id\":2,\"data\":\"x\"}\n");
    load.until("that it is loaded", |screen| screen.lines().any(|line| line == "2"));
    load.press("\x03");
    let (code, screen, _) = load.end();
    assert!(code == -1 && screen.contains("interrupted; 1 record was loaded"), "{code}: {screen}");
}

/// The pictures of the README: RECSTORE_PICTURES=examples/pictures cargo test --release --all-features --test cli -- --ignored pictures
#[test]
#[ignore = "needs RECSTORE_PICTURES, the directory for them"]
fn pictures() {
    let pictures = PathBuf::from(std::env::var_os("RECSTORE_PICTURES").expect("RECSTORE_PICTURES"));
    let pictures = fs::canonicalize(pictures).expect("the directory");
    let dir = Dir::new();
    // The paths are short then. This test runs alone.
    std::env::set_current_dir(dir.path("")).expect("the directory");
    let store = PathBuf::from("u.rec");
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/UnicodeData.txt");
    let options = args!["--format", "delimited", "--delimiter", ";", "--id-radix", "16", "--writers", "4"];
    run(args!["load", store, data].into_iter().chain(options)).ended(0, "34924 records");
    let map = pictures.join("map.svg");
    let _ = fs::remove_file(&map);
    run(args!["map", store, "--svg", map]).done_saying("33 extents drawn");

    let mut stopped = Talk::new(args!["load", store, "--ack"]);
    stopped.say(r#"{"id":3,"data":"three"}"#);
    stopped.hear();
    send(stopped.pid(), Signal::SIGSTOP);
    let mut busy = Talk::new(args!["load", store, "--writers", "2", "--format", "delimited"]);
    let mut input = busy.take_input();
    let feeding = thread::spawn(move || {
        (0_u64..).take_while(|n| writeln!(input, "{},record {n}", n % 30_000).is_ok()).count()
    });
    let mut top = Terminal::new(&args!["top", store, "--interval", "0.5"], 100, Else::default());
    let is_busy = |screen: &str| {
        screen.contains("stopped") && screen.lines().any(|l| l.len() > 40 && l.contains("000 writes/s"))
    };
    let mut looks = 0;
    top.until("writes", |screen| {
        looks += u32::from(screen.contains("writes/s") && !screen.contains("\n0 writes/s"));
        looks > 40 || is_busy(screen)
    });
    fs::write(pictures.join("top.svg"), svg(top.parser.screen())).expect("the picture");
    top.press("q");
    top.end();
    send(stopped.pid(), Signal::SIGKILL);
    send(busy.pid(), Signal::SIGKILL);
    feeding.join().expect("the input is fed");
}

/// A screen as a picture.
fn svg(screen: &vt100::Screen) -> String {
    const WIDTH: usize = 8;
    const HEIGHT: usize = 17;
    let (rows, columns) = screen.size();
    let (width, height) = (usize::from(columns) * WIDTH + 20, usize::from(rows) * HEIGHT + 20);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1c1c1c\"/>\n"
    );
    // A run of cells of one look is one text.
    let look = |row, column| {
        let cell = screen.cell(row, column)?;
        let colour = match cell.fgcolor() {
            vt100::Color::Idx(1 | 9) => "#ff5f5f",
            vt100::Color::Idx(3 | 11) => "#ffd700",
            _ => "#d0d0d0",
        };
        Some((colour, cell.inverse(), cell.bold()))
    };
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let Some(run @ (colour, inverse, bold)) = look(row, column) else { break };
            let end = (column..columns).find(|&other| look(row, other) != Some(run)).unwrap_or(columns);
            let text: String = (column..end)
                .filter_map(|column| screen.cell(row, column))
                .map(|cell| if cell.contents().is_empty() { " " } else { cell.contents() })
                .collect();
            let (x, y) = (10 + usize::from(column) * WIDTH, 10 + usize::from(row) * HEIGHT);
            let width = usize::from(end - column) * WIDTH;
            if inverse {
                picture += &format!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{colour}\"/>\n"
                );
            }
            if !text.trim().is_empty() {
                let colour = if inverse { "#1c1c1c" } else { colour };
                let weight = if bold { " font-weight=\"bold\"" } else { "" };
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                picture += &format!(
                    "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" xml:space=\"preserve\" \
                     fill=\"{colour}\"{weight}>{text}</text>\n",
                    y + 13
                );
            }
            column = end;
        }
    }
    picture + "</svg>\n"
}
