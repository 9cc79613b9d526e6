//! Serves a disk to QEMU by the NBD protocol, and ends in the middle when the power is cut.
//!
//! Fixed newstyle handshake, simple replies, one request after the other. Protocol:
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::disk::Disk;

const I_HAVE_OPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// Has flags, takes flushes.
const TRANSMISSION_FLAGS: u16 = 1 | 4;
const INVALID: u32 = 22;

mod option {
    pub(super) const ABORT: u32 = 2;
    pub(super) const GO: u32 = 7;
}

mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
}

/// When the power goes: at which write or flush, counted from the start of the machine.
#[derive(Clone)]
pub(crate) struct Fuse {
    served: Arc<AtomicU64>,
    blows_at: Arc<AtomicU64>,
    waits_for_flush: Arc<AtomicBool>,
}

impl Fuse {
    pub(crate) fn new() -> Self {
        Self {
            served: Arc::default(),
            blows_at: Arc::new(AtomicU64::new(u64::MAX)),
            waits_for_flush: Arc::default(),
        }
    }

    /// Has the power go at the n-th write or flush from now; or at the first flush after it, which is when
    /// most is in the cache.
    pub(crate) fn set(&self, n: u64, at_flush: bool) {
        self.waits_for_flush.store(at_flush, Ordering::SeqCst);
        self.blows_at.store(self.served().saturating_add(n), Ordering::SeqCst);
    }

    /// Writes and flushes until now.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    fn blows_at(&self, command: u16) -> bool {
        let served = self.served.fetch_add(1, Ordering::SeqCst) + 1;
        let is_time = served >= self.blows_at.load(Ordering::SeqCst);
        is_time && (command == command::FLUSH || !self.waits_for_flush.load(Ordering::SeqCst))
    }
}

/// Serves one client until it is gone. When the fuse blows, says so by `blown`, and answers no more.
pub(crate) fn serve(
    listener: &UnixListener,
    disk: &mut Disk,
    fuse: &Fuse,
    blown: impl FnOnce(),
) -> io::Result<()> {
    let (mut client, _) = listener.accept()?;
    if !shake_hands(&mut client, disk.medium().len() as u64)? {
        return Ok(());
    }
    while let Some(header) = read_or_end::<28>(&mut client)? {
        let field =
            |at: usize, len: usize| header[at..at + len].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        if field(0, 4) != u64::from(REQUEST) {
            return Err(io::Error::other("no NBD request"));
        }
        let (command, handle) = (field(6, 2) as u16, &header[8..16]);
        let (offset, len) = (field(16, 8), field(24, 4) as usize);
        let mut answer = Vec::new();
        let mut error = 0;
        match command {
            command::READ if disk.holds(offset, len) => answer = disk.read(offset, len),
            command::WRITE => {
                let mut bytes = vec![0; len];
                client.read_exact(&mut bytes)?;
                let blows = fuse.blows_at(command);
                if disk.holds(offset, len) {
                    disk.write(offset, &bytes); // If the fuse blew: as much of it as the loss leaves.
                } else {
                    error = INVALID;
                }
                if blows {
                    blown();
                    return wait_for_the_end(&mut client);
                }
            }
            command::FLUSH => {
                if fuse.blows_at(command) {
                    blown();
                    return wait_for_the_end(&mut client);
                }
                disk.flush();
            }
            command::DISCONNECT => return Ok(()),
            _ => error = INVALID,
        }
        let mut reply = Vec::with_capacity(16 + answer.len());
        reply.extend_from_slice(&REPLY.to_be_bytes());
        reply.extend_from_slice(&error.to_be_bytes());
        reply.extend_from_slice(handle);
        reply.extend_from_slice(&answer);
        if client.write_all(&reply).is_err() {
            return Ok(()); // killed
        }
    }
    Ok(())
}

fn shake_hands(client: &mut UnixStream, disk_bytes: u64) -> io::Result<bool> {
    client.write_all(b"NBDMAGIC")?;
    client.write_all(&I_HAVE_OPT.to_be_bytes())?;
    client.write_all(&3u16.to_be_bytes())?; // fixed newstyle, no zeros
    if read_or_end::<4>(client)?.is_none() {
        return Ok(false);
    }
    while let Some(header) = read_or_end::<16>(client)? {
        let option = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
        let len = u32::from_be_bytes(header[12..].try_into().expect("four bytes"));
        // We have one export, whatever its name.
        io::copy(&mut Read::by_ref(client).take(len.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            client.write_all(&OPTION_REPLY.to_be_bytes())?;
            client.write_all(&option.to_be_bytes())?;
            client.write_all(&kind.to_be_bytes())?;
            client.write_all(&(data.len() as u32).to_be_bytes())?;
            client.write_all(data)
        };
        const ACK: u32 = 1;
        const INFO: u32 = 3;
        const UNSUPPORTED: u32 = 1 << 31 | 1;
        match option {
            option::GO => {
                let mut export = vec![0, 0];
                export.extend_from_slice(&disk_bytes.to_be_bytes());
                export.extend_from_slice(&TRANSMISSION_FLAGS.to_be_bytes());
                reply(INFO, &export)?;
                reply(ACK, &[])?;
                return Ok(true);
            }
            option::ABORT => {
                reply(ACK, &[])?;
                return Ok(false);
            }
            _ => reply(UNSUPPORTED, &[])?,
        }
    }
    Ok(false)
}

/// `None` when the client is gone.
fn read_or_end<const N: usize>(client: &mut UnixStream) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match client.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn wait_for_the_end(client: &mut UnixStream) -> io::Result<()> {
    match io::copy(client, &mut io::sink()) {
        Err(e) if e.kind() != io::ErrorKind::ConnectionReset => Err(e),
        _ => Ok(()),
    }
}
