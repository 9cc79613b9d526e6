//! Target `cli_load`: arbitrary lines, as `recstore load` reads them.
//!
//! The command's own files are compiled in here, in the places where they look for each other; of the two
//! that deal with processes there is a stand-in. What must hold: no panic; the lines before the first bad
//! one, and no others, give records; a second reading of the lines, written here, agrees about which; each id
//! goes to one writer, its lines in their order; what comes through a writer's pipe is what went in; what
//! `dump` prints of a record loads as the same record.

#[path = "../../src/cli/failure.rs"]
#[allow(dead_code)]
mod failure;
#[path = "../../src/cli/ids.rs"]
#[allow(dead_code)]
mod ids;
#[path = "../../src/cli/jsonl.rs"]
mod jsonl;
#[path = "cli_load/parts.rs"]
#[allow(dead_code)]
mod load;
#[path = "../../src/cli/output.rs"]
#[allow(dead_code)]
mod output;

use std::collections::HashMap;
use std::sync::mpsc;

use self::load::chunk::records;
use self::load::event::Event;
use self::load::input::Input as Lines;
use self::load::lines::{Format, FormatArgs};
use super::disk::Disk;
use super::input::Input;

const RECORD_SIZE: usize = 64;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    format: FormatArgs,
}

/// How the lines are meant.
enum Meant {
    Jsonl,
    Delimited { delimiter: char, column: usize, radix: u32 },
}

/// Reads the lines of the input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let how = input.u8();
    let writers = 1 + usize::from(how >> 4 & 3);
    let (format, meant) = match how % 4 {
        0 => (Format::Jsonl, Meant::Jsonl),
        1 => {
            let Some(both) = arguments(&mut input) else { return };
            both
        }
        _ => {
            let delimiter = [',', ';', '\t', '→'][input.below(4)];
            let column = 1 + input.below(4);
            let radix = if how >> 2 & 1 == 1 { 16 } else { 10 };
            let text = delimiter.to_string().into_bytes();
            (
                Format::Delimited { delimiter: text, column, radix },
                Meant::Delimited { delimiter, column, radix },
            )
        }
    };
    let text = input.rest();
    let (loaded, end) = load(format, text, writers);
    let (expected, is_good) = expected(&meant, text);
    assert_eq!(loaded, expected);
    assert_eq!(end.is_ok(), is_good, "{end:?}");
    for (_, id, data) in &loaded {
        let line = jsonl::encode(*id, data);
        assert!(!line.contains('\n'));
        assert_eq!(jsonl::decode(line.as_bytes()), Ok((*id, data.clone())));
    }
}

/// Arguments as they stand on a command line: the input up to a zero, at spaces.
fn arguments(input: &mut Input<'_>) -> Option<(Format, Meant)> {
    let mut words = vec!["load".to_owned()];
    let mut word = Vec::new();
    loop {
        match input.u8() {
            byte @ (0 | b' ') => {
                words.push(String::from_utf8(std::mem::take(&mut word)).ok()?);
                if byte == 0 {
                    break;
                }
            }
            byte => word.push(byte),
        }
    }
    let format = <Arguments as clap::Parser>::try_parse_from(words).ok()?.format.format().ok()?;
    let meant = match &format {
        Format::Jsonl => Meant::Jsonl,
        Format::Delimited { delimiter, column, radix } => {
            let mut chars = str::from_utf8(delimiter).expect("a character").chars();
            let delimiter = chars.next().expect("a character");
            assert!(chars.next().is_none() && *column > 0 && [10, 16].contains(radix));
            Meant::Delimited { delimiter, column: *column, radix: *radix }
        }
    };
    Some((format, meant))
}

/// A record: its line, its id, its bytes.
type Loaded = (u64, u64, Vec<u8>);

