//! Shaped values: values of keys that say what they are.
//!
//! The chapter on the format has the bytes (*Shaped value*). A shaped value ends with a word that no text ends with, and that a value
//! which was not written as a shape ends with by a chance of 1 in 2^32 at most.

use bytemuck::{Pod, Zeroable};

/// The longest name of a type in bytes.
pub(crate) const TYPE_NAME_LEN_MAX: usize = 255;
/// Bytes of the word that ends a shaped value.
pub(crate) const WORD_BYTES: usize = 8;
/// Bytes of a counter's value.
pub(crate) const COUNTER_BYTES: usize = 16;
/// Bytes of a place of a ring beside the ring's value.
pub(crate) const PLACE_BYTES: usize = 16;
/// The third and the fourth byte of the word: the first of them is in no UTF-8.
const MARK: [u8; 2] = [0xff, b'~'];

/// The kind of a shaped value: the first byte of its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Counter = 1,
    Value = 2,
    Ring = 3,
    Place = 4,
}

/// The content of the record of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RingHead {
    /// The number of the next value, or a lower one.
    pub(crate) count: u64,
    /// Places.
    pub(crate) capacity: u64,
    /// Bytes of a value.
    pub(crate) size: u64,
    /// The life of the store in which the count was written last; 0: the places may hold higher numbers.
    pub(crate) life: u64,
}

/// A value, by its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shaped<'v> {
    /// Not shaped.
    Plain,
    Counter(u64),
    /// A value of the type with this name.
    Value {
        name: &'v str,
        content: &'v [u8],
    },
    /// A ring of values of the type with this name.
    Ring {
        name: &'v str,
        head: RingHead,
    },
    /// A value in a place of a ring.
    Place {
        tag: u32,
        number: u64,
        content: &'v [u8],
    },
}

/// The tag of a type: FNV-1a (64 bits) of the bytes of its name, then of its size in bytes as eight bytes, little-endian. 0 means no
/// tag, so a tag of 0 becomes 1.
pub(crate) fn tag_of_type(name: &str, size: usize) -> u64 {
    hash(name.as_bytes(), size as u64).max(1)
}

/// The life of a store, by its uuid and the first version of the life. Not 0.
pub(crate) fn life(uuid: &[u8], first: u64) -> u64 {
    hash(uuid, first).max(1)
}

/// FNV-1a (64 bits).
fn hash(bytes: &[u8], number: u64) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let all = bytes.iter().copied().chain(number.to_le_bytes());
    all.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The same in 32 bits: the two halves, one upon the other by exclusive or.
pub(crate) fn short_tag(name: &str, size: usize) -> u32 {
    let tag = tag_of_type(name, size);
    (tag ^ tag >> 32) as u32
}

fn word(kind: Kind, name: &str, tag: u32) -> [u8; WORD_BYTES] {
    let [a, b, c, d] = tag.to_le_bytes();
    [kind as u8, name.len() as u8, MARK[0], MARK[1], a, b, c, d]
}

/// The value of a counter.
pub(crate) fn counter(count: u64) -> [u8; COUNTER_BYTES] {
    let mut value = [0; COUNTER_BYTES];
    value[..8].copy_from_slice(&count.to_le_bytes());
    value[8..].copy_from_slice(&word(Kind::Counter, "", short_tag("", 8)));
    value
}

/// The end of a value of this type, behind its content. The name has at most [`TYPE_NAME_LEN_MAX`] bytes.
pub(crate) fn end_of_value(name: &str, size: usize) -> Vec<u8> {
    [name.as_bytes(), &word(Kind::Value, name, short_tag(name, size))].concat()
}

/// The value of the record of a ring.
pub(crate) fn ring(name: &str, head: &RingHead) -> Vec<u8> {
    let word = word(Kind::Ring, name, short_tag(name, head.size as usize));
    [bytemuck::bytes_of(head), name.as_bytes(), &word].concat()
}

/// The end of a place of a ring, behind its content.
pub(crate) fn end_of_place(tag: u32, number: u64) -> [u8; PLACE_BYTES] {
    let mut end = [0; PLACE_BYTES];
    end[..8].copy_from_slice(&number.to_le_bytes());
    end[8..].copy_from_slice(&word(Kind::Place, "", tag));
    end
}

/// What a value is.
pub(crate) fn read(value: &[u8]) -> Shaped<'_> {
    shaped(value).unwrap_or(Shaped::Plain)
}

