//! `recstore read`: the bytes of records, as they are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use recstore::{Record, Store, ValueShape};
use serde_json::{Map, Value};

use super::access::Access;
use super::failure::Failure;
use super::jsonl;
use super::output::{Output, is_binary, is_terminal, say};
use super::target::{self, Target};

/// Print records
///
/// The bytes as they are. One record: nothing is added; but on a terminal a newline, if the record ends without one, and a
/// record that is binary is refused there. Several: each is followed by a newline, or what --separator says. Exit
/// code 1 if one of them is absent; the others are printed.
#[derive(clap::Args)]
#[command(
    visible_alias = "get",
    alias = "cat",
    after_help = "\
Examples:
  recstore read s.rec 7                        one record
  recstore read s.rec 7 > seven.png            its bytes as they are
  recstore read s.rec sessions/user:7          the value of a key
  recstore read s.rec 1 2 3 --json             with versions and lengths, one object a line
  recstore list s.rec | awk '{print $1}' | recstore read s.rec --ids - --separator ''"
)]
pub(crate) struct Read {
    /// The store
    store: PathBuf,
    /// The records' ids, decimal or 0x-hex, or their keys
    #[arg(value_name = "ID|SPACE/KEY", value_parser = target::parse, required_unless_present = "ids")]
    id: Vec<Target>,
    /// Take further ids and keys from this file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// The text after each record; \n, \t and \0 are understood [default: none after a single record, \n after
    /// each of several]
    #[arg(long, value_name = "TEXT")]
    separator: Option<OsString>,
    /// Print binary records on a terminal too
    #[arg(long)]
    binary: bool,
    /// Print {"id", "version", "length", "data"}, with "base64" instead of "data" if the bytes
    /// are not UTF-8, "expires_ms" if a key has a deadline, and "shape" with what the value says that it is, such as a counter; one
    /// object a line
    #[arg(long, conflicts_with_all = ["separator", "binary"])]
    json: bool,
}

impl Read {
    pub(crate) fn run(&self, access: &Access) -> Result<(), Failure> {
        let mut wanted = self.id.clone();
        if let Some(file) = &self.ids {
            wanted.extend(target::read_all(file)?);
        }
        let store = access.read(&self.store)?;
        let separator = match &self.separator {
            Some(separator) => unescape(separator.as_bytes()),
            None if self.ids.is_some() || wanted.len() > 1 => b"\n".to_vec(),
            None => Vec::new(),
        };
        let mut out = Output::new();
        let mut absent = Vec::new();
        for target in wanted {
            match target.get(&store)? {
                Some(record) => self.show(&mut out, &store, &target, &record, &separator)?,
                None => absent.push(target),
            }
        }
        out.finish()?;
        absent_of(&store, &absent)
    }

    fn show(
        &self,
        out: &mut Output,
        store: &Store,
        target: &Target,
        record: &Record,
        separator: &[u8],
    ) -> Result<(), Failure> {
        if self.json {
            let mut fields = Map::new();
            jsonl::insert_target(&mut fields, target);
            jsonl::insert_expiry(&mut fields, target.expires_ms(store)?);
            fields.insert("version".into(), record.version().get().into());
            fields.insert("length".into(), record.data().len().into());
            jsonl::insert_data(&mut fields, record.data());
            insert_shape(&mut fields, target, record.data());
            return out.line(format_args!("{}", Value::Object(fields)));
        }
        let on_terminal = is_terminal();
        if on_terminal
            && !self.binary
            && self.separator.is_none()
            && matches!(target, Target::Key { .. })
            && let Some(said) = for_people(record.data())
        {
            return out.line(format_args!("{said}"));
        }
        if on_terminal && !self.binary && is_binary(record.data()) {
            return Err(Failure::Other(format!(
                "{}: record {target} is binary, {} bytes long, and could confuse your terminal; redirect the output, or use \
                 --json or --binary",
                store.path().display(),
                record.data().len()
            )));
        }
        out.bytes(record.data())?;
        if on_terminal && self.separator.is_none() && separator.is_empty() && !record.data().ends_with(b"\n")
        {
            return out.bytes(b"\n");
        }
        out.bytes(separator)
    }
}

/// What a value of a key says that it is, in words and, of a counter or a ring, by its numbers.
fn insert_shape(fields: &mut Map<String, Value>, target: &Target, value: &[u8]) {
    if !matches!(target, Target::Key { .. }) {
        return;
    }
    let shape = ValueShape::of(value);
    if matches!(shape, ValueShape::Plain { .. }) {
        return;
    }
    fields.insert("shape".into(), shape.to_string().into());
    if let Some(count) = count_of(&shape, value) {
        fields.insert("count".into(), count.into());
    }
}

/// The count of a counter, and of a ring.
fn count_of(shape: &ValueShape, value: &[u8]) -> Option<u64> {
    let has_count = matches!(shape, ValueShape::Counter | ValueShape::Ring { .. });
    value.first_chunk().filter(|_| has_count).map(|count| u64::from_le_bytes(*count))
}

/// A value on a terminal, if it says that it is none of plain bytes.
fn for_people(value: &[u8]) -> Option<String> {
    let shape = ValueShape::of(value);
    match (&shape, count_of(&shape, value)) {
        (ValueShape::Plain { .. }, _) => None,
        (_, Some(count)) => Some(format!("{shape}: {count}")),
        (_, None) => Some(shape.to_string()),
    }
}

/// The failure that these records are absent; all but the last are said on the way.
pub(crate) fn absent_of(store: &Store, absent: &[Target]) -> Result<(), Failure> {
    let message = |target: &Target| format!("{}: no record {target}", store.path().display());
    match absent.split_last() {
        None => Ok(()),
        Some((last, others)) => {
            others.iter().for_each(|target| say(format_args!("{}", message(target))));
            Err(Failure::Absent(message(last)))
        }
    }
}

/// `\n`, `\t`, `\0` and `\\` as the bytes that they stand for; anything else as it is.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after.split_first()) {
            (b'\\', Some((b'n', after))) => (b'\n', after),
            (b'\\', Some((b't', after))) => (b'\t', after),
            (b'\\', Some((b'0', after))) => (0, after),
            (b'\\', Some((b'\\', after))) => (b'\\', after),
            _ => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_may_name_bytes_that_are_hard_to_type() {
        assert_eq!(unescape(br"\n\t\0\\"), b"\n\t\0\\");
        assert_eq!(unescape(br"--\x\"), br"--\x\");
        assert_eq!(unescape(b""), b"");
    }
}
