//! Target `cli_load`: arbitrary rows, as `recstore load` reads them.
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
#[allow(dead_code)]
mod jsonl;
#[path = "cli_load/parts.rs"]
#[allow(dead_code)]
mod load;
#[path = "../../src/cli/output.rs"]
#[allow(dead_code)]
mod output;
#[path = "../../src/cli/target.rs"]
#[allow(dead_code)]
mod target;

use std::collections::HashMap;
use std::sync::mpsc;

use self::load::chunk::{Dealt, records};
use self::load::csv::Csv;
use self::load::event::Event;
use self::load::id_from::{IdFrom, Place};
use self::load::input::{Input as Lines, Reading};
use self::load::lines::{Format, FormatArgs};
use self::load::on_error::{OnError, Rejects};
use self::target::Target;
use super::disk::Disk;
use super::input::Input;

const RECORD_SIZE: usize = 64;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    format: FormatArgs,
}

/// How the rows are meant.
#[derive(Debug)]
enum Meant {
    Jsonl,
    Csv { delimiter: u8, has_header: bool, id: IdFrom, data: Option<Place> },
    Delimited { delimiter: char, id: IdFrom },
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
        2 => {
            let delimiter = [',', ';', '\t', '→'][input.below(4)];
            let id = id_from(how, &mut input);
            let text = delimiter.to_string().into_bytes();
            (Format::Delimited { delimiter: text, id: id.clone() }, Meant::Delimited { delimiter, id })
        }
        _ => {
            let delimiter = [b',', b';', b'\t', b'x'][input.below(4)];
            let has_header = how >> 6 & 1 == 1;
            let id = match has_header && how >> 7 == 1 {
                true => IdFrom::Column { place: Place::Name("id".into()), radix: 10 },
                false => id_from(how, &mut input),
            };
            let data = match input.below(8) {
                number @ 1..5 => Some(Place::Number(number)),
                5 if has_header => Some(Place::Name("data".into())),
                _ => None,
            };
            (
                Format::Csv(Csv::new(delimiter, has_header, id.clone(), data.clone())),
                Meant::Csv { delimiter, has_header, id, data },
            )
        }
    };
    let skips = input.below(4) == 0;
    let skip_lines = input.below(4).saturating_sub(1) as u64;
    let text = input.rest();
    let on_error = if skips { OnError::Skip(Rejects::to(None)) } else { OnError::Stop };
    let reading = Reading { format, skip_lines, record_size: RECORD_SIZE, on_error };
    let (loaded, rejected, end) = load(reading, text, writers);
    let expected = expected(&meant, text, skip_lines, skips);
    let read = (&loaded, rejected);
    assert_eq!(read, (&expected.records, expected.rejected), "{meant:?}: {}", text.escape_ascii());
    assert_eq!(end.is_ok(), expected.is_good, "{meant:?} {}: {end:?}", text.escape_ascii());
    for (_, target, data) in &loaded {
        let line = jsonl::encode(target, data, None);
        assert!(!line.contains('\n'));
        assert_eq!(jsonl::decode(line.as_bytes()), Ok((target.clone(), data.clone(), None)));
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
        Format::Csv(csv) => Meant::Csv {
            delimiter: csv.delimiter,
            has_header: csv.has_header,
            id: csv.id.clone(),
            data: csv.data.clone(),
        },
        Format::Delimited { delimiter, id } => {
            let mut chars = str::from_utf8(delimiter).expect("a character").chars();
            let delimiter = chars.next().expect("a character");
            assert!(chars.next().is_none());
            Meant::Delimited { delimiter, id: id.clone() }
        }
    };
    Some((format, meant))
}

/// A record: its line, its id or key, its bytes.
type Loaded = (u64, Target, Vec<u8>);

/// Bytes of a record.
fn len(target: &Target, data: &[u8]) -> usize {
    match target {
        Target::Id(_) => data.len(),
        Target::Key { space, key } => space.len() + key.len() + 8 + data.len(),
    }
}

/// Where ids come from.
fn id_from(how: u8, input: &mut Input<'_>) -> IdFrom {
    let place = Place::Number(1 + input.below(4));
    match input.below(8) {
        0 => IdFrom::Line,
        1 => IdFrom::Hash(place),
        _ => IdFrom::Column { place, radix: if how >> 2 & 1 == 1 { 16 } else { 10 } },
    }
}

