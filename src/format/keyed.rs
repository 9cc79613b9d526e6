//! Keyed records: the id of a key, and the bytes of its record.
//!
//! The chapter on the format has both (*Keyed record*). A keyed record holds entries, nearly always one: keys with equal ids share a
//! record. Entries are read from the end, so that the value of the first one is at the beginning of the record.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use siphasher::sip::SipHasher13;

use crate::fault;

/// The longest key in bytes.
pub(crate) const KEY_LEN_MAX: usize = 64 << 10;
/// The longest name of a space in bytes.
pub(crate) const NAME_LEN_MAX: usize = 255;
/// Bytes of the word that ends an entry.
const WORD_BYTES: usize = 8;
/// Every entry begins at a multiple of this many bytes.
const ENTRY_ALIGN: usize = 16;

/// The fields of the word, from its low bits on: length of the value, of the key, of the name, number of zeros.
const VALUE_BITS: u32 = 30;
const KEY_AT: u32 = VALUE_BITS;
const KEY_BITS: u32 = 17;
const NAME_AT: u32 = KEY_AT + KEY_BITS;
const NAME_BITS: u32 = 8;
const PAD_AT: u32 = NAME_AT + NAME_BITS;
const PAD_BITS: u32 = 4;
/// In the word: the stored value ends with an [`Expiry`].
const TIMED: u64 = 1 << (PAD_AT + PAD_BITS);

/// The end of a value's life, stored behind the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Expiry {
    /// The deadline: milliseconds since 1970 on the clock of the store.
    pub(crate) at_ms: u64,
    /// A number that only this write of the key has.
    pub(crate) stamp: u64,
}

const EXPIRY_BYTES: usize = size_of::<Expiry>();

#[inline]
fn field(word: u64, at: u32, bits: u32) -> usize {
    (word >> at & ((1 << bits) - 1)) as usize
}

/// The ids of the keys of one space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHash(SipHasher13);

impl KeyHash {
    /// The ids of the space with this name, in a store with this key of the id hash.
    pub(crate) fn new(hash_key: u64, name: &[u8]) -> Self {
        let half = |n| SipHasher13::new_with_keys(hash_key, n).hash(name);
        Self(SipHasher13::new_with_keys(half(0), half(1)))
    }

    /// The id of a key.
    #[inline]
    pub(crate) fn id(&self, key: &[u8]) -> u64 {
        self.0.hash(key) & fault::key_hash_mask()
    }
}

/// The entry of one key in a keyed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'d> {
    /// The space's name.
    pub(crate) name: &'d [u8],
    /// The key.
    pub(crate) key: &'d [u8],
    /// Its value.
    pub(crate) value: &'d [u8],
    /// The end of its life, if it has one.
    pub(crate) expiry: Option<Expiry>,
}

/// The place of a key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueAt {
    /// Bytes of the record.
    pub(crate) value: Range<usize>,
    /// The end of its life, if it has one.
    pub(crate) expiry: Option<Expiry>,
}

/// The bytes of a keyed record are no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotEntries;

impl NotEntries {
    /// In words.
    pub(crate) const WHAT: &str = "its entries of keys are impossible";
}

impl Entry<'_> {
    /// Bytes that the entry takes, if it is the only one.
    pub(crate) fn len(&self) -> usize {
        let stored = self.value.len() + self.expiry.map_or(0, |_| EXPIRY_BYTES);
        stored + self.name.len() + self.key.len() + WORD_BYTES
    }

    /// Whether it is of this key of this space.
    #[inline]
    pub(crate) fn is_of(&self, name: &[u8], key: &[u8]) -> bool {
        self.key == key && self.name == name
    }

    /// Appends the entry to a record. The caller has checked its lengths.
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let pad = record.len().next_multiple_of(ENTRY_ALIGN) - record.len();
        record.reserve(pad + self.len());
        record.resize(record.len() + pad, 0);
        record.extend_from_slice(self.value);
        append_end(self.name, self.key, self.value.len(), self.expiry, pad, record);
    }
}