fn shaped(value: &[u8]) -> Option<Shaped<'_>> {
    let (before, &[kind, name_len, mark, mark_too, a, b, c, d]) = value.split_last_chunk::<WORD_BYTES>()?;
    if [mark, mark_too] != MARK {
        return None;
    }
    let tag = u32::from_le_bytes([a, b, c, d]);
    let (content, name) = before.split_at(before.len().checked_sub(usize::from(name_len))?);
    let name = str::from_utf8(name).ok()?;
    let is_of = |size: usize| short_tag(name, size) == tag;
    if kind == Kind::Counter as u8 {
        let count = content.try_into().ok().map(u64::from_le_bytes)?;
        return (name.is_empty() && is_of(8)).then_some(Shaped::Counter(count));
    }
    if kind == Kind::Value as u8 {
        return (!name.is_empty() && is_of(content.len())).then_some(Shaped::Value { name, content });
    }
    if kind == Kind::Ring as u8 {
        let head: RingHead = bytemuck::try_pod_read_unaligned(content).ok()?;
        let is_one = !name.is_empty() && is_of(usize::try_from(head.size).ok()?) && head.capacity != 0;
        return is_one.then_some(Shaped::Ring { name, head });
    }
    if kind == Kind::Place as u8 && name.is_empty() {
        let (content, number) = content.split_last_chunk()?;
        return Some(Shaped::Place { tag, number: u64::from_le_bytes(*number), content });
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HEAD: RingHead = RingHead { count: 20, capacity: 8, size: 8, life: 0x0102_0304_0506_0708 };

    #[test]
    fn a_tag_is_what_the_format_says_it_is() {
        assert_eq!(tag_of_type("", 0), 0xa8c7_f832_281a_39c5);
        assert_eq!(tag_of_type("exchange.tick.v1", 16), TICK);
        assert_ne!(tag_of_type("exchange.tick.v1", 8), TICK);
    }

    /// Computed by another program.
    const TICK: u64 = 0x95d9_fb28_1097_5e1a;

    /// The table in the chapter on the format: another program must write the same bytes.
    #[test]
    fn values_have_the_bytes_that_the_chapter_lists() {
        let chapter = include_str!("mod.md");
        let (_, listed) = chapter.split_once("| shaped value | bytes |").unwrap();
        let rows: Vec<&str> = listed.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
        let value_of = |content: &[u8], name| [content, &end_of_value(name, content.len())].concat();
        let values = [
            counter(258).to_vec(),
            value_of(&1.5f64.to_le_bytes(), "<f8"),
            ring("<f8", &HEAD),
            [&1.5f64.to_le_bytes()[..], &end_of_place(short_tag("<f8", 8), 19)].concat(),
        ];
        assert_eq!(rows.len(), values.len());
        for (row, value) in rows.iter().zip(values) {
            let hex: String = row.rsplit('`').nth(1).unwrap().split(' ').collect();
            let is: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, is, "{row}");
        }
    }

    #[test]
    fn what_was_written_as_a_shape_is_read_as_it() {
        assert_eq!(read(&counter(7)), Shaped::Counter(7));
        let content = [9; 16];
        let value = [&content[..], &end_of_value("a.type", 16)].concat();
        assert_eq!(read(&value), Shaped::Value { name: "a.type", content: &content });
        let empty = end_of_value("nothing", 0);
        assert_eq!(read(&empty), Shaped::Value { name: "nothing", content: &[] });
        let long = "n".repeat(TYPE_NAME_LEN_MAX);
        assert_eq!(read(&ring(&long, &HEAD)), Shaped::Ring { name: &long, head: HEAD });
        let place = [&content[..], &end_of_place(5, 6)].concat();
        assert_eq!(read(&place), Shaped::Place { tag: 5, number: 6, content: &content });
    }

    /// Any bytes: plain, or a shape that lies in them.
    #[test]
    fn what_is_no_shape_is_plain() {
        for plain in [&b""[..], b"12345678", b"a text of 16 byt", &[0xff; 64], &[0; 16], &7u64.to_le_bytes()]
        {
            assert_eq!(read(plain), Shaped::Plain, "{plain:?}");
        }
        let value = [&[9; 16][..], &end_of_value("a.type", 16)].concat();
        for good in [counter(7).to_vec(), value, ring("a.type", &HEAD)] {
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(read(&bad), read(&good));
            }
            for end in 0..good.len() {
                assert_eq!(read(&good[..end]), Shaped::Plain);
            }
        }
    }
}