/// Reads the text as the command does: the records, how many rows were rejected, and how it ended.
fn load(reading: Reading, text: &[u8], writers: usize) -> (Vec<Loaded>, u64, Result<(), String>) {
    let disk = Disk::new(text);
    let lines = Lines::open(Some(disk.path())).expect("a file of lines");
    assert_eq!(lines.bytes(), Some(text.len() as u64));
    let (events, inbox) = mpsc::channel();
    lines.read(reading, writers, events).expect("a thread");
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut writer_of = HashMap::new();
    let (mut line, mut rejected) = (0, 0);
    for event in inbox {
        let batch = match event {
            Event::Batch(batch) => batch,
            Event::InputEnd(end) => {
                load::event::join();
                // In CSV a carriage return alone ends a row, but no line.
                loaded.sort();
                return (loaded, rejected, end);
            }
        };
        rejected += batch.rejected;
        for (writer, chunk) in batch.chunks {
            assert!(writer < writers);
            let in_pipe = records(&chunk.frame()[8..]).expect("a chunk");
            assert_eq!(chunk.frame()[..8], (chunk.frame().len() as u64 - 8).to_le_bytes());
            assert_eq!(in_pipe.len(), chunk.origins.len());
            let mut last = 0;
            for (origin, dealt) in chunk.origins.iter().zip(in_pipe) {
                let (target, data) = match dealt {
                    Dealt::Id(id, data) => (Target::Id(id), data),
                    Dealt::Key { space, key, expires_ms, data } => {
                        assert_eq!(expires_ms, origin.expires_ms);
                        (Target::Key { space: space.to_owned(), key: key.to_vec() }, data)
                    }
                };
                assert!(origin.target == target && origin.line >= last);
                assert!(len(&target, data) <= RECORD_SIZE);
                // A load that goes on after the lines of the batches before misses none of this one.
                assert!(line < origin.line);
                assert_eq!(*writer_of.entry(target.clone()).or_insert(writer), writer, "{target}");
                last = origin.line;
                loaded.push((origin.line, target, data.to_vec()));
            }
        }
        line = line.max(batch.line);
    }
    panic!("the reader ended without a word");
}

/// What is to be loaded.
#[derive(Default)]
struct Expected {
    records: Vec<Loaded>,
    rejected: u64,
    is_good: bool,
}

fn expected(meant: &Meant, text: &[u8], skip_lines: u64, skips: bool) -> Expected {
    // A byte order mark is no part of the text.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut expected = Expected::default();
    let mut take = |line: u64, row: &[u8], record: &mut dyn FnMut() -> Option<(Target, Vec<u8>)>| {
        if line <= skip_lines || row.iter().all(u8::is_ascii_whitespace) {
            return true;
        }
        match record().filter(|(target, data)| len(target, data) <= RECORD_SIZE) {
            Some((target, data)) => expected.records.push((line, target, data)),
            None if skips => expected.rejected += 1,
            None => return false,
        }
        true
    };
    expected.is_good = match meant {
        Meant::Csv { delimiter, has_header, id, data } => {
            each_row_of_csv(text, *delimiter, *has_header, id, data.as_ref(), &mut take)
        }
        _ => (1..).zip(text.split(|&byte| byte == b'\n')).all(|(line, row)| {
            let row = row.strip_suffix(b"\r").unwrap_or(row);
            take(line, row, &mut || record(meant, line, row))
        }),
    };
    expected.records.sort();
    expected
}

/// What takes a row of the input: its line, its bytes, and what its record is; `false` at the end.
type Take<'a> = dyn FnMut(u64, &[u8], &mut dyn FnMut() -> Option<(Target, Vec<u8>)>) -> bool + 'a;

/// Whether all of a text is good; read by the `csv` crate, which has other buffers than the command.
fn each_row_of_csv(
    text: &[u8],
    delimiter: u8,
    has_header: bool,
    id: &IdFrom,
    data: Option<&Place>,
    take: &mut Take<'_>,
) -> bool {
    let rows = rows_of_csv(text, delimiter);
    let with_a_newline = rows_of_csv(&[text, b"\n"].concat(), delimiter);
    let is_open = rows.last().map(|row| &row.2) != with_a_newline.last().map(|row| &row.2);
    let mut rows = &rows[..rows.len() - usize::from(is_open)];
    let mut names: Option<Vec<&[u8]>> = None;
    if has_header {
        let Some((header, rest)) = rows.split_first() else { return !is_open };
        names = Some(header.2.iter().map(<[u8]>::trim_ascii).collect());
        rows = rest;
    }
    let position = |place: &Place| match (place, &names) {
        (Place::Number(number), None) => Some(*number),
        (Place::Number(number), Some(names)) => (*number <= names.len()).then_some(*number),
        (Place::Name(name), Some(names)) => {
            let found: Vec<usize> = (1..=names.len()).filter(|n| names[n - 1] == name.as_bytes()).collect();
            (found.len() == 1).then(|| found[0])
        }
        (Place::Name(_), None) => None,
    };
    let places = [id.place(), data];
    if names.is_some() && places.iter().flatten().any(|place| position(place).is_none()) {
        return false;
    }
    let exported = |name: &[u8]| {
        let names = names.as_ref().filter(|_| data.is_none())?;
        let known: [&[u8]; 4] = [b"id", b"version", b"data", b"base64"];
        let all_known = names.iter().all(|name| known.contains(name)) && names.contains(&&b"data"[..]);
        names.iter().position(|n| *n == name).filter(|_| all_known)
    };
    let mut columns = names.as_ref().map(Vec::len);
    let all_good = rows.iter().all(|(line, row, fields)| {
        take(*line, row, &mut || {
            // Without a header, the first row that is not passed over says how many columns there are.
            if *columns.get_or_insert(fields.len()) != fields.len() {
                return None;
            }
            let column = |place: &Place| fields.get(position(place)?.checked_sub(1)?);
            let id = id_of(id, *line, id.place().map(column))?;
            let data = match (data, exported(b"data"), exported(b"base64")) {
                (Some(place), ..) => column(place)?.to_vec(),
                (None, None, _) => row.clone(),
                (None, Some(data), base64) => match base64.map(|at| &fields[at]) {
                    None | Some(b"") => fields[data].to_vec(),
                    Some(base64) if fields[data].is_empty() => {
                        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).ok()?
                    }
                    Some(_) => return None,
                },
            };
            Some((Target::Id(id), data))
        })
    });
    all_good && !is_open
}