/// Appends the part of an entry behind its value.
#[inline]
fn append_end(
    name: &[u8],
    key: &[u8],
    value_len: usize,
    expiry: Option<Expiry>,
    pad: usize,
    record: &mut Vec<u8>,
) {
    let (mut stored, mut flags) = (value_len, 0);
    if let Some(expiry) = &expiry {
        record.extend_from_slice(bytemuck::bytes_of(expiry));
        (stored, flags) = (stored + EXPIRY_BYTES, TIMED);
    }
    record.extend_from_slice(name);
    record.extend_from_slice(key);
    let lens = [(stored, 0), (key.len(), KEY_AT), (name.len(), NAME_AT), (pad, PAD_AT)];
    let word = lens.iter().fold(flags, |word, &(len, at)| word | (len as u64) << at);
    record.extend_from_slice(&word.to_le_bytes());
}

/// The bytes behind the value, in the record of one entry with a value of this length. The caller has checked the lengths.
pub(crate) fn end_of(name: &[u8], key: &[u8], value_len: usize, expiry: Option<Expiry>) -> Vec<u8> {
    let mut end = Vec::with_capacity(EXPIRY_BYTES + name.len() + key.len() + WORD_BYTES);
    append_end(name, key, value_len, expiry, 0, &mut end);
    end
}

/// The last entry of a record, the place of its value, and the bytes of the entries before it.
#[inline]
fn split_last(data: &[u8]) -> Result<(Entry<'_>, Range<usize>, &[u8]), NotEntries> {
    let (parts, word_bytes) = data.split_last_chunk::<WORD_BYTES>().ok_or(NotEntries)?;
    let word = u64::from_le_bytes(*word_bytes);
    let (value, key) = (field(word, 0, VALUE_BITS), field(word, KEY_AT, KEY_BITS));
    let (name, pad) = (field(word, NAME_AT, NAME_BITS), field(word, PAD_AT, PAD_BITS));
    if word >= TIMED << 1 || key > KEY_LEN_MAX || name == 0 {
        return Err(NotEntries);
    }
    let start = parts.len().checked_sub(value + key + name).ok_or(NotEntries)?;
    let before = &parts[..start.checked_sub(pad).ok_or(NotEntries)?];
    if before.is_empty() && pad != 0 {
        return Err(NotEntries);
    }
    let (of_value, rest) = parts[start..].split_at(value);
    let (of_name, of_key) = rest.split_at(name);
    let (of_value, expiry) = if word & TIMED == 0 {
        (of_value, None)
    } else {
        let (of_value, expiry) = of_value.split_last_chunk::<EXPIRY_BYTES>().ok_or(NotEntries)?;
        (of_value, Some(bytemuck::pod_read_unaligned(expiry)))
    };
    let place = start..start + of_value.len();
    Ok((Entry { name: of_name, key: of_key, value: of_value, expiry }, place, before))
}

/// Name and key of the last entry of a record, by the end of the record, and the bytes of `end` before them but for an end of life.
/// `None`: the end does not reach so far, or is none.
pub(crate) fn last_of_end(end: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (parts, word_bytes) = end.split_last_chunk::<WORD_BYTES>()?;
    let word = u64::from_le_bytes(*word_bytes);
    let (key, name) = (field(word, KEY_AT, KEY_BITS), field(word, NAME_AT, NAME_BITS));
    let (before, of_key) = parts.split_at(parts.len().checked_sub(key)?);
    let (before, of_name) = before.split_at(before.len().checked_sub(name)?);
    let expiry = if word & TIMED == 0 { 0 } else { EXPIRY_BYTES };
    Some((of_name, of_key, before.get(..before.len().checked_sub(expiry)?)?))
}

/// The entries of a record, the last one first. Bytes that are not an entry end them, with an error.
pub(crate) fn entries(data: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, NotEntries>> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let split = split_last(rest.take()?);
        Some(split.map(|(entry, _, before)| {
            rest = Some(before).filter(|before| !before.is_empty());
            entry
        }))
    })
}