/// Reads the text as the command does.
fn load(format: Format, text: &[u8], writers: usize) -> (Vec<Loaded>, Result<(), String>) {
    let disk = Disk::new(text);
    let lines = Lines::open(Some(disk.path())).expect("a file of lines");
    assert_eq!(lines.bytes(), Some(text.len() as u64));
    let (events, inbox) = mpsc::channel();
    lines.read(format, 0, RECORD_SIZE, writers, events).expect("a thread");
    let mut loaded = Vec::new();
    let mut writer_of = HashMap::new();
    for event in inbox {
        let batch = match event {
            Event::Batch(batch) => batch,
            Event::InputEnd(end) => {
                load::event::join();
                loaded.sort_by_key(|(line, _, _)| *line);
                return (loaded, end);
            }
        };
        for (writer, chunk) in batch.chunks {
            assert!(writer < writers);
            let in_pipe = records(&chunk.frame()[8..]).expect("a chunk");
            assert_eq!(chunk.frame()[..8], (chunk.frame().len() as u64 - 8).to_le_bytes());
            assert_eq!(in_pipe.len(), chunk.origins.len());
            let mut last = 0;
            for (origin, (id, data)) in chunk.origins.iter().zip(in_pipe) {
                assert!(origin.id == id && origin.line > last && data.len() <= RECORD_SIZE);
                assert_eq!(*writer_of.entry(id).or_insert(writer), writer, "id {id}");
                last = origin.line;
                loaded.push((origin.line, id, data.to_vec()));
            }
        }
    }
    panic!("the reader ended without a word");
}

/// The records that are to be loaded, and whether all lines are good.
fn expected(meant: &Meant, text: &[u8]) -> (Vec<Loaded>, bool) {
    let mut records = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        // A byte order mark is no part of the text.
        let line = if number == 1 && line.starts_with(b"\xef\xbb\xbf") { &line[3..] } else { line };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match record(meant, line).filter(|(_, data)| data.len() <= RECORD_SIZE) {
            Some((id, data)) => records.push((number, id, data)),
            None => return (records, false),
        }
    }
    (records, true)
}

fn record(meant: &Meant, line: &[u8]) -> Option<(u64, Vec<u8>)> {
    match meant {
        Meant::Jsonl => {
            let fields: serde_json::Value = serde_json::from_slice(line).ok()?;
            let fields = fields.as_object()?;
            let known = ["id", "data", "base64", "version", "length", "change"];
            if has_a_field_twice(line) || fields.keys().any(|name| !known.contains(&name.as_str())) {
                return None;
            }
            let id = match fields.get("id")? {
                serde_json::Value::String(text) => {
                    number(text, text.get(..2).is_some_and(|t| t.eq_ignore_ascii_case("0x")))?
                }
                id => id.as_u64()?,
            };
            let data = match (fields.get("data"), fields.get("base64")) {
                (Some(data), None) => data.as_str()?.as_bytes().to_vec(),
                (None, Some(data)) => {
                    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data.as_str()?).ok()?
                }
                _ => return None,
            };
            Some((id, data))
        }
        Meant::Delimited { delimiter, column, radix } => {
            // Latin-1 keeps bytes apart that are no text.
            let (mut column, mut rest) = (*column, line);
            let delimiter = delimiter.to_string();
            loop {
                let end = (0..rest.len()).find(|&at| rest[at..].starts_with(delimiter.as_bytes()));
                column -= 1;
                match end {
                    _ if column == 0 => {
                        let text = str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()?;
                        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
                        return Some((number(text, *radix == 16)?, line.to_vec()));
                    }
                    None => return None,
                    Some(end) => rest = &rest[end + delimiter.len()..],
                }
            }
        }
    }
}

/// Whether a line that is a JSON object has two fields of one name.
fn has_a_field_twice(line: &[u8]) -> bool {
    let mut names: Vec<String> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < line.len() {
        let start = at;
        at += 1;
        match line[start] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                while line[at] != b'"' {
                    at += if line[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                // Nothing but a name is followed by a colon.
                if depth == 1 && line[at..].trim_ascii_start().starts_with(b":") {
                    names.push(serde_json::from_slice(&line[start..at]).expect("a string"));
                }
            }
            _ => {}
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    names.len() < count
}

/// A number in digits alone, in hexadecimal with or without 0x.
fn number(text: &str, is_hexadecimal: bool) -> Option<u64> {
    let digits = match is_hexadecimal {
        true => text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text),
        false => text,
    };
    let radix = if is_hexadecimal { 16 } else { 10 };
    if digits.is_empty() {
        return None;
    }
    digits
        .chars()
        .try_fold(0_u64, |sum, c| sum.checked_mul(radix.into())?.checked_add(c.to_digit(radix)?.into()))
}