/// The rows: the line, the bytes, the columns.
fn rows_of_csv(text: &[u8], delimiter: u8) -> Vec<(u64, Vec<u8>, ::csv::ByteRecord)> {
    // Behind a first blank line the reader takes a second byte order mark for text, as it is.
    let text = &[b"\n", text].concat()[..];
    let mut reader =
        ::csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text);
    let mut rows = Vec::new();
    let mut columns = ::csv::ByteRecord::new();
    let mut begin = 0;
    while reader.read_byte_record(&mut columns).expect("bytes in memory") {
        let end = reader.position().byte() as usize;
        let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
        begin += text[begin..end].iter().take_while(|byte| is_blank(byte)).count();
        let line = text[..begin].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let row = &text[begin..end];
        let row = if row.last().is_some_and(is_blank) { &row[..row.len() - 1] } else { row };
        rows.push((line, row.to_vec(), columns.clone()));
        begin = end;
    }
    rows
}

fn id_of(id: &IdFrom, line: u64, column: Option<Option<&[u8]>>) -> Option<u64> {
    match id {
        IdFrom::Line => Some(line),
        IdFrom::Hash(_) => Some(ids::hash(column??)),
        IdFrom::Column { radix, .. } => {
            let text = str::from_utf8(column??).ok()?;
            number(text.trim_matches(|c: char| c.is_ascii_whitespace()), *radix == 16)
        }
    }
}

fn record(meant: &Meant, number_of_line: u64, line: &[u8]) -> Option<(Target, Vec<u8>)> {
    match meant {
        Meant::Jsonl => {
            let fields: serde_json::Value = serde_json::from_slice(line).ok()?;
            let fields = fields.as_object()?;
            let of_data = ["data", "base64", "version", "length", "change"];
            let of_name: &[&str] =
                if fields.contains_key("space") { &["space", "key", "key64", "expires_ms"] } else { &["id"] };
            let known = [&of_data[..], of_name].concat();
            if has_a_field_twice(line) || fields.keys().any(|name| !known.contains(&name.as_str())) {
                return None;
            }
            let from_base64 =
                |text| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok();
            let key = match (fields.get("key"), fields.get("key64")) {
                (Some(text), None) => text.as_str().map(|text| text.as_bytes().to_vec()),
                (None, Some(text)) => text.as_str().and_then(from_base64),
                _ => None,
            };
            let id = || match fields.get("id")? {
                serde_json::Value::String(text) if text.starts_with("hash:") => {
                    Some(ids::hash(&text.as_bytes()[5..]))
                }
                serde_json::Value::String(text) => {
                    number(text, text.get(..2).is_some_and(|t| t.eq_ignore_ascii_case("0x")))
                }
                id => id.as_u64(),
            };
            let target = match fields.get("space") {
                Some(space) => Target::Key { space: space.as_str()?.to_owned(), key: key? },
                None => Target::Id(id()?),
            };
            let data = match (fields.get("data"), fields.get("base64")) {
                (Some(data), None) => data.as_str()?.as_bytes().to_vec(),
                (None, Some(data)) => from_base64(data.as_str()?)?,
                _ => return None,
            };
            if let Some(at) = fields.get("expires_ms") {
                at.as_u64()?;
                if len(&target, &data) + 16 > RECORD_SIZE {
                    return None;
                }
            }
            Some((target, data))
        }
        Meant::Csv { .. } => unreachable!("CSV has rows"),
        Meant::Delimited { delimiter, id } => {
            let column = |place: &Place| {
                let Place::Number(mut column) = *place else { return None };
                let mut rest = line;
                let delimiter = delimiter.to_string();
                loop {
                    let end = (0..rest.len()).find(|&at| rest[at..].starts_with(delimiter.as_bytes()));
                    column -= 1;
                    match end {
                        _ if column == 0 => return Some(&rest[..end.unwrap_or(rest.len())]),
                        None => return None,
                        Some(end) => rest = &rest[end + delimiter.len()..],
                    }
                }
            };
            Some((Target::Id(id_of(id, number_of_line, id.place().map(column))?), line.to_vec()))
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