/// The place of a key's value in a record.
#[inline]
pub(crate) fn find(data: &[u8], name: &[u8], key: &[u8]) -> Result<Option<ValueAt>, NotEntries> {
    let mut rest = data;
    loop {
        let (entry, value, before) = split_last(rest)?;
        if entry.is_of(name, key) {
            return Ok(Some(ValueAt { value, expiry: entry.expiry }));
        }
        if before.is_empty() {
            return Ok(None);
        }
        rest = before;
    }
}

/// Bytes of name, key and word at the end of a record.
#[inline]
pub(crate) fn end_len(record: &[u8]) -> usize {
    let word = record.last_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    field(word, KEY_AT, KEY_BITS) + field(word, NAME_AT, NAME_BITS) + WORD_BYTES
}

/// Whether two records are of one entry of the same key. `end`: the end of the first record, as long as that of `record`; its other
/// bytes are `value_len`. `record` is of one entry. Either may have an end of its life.
#[inline]
pub(crate) fn is_end_of_same(end: &[u8], value_len: usize, record: &[u8]) -> bool {
    let mine = &record[record.len().saturating_sub(end.len())..];
    let (Some((key, word)), Some((my_key, my_word))) =
        (end.split_last_chunk::<WORD_BYTES>(), mine.split_last_chunk::<WORD_BYTES>())
    else {
        return false;
    };
    let (word, my_word) = (u64::from_le_bytes(*word), u64::from_le_bytes(*my_word));
    (word ^ (my_word >> VALUE_BITS << VALUE_BITS | value_len as u64)) & !TIMED == 0 && key == my_key
}

/// Whether a space is hidden from programs: they can't give a name with a control character.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    name.first().is_some_and(|&first| first < b' ')
}

