//! The messages in the pipes between the process that deals records out and a writer.
//!
//! To the writer, a chunk: the length in bytes of the rest (u64), then for each record its id
//! (u64), its length (u32) and its bytes. A record with a key has the length of the space's name in place of the id, and the
//! highest bit of its length set; name, length of the key (u32) and key come before its bytes. If the key has a deadline, the highest
//! bit of its length is set too, and the deadline (u64) comes before the key. Back from the writer, a [`Reply`]
//! for each chunk, in the same order.
//! Both ends are the same build, hence no magic and no version. The input is checked all the same, because a user can start the
//! writer by hand.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::super::target::Target;

const HEADER_BYTES: usize = size_of::<u64>();
const DONE: u8 = b'+';
const FAILED: u8 = b'!';
const NO_RECORD: u32 = u32::MAX;

/// Records for one writer, in the form in which they go through its pipe.
pub(crate) struct Chunk {
    frame: Vec<u8>,
    /// The origin of each record.
    pub(crate) origins: Vec<Origin>,
    /// The permit that it shares with the other chunks of its batch.
    _permit: Option<Arc<Permit>>,
}

/// The origin of a record.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    /// Its name.
    pub(crate) target: Target,
    /// The deadline of a key, in milliseconds since 1970.
    pub(crate) expires_ms: Option<u64>,
}

/// In a record's length: it has a key.
const KEYED: u32 = 1 << 31;
/// In a key's length: the deadline (u64) follows.
const TIMED: u32 = 1 << 31;

/// A record in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dealt<'a> {
    /// One that has an id.
    Id(u64, &'a [u8]),
    /// One that has a key.
    Key {
        /// The space's name.
        space: &'a str,
        /// The key.
        key: &'a [u8],
        /// Its deadline, in milliseconds since 1970.
        expires_ms: Option<u64>,
        /// Its bytes.
        data: &'a [u8],
    },
}

impl Chunk {
    /// A chunk without records, which holds on to the permit.
    pub(crate) fn new(permit: Option<Arc<Permit>>) -> Self {
        Self { frame: vec![0; HEADER_BYTES], origins: Vec::new(), _permit: permit }
    }

    /// Adds a record; `None` if it is longer than any store takes.
    pub(crate) fn push(&mut self, origin: Origin, data: &[u8]) -> Option<()> {
        let len = u32::try_from(data.len()).ok().filter(|len| len & KEYED == 0)?;
        match &origin.target {
            Target::Id(id) => {
                self.frame.extend_from_slice(&id.to_le_bytes());
                self.frame.extend_from_slice(&len.to_le_bytes());
            }
            Target::Key { space, key } => {
                let key_len = u32::try_from(key.len()).ok().filter(|len| len & TIMED == 0)?;
                let timed = if origin.expires_ms.is_some() { TIMED } else { 0 };
                self.frame.extend_from_slice(&(space.len() as u64).to_le_bytes());
                self.frame.extend_from_slice(&(len | KEYED).to_le_bytes());
                self.frame.extend_from_slice(space.as_bytes());
                self.frame.extend_from_slice(&(key_len | timed).to_le_bytes());
                self.frame.extend(origin.expires_ms.map(u64::to_le_bytes).into_iter().flatten());
                self.frame.extend_from_slice(key);
            }
        }
        self.frame.extend_from_slice(data);
        let payload_bytes = (self.frame.len() - HEADER_BYTES) as u64;
        self.frame[..HEADER_BYTES].copy_from_slice(&payload_bytes.to_le_bytes());
        self.origins.push(origin);
        Some(())
    }

    /// The line of its first record.
    pub(crate) fn first_line(&self) -> Option<u64> {
        self.origins.first().map(|origin| origin.line)
    }

    /// The bytes for the pipe.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }
}

/// Reads the next chunk's bytes, without the header. `false` at the end of the input, even if it ends within a chunk: then the process
/// that wrote it is dead.
pub(crate) fn read_frame(input: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<bool> {
    payload.clear();
    let mut header = [0; HEADER_BYTES];
    match input.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let payload_bytes = u64::from_le_bytes(header);
    // The buffer grows with the bytes that come, and not by the length in the header.
    let read_bytes = input.take(payload_bytes).read_to_end(payload)?;
    Ok(read_bytes as u64 == payload_bytes)
}

/// The records in a chunk's bytes; `None` if the bytes are no chunk.
pub(crate) fn records(mut payload: &[u8]) -> Option<Vec<Dealt<'_>>> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        let (number, rest) = payload.split_first_chunk()?;
        let (len, mut rest) = rest.split_first_chunk()?;
        let (number, len) = (u64::from_le_bytes(*number), u32::from_le_bytes(*len));
        let mut take = |len: usize| {
            let (taken, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(taken)
        };
        records.push(if len & KEYED == 0 {
            Dealt::Id(number, take(len as usize)?)
        } else {
            let space = str::from_utf8(take(usize::try_from(number).ok()?)?).ok()?;
            let key_len = u32::from_le_bytes(*take(4)?.first_chunk()?);
            let expires_ms = match key_len & TIMED {
                0 => None,
                _ => Some(u64::from_le_bytes(*take(8)?.first_chunk()?)),
            };
            let key = take((key_len & !TIMED) as usize)?;
            Dealt::Key { space, key, expires_ms, data: take((len & !KEYED) as usize)? }
        });
        payload = rest;
    }
    Some(records)
}

/// A report of a writer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The next chunk is in the store.
    Done,
    /// The writer can't go on, and ends.
    Failed {
        /// The number of records of the next chunk that are in the store; `None` if no record caused the failure.
        at: Option<u32>,
        /// The exit code for it.
        code: u8,
        /// The message for the user.
        message: String,
    },
}

impl Reply {
    /// Sends the reply at once.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Done => out.write_all(&[DONE])?,
            Self::Failed { at, code, message } => {
                let mut bytes = vec![FAILED, *code];
                bytes.extend_from_slice(&at.unwrap_or(NO_RECORD).to_le_bytes());
                bytes.extend_from_slice(&(message.len() as u64).to_le_bytes());
                bytes.extend_from_slice(message.as_bytes());
                out.write_all(&bytes)?;
            }
        }
        out.flush()
    }

    /// Waits for the next reply; `None` when there will be none.
    pub(crate) fn read(input: &mut impl Read) -> Option<Self> {
        match read_array::<1>(input)? {
            [DONE] => Some(Self::Done),
            [FAILED] => {
                let [code] = read_array(input)?;
                let at = u32::from_le_bytes(read_array(input)?);
                let len = u64::from_le_bytes(read_array(input)?);
                let mut message = Vec::new();
                input.take(len).read_to_end(&mut message).ok()?;
                let message = String::from_utf8_lossy(&message).into_owned();
                Some(Self::Failed { at: (at != NO_RECORD).then_some(at), code, message })
            }
            _ => None,
        }
    }
}

fn read_array<const N: usize>(input: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The right to have one batch of chunks on the way. It is given back when the last of them is done, and so bounds the records in
/// memory.
pub(crate) struct Permit(Sender<()>);

impl Permit {
    /// A permit that is given back through this channel.
    pub(crate) fn new(back: Sender<()>) -> Self {
        Self(back)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // At the end of the load the receiver is gone.
        let _ = self.0.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(id: u64) -> Origin {
        Origin { line: 1, target: Target::Id(id), expires_ms: None }
    }

    #[test]
    fn a_chunk_comes_out_of_the_pipe_as_it_went_in() {
        let mut chunk = Chunk::new(None);
        let written: [(u64, &[u8]); 3] = [(1, b"one"), (u64::MAX, b""), (1, &[0xff; 1000])];
        for (id, data) in written {
            chunk.push(origin(id), data).expect("short enough");
        }
        let target = Target::Key { space: "sessions".into(), key: vec![0] };
        for expires_ms in [None, Some(7)] {
            let origin = Origin { line: 1, target: target.clone(), expires_ms };
            chunk.push(origin, b"of a key").expect("short enough");
        }
        let mut pipe = [chunk.frame(), Chunk::new(None).frame()].concat();
        pipe.extend_from_slice(b"cut");
        let mut pipe = pipe.as_slice();
        let mut payload = Vec::new();
        assert!(read_frame(&mut pipe, &mut payload).unwrap());
        let dealt = written.map(|(id, data)| Dealt::Id(id, data)).into_iter();
        let of_key = |expires_ms| Dealt::Key { space: "sessions", key: b"\0", expires_ms, data: b"of a key" };
        assert_eq!(records(&payload).unwrap(), dealt.chain([None, Some(7)].map(of_key)).collect::<Vec<_>>());
        assert!(read_frame(&mut pipe, &mut payload).unwrap());
        assert_eq!(records(&payload).unwrap(), []);
        assert!(!read_frame(&mut pipe, &mut payload).unwrap());
    }

    #[test]
    fn a_chunk_that_is_cut_off_anywhere_is_no_chunk() {
        let mut chunk = Chunk::new(None);
        chunk.push(origin(7), b"some bytes").expect("short enough");
        for end in 0..chunk.frame().len() {
            let mut payload = Vec::new();
            assert!(!read_frame(&mut &chunk.frame()[..end], &mut payload).unwrap(), "cut at {end}");
        }
        let payload = &chunk.frame()[HEADER_BYTES..];
        for end in 1..payload.len() {
            assert!(records(&payload[..end]).is_none(), "cut at {end}");
        }
    }

    #[test]
    fn a_header_that_lies_allocates_nothing() {
        let mut payload = Vec::new();
        assert!(!read_frame(&mut &[0xff; 20][..], &mut payload).unwrap());
        assert!(payload.capacity() < 1 << 20);
    }

    #[test]
    fn replies_come_out_in_their_order() {
        let failed =
            |at| Reply::Failed { at, code: 4, message: "a disk, full; with \"quotes\" and\nlines".into() };
        let mut pipe = Vec::new();
        for reply in [Reply::Done, failed(None), failed(Some(3)), Reply::Done] {
            reply.write(&mut pipe).unwrap();
        }
        let mut pipe = pipe.as_slice();
        assert_eq!(Reply::read(&mut pipe), Some(Reply::Done));
        assert_eq!(Reply::read(&mut pipe), Some(failed(None)));
        assert_eq!(Reply::read(&mut pipe), Some(failed(Some(3))));
        assert_eq!(Reply::read(&mut pipe), Some(Reply::Done));
        assert_eq!(Reply::read(&mut pipe), None);
        assert_eq!(Reply::read(&mut &b"?"[..]), None);
    }
}