/// The entries of a record but that of a key, as a record.
pub(crate) fn without(data: &[u8], name: &[u8], key: &[u8]) -> Result<Vec<u8>, NotEntries> {
    let others = entries(data).filter(|entry| !entry.is_ok_and(|entry| entry.is_of(name, key)));
    let kept = others.collect::<Result<Vec<_>, _>>()?;
    let mut record = Vec::new();
    kept.iter().rev().for_each(|entry| entry.append_to(&mut record));
    Ok(record)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn entry<'d>(name: &'d str, key: &'d [u8], value: &'d [u8]) -> Entry<'d> {
        Entry { name: name.as_bytes(), key, value, expiry: None }
    }

    #[test]
    fn the_end_of_a_life_is_behind_the_value_and_no_part_of_it() {
        let expiry = Expiry { at_ms: 7, stamp: 9 };
        let timed =
            |key, value, at_ms| Entry { expiry: Some(Expiry { at_ms, ..expiry }), ..entry("s", key, value) };
        let all = [entry("s", b"a", b"1"), timed(b"b", b"", 7), timed(b"c", &[3; 20], 8)];
        let both = record(&all);
        let found: Vec<Entry<'_>> = entries(&both).collect::<Result<_, _>>().unwrap();
        assert!(found.iter().rev().eq(&all));
        let place = find(&both, b"s", b"c").unwrap().unwrap();
        assert_eq!((&both[place.value], place.expiry.unwrap().at_ms), (&[3; 20][..], 8));
        assert_eq!(without(&both, b"s", b"c").unwrap(), record(&all[..2]));
        let alone = record(&all[2..]);
        assert_eq!(alone.len(), all[2].len());
        // A record that is timed is replaced by one that is not, and the other way round, without a look at other keys.
        for old in [record(&[entry("s", b"c", b"xyz")]), alone.clone()] {
            for new in [record(&[entry("s", b"c", &[1; 50])]), record(&[timed(b"c", b"", 1)])] {
                let end = &old[old.len() - end_len(&new)..];
                assert!(is_end_of_same(end, old.len() - end.len(), &new));
            }
        }
        let end = &alone[alone.len() - end_len(&alone)..];
        assert!(!is_end_of_same(end, alone.len() - end.len(), &record(&[entry("s", b"d", b"")])));
        // A value that is shorter than the end of its life is impossible.
        let mut short = record(&[entry("s", b"k", &[1; 15])]);
        let word = short.len() - 1;
        short[word] |= (TIMED >> 56) as u8;
        assert_eq!(find(&short, b"s", b"k"), Err(NotEntries));
    }

    fn record(of: &[Entry<'_>]) -> Vec<u8> {
        let mut record = Vec::new();
        of.iter().for_each(|entry| entry.append_to(&mut record));
        record
    }

    /// The table in the chapter on the format: another program must come to the same ids.
    #[test]
    fn keys_have_the_ids_that_the_chapter_lists() {
        let chapter = include_str!("mod.md");
        let mut listed = 0;
        for line in chapter.lines().filter(|line| line.starts_with("| `0x") && line.matches('|').count() == 5)
        {
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let number = |cell: &str| u64::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap();
            let (hash_key, name, key, id) = (number(cells[1]), cells[2], cells[3], number(cells[4]));
            let key = if key == "(empty)" { "" } else { key };
            assert_eq!(KeyHash::new(hash_key, name.as_bytes()).id(key.as_bytes()), id, "{line}");
            listed += 1;
        }
        assert_eq!(listed, 4);
    }

    #[test]
    fn a_record_of_one_entry_is_value_name_key_and_a_word() {
        let record = record(&[entry("sessions", b"user:7", b"value")]);
        assert_eq!(record[..19], *b"valuesessionsuser:7");
        let word: u64 = 5 | 6 << 30 | 8 << 47;
        assert_eq!(record[19..], word.to_le_bytes());
    }

    #[test]
    fn what_was_appended_is_found_and_each_value_begins_at_a_multiple_of_16() {
        let long_key = vec![7; KEY_LEN_MAX];
        let long_name = "n".repeat(NAME_LEN_MAX);
        let all = [
            entry("s", b"", b""),
            entry("s", b"key", &[1; 33]),
            entry("t", b"key", b"another space"),
            entry(&long_name, &long_key, b"x"),
        ];
        for count in 1..=all.len() {
            let record = record(&all[..count]);
            let found: Vec<Entry<'_>> = entries(&record).collect::<Result<_, _>>().unwrap();
            assert!(found.iter().rev().eq(&all[..count]));
            for entry in &all[..count] {
                let at = find(&record, entry.name, entry.key).unwrap().unwrap().value;
                assert_eq!(&record[at.clone()], entry.value);
                assert_eq!(at.start % ENTRY_ALIGN, 0);
            }
            assert_eq!(find(&record, b"s", b"ke").unwrap(), None);
        }
        assert_eq!(record(&all[..1]).len(), all[0].len());
    }

    #[test]
    fn an_entry_goes_and_the_others_stay_in_their_order() {
        let [a, b, c] = [entry("s", b"a", b"1"), entry("s", b"b", b"22"), entry("s", b"c", b"333")];
        let all = record(&[a, b, c]);
        assert_eq!(without(&all, b"s", b"b").unwrap(), record(&[a, c]));
        assert_eq!(without(&all, b"s", b"c").unwrap(), record(&[a, b]));
        assert_eq!(without(&all, b"t", b"c").unwrap(), all);
        assert_eq!(without(&record(&[a]), b"s", b"a").unwrap(), b"");
    }

    /// Any bytes: an error, or entries that lie in them.
    #[test]
    fn bytes_that_are_no_entries_are_an_error() {
        assert_eq!(find(b"", b"s", b"k"), Err(NotEntries));
        assert_eq!(find(b"1234567", b"s", b"k"), Err(NotEntries));
        assert_eq!(find(&[0xff; 64], b"s", b"k"), Err(NotEntries));
        assert_eq!(find(&[0; 64], b"s", b"k"), Err(NotEntries)); // No space has an empty name.
        let good = record(&[entry("s", b"a", &[9; 20]), entry("s", b"b", b"22")]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for entry in entries(&bad) {
                let Ok(entry) = entry else { break };
                assert!(entry.len() <= bad.len());
            }
        }
        for end in 0..good.len() {
            let _ = find(&good[..end], b"s", b"a");
        }
    }
}
