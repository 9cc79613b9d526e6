//! TDB with its mutexes, as Samba uses it. Needs the system's libtdb.
//!
//! In this mode the first opener wipes the file, so the benchmark keeps a process that has it open.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

use super::{Ask, Db, Session};
use crate::data::Source;

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    ptr: *mut u8,
    size: usize,
}

type Visit = unsafe extern "C" fn(*mut c_void, Data, Data, *mut c_void) -> c_int;
type Parse = unsafe extern "C" fn(Data, Data, *mut c_void) -> c_int;

#[link(name = "tdb")]
unsafe extern "C" {
    fn tdb_open_ex(
        name: *const c_char,
        hash_size: c_int,
        flags: c_int,
        open_flags: c_int,
        mode: libc::mode_t,
        log: *const c_void,
        hash: *const c_void,
    ) -> *mut c_void;
    fn tdb_close(tdb: *mut c_void) -> c_int;
    fn tdb_store(tdb: *mut c_void, key: Data, data: Data, flag: c_int) -> c_int;
    fn tdb_parse_record(tdb: *mut c_void, key: Data, parse: Parse, to: *mut c_void) -> c_int;
    fn tdb_traverse_read(tdb: *mut c_void, visit: Visit, to: *mut c_void) -> c_int;
    fn tdb_chainlock(tdb: *mut c_void, key: Data) -> c_int;
    fn tdb_chainunlock(tdb: *mut c_void, key: Data) -> c_int;
    fn tdb_transaction_start(tdb: *mut c_void) -> c_int;
    fn tdb_transaction_commit(tdb: *mut c_void) -> c_int;
}

const CLEAR_IF_FIRST: c_int = 1;
const INCOMPATIBLE_HASH: c_int = 2048;
const MUTEX_LOCKING: c_int = 4096;

pub struct Tdb {
    tdb: Mutex<*mut c_void>,
    durable: bool,
}

// SAFETY: the pointer is used by one session at a time, which holds the mutex.
unsafe impl Sync for Tdb {}

pub fn open(dir: &Path, ask: Ask) -> Tdb {
    let path = CString::new(dir.join("store.tdb").as_os_str().as_bytes()).unwrap();
    let flags = CLEAR_IF_FIRST | INCOMPATIBLE_HASH | MUTEX_LOCKING;
    let chains = (ask.n / 2).clamp(1000, 500_000) as c_int;
    // SAFETY: the name is a C string that outlives the call; no log, and the hash that the flags ask for.
    let tdb = unsafe {
        tdb_open_ex(
            path.as_ptr(),
            chains,
            flags,
            libc::O_RDWR | libc::O_CREAT,
            0o600,
            ptr::null(),
            ptr::null(),
        )
    };
    assert!(!tdb.is_null(), "tdb_open_ex: {}", std::io::Error::last_os_error());
    Tdb { tdb: Mutex::new(tdb), durable: ask.durable }
}

impl Db for Tdb {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Handle { tdb: self.tdb.lock().unwrap(), durable: self.durable })
    }

    fn close(self: Box<Self>) {
        // SAFETY: opened once, closed once.
        unsafe { tdb_close(*self.tdb.lock().unwrap()) };
    }
}

struct Handle<'a> {
    tdb: MutexGuard<'a, *mut c_void>,
    durable: bool,
}

fn data(bytes: &[u8]) -> Data {
    Data { ptr: bytes.as_ptr().cast_mut(), size: bytes.len() }
}

/// # Safety
/// `data` is a record's, as the library gives it to a callback.
unsafe fn bytes<'a>(data: Data) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data.ptr, data.size) }
}

unsafe extern "C" fn copy(_: Data, found: Data, to: *mut c_void) -> c_int {
    // SAFETY: `to` is the vector that `get` hands over.
    let (out, found) = unsafe { (&mut *to.cast::<Vec<u8>>(), bytes(found)) };
    out.clear();
    out.extend_from_slice(found);
    0
}

unsafe extern "C" fn visit(_: *mut c_void, _: Data, found: Data, to: *mut c_void) -> c_int {
    // SAFETY: `to` is the closure that `scan` hands over.
    unsafe { (*to.cast::<&mut dyn FnMut(&[u8])>())(bytes(found)) };
    0
}

impl Handle<'_> {
    fn store(&self, id: u64, value: &[u8]) {
        // SAFETY: key and value outlive the call, which copies them.
        assert_eq!(unsafe { tdb_store(*self.tdb, data(&id.to_ne_bytes()), data(value), 0) }, 0);
    }

    fn in_transaction(&self, work: impl FnOnce()) {
        // SAFETY: begun and ended by the one session that there is.
        assert_eq!(unsafe { tdb_transaction_start(*self.tdb) }, 0);
        work();
        // SAFETY: as above.
        assert_eq!(unsafe { tdb_transaction_commit(*self.tdb) }, 0);
    }
}

impl Session for Handle<'_> {
    fn load(&mut self, source: &mut Source<'_>, _ascending: bool) {
        while source.fill() > 0 {
            for (id, value) in source.batch() {
                self.store(id, value);
            }
        }
    }

    fn get(&mut self, id: u64, out: &mut Vec<u8>) -> bool {
        // SAFETY: key and vector outlive the call.
        unsafe { tdb_parse_record(*self.tdb, data(&id.to_ne_bytes()), copy, ptr::from_mut(out).cast()) == 0 }
    }

    fn get_batch(&mut self, ids: &[u64], each: &mut dyn FnMut(u64, &[u8])) {
        let mut out = Vec::new();
        for &id in ids {
            assert!(self.get(id, &mut out));
            each(id, &out);
        }
    }

    fn put(&mut self, id: u64, value: &[u8]) {
        if self.durable {
            self.in_transaction(|| self.store(id, value));
        } else {
            self.store(id, value);
        }
    }

    fn put_batch(&mut self, source: &Source<'_>) {
        for (id, value) in source.batch() {
            self.store(id, value);
        }
    }

    fn scan(&mut self, mut each: &mut dyn FnMut(&[u8])) {
        // SAFETY: the closure outlives the call.
        unsafe { tdb_traverse_read(*self.tdb, visit, ptr::from_mut(&mut each).cast()) };
    }

    fn add_one(&mut self, id: u64) {
        let key = id.to_ne_bytes();
        // SAFETY: the key outlives the calls; the lock is given back by the same session.
        unsafe {
            assert_eq!(tdb_chainlock(*self.tdb, data(&key)), 0);
            let n = self.count(id) + 1;
            self.store(id, &n.to_le_bytes());
            assert_eq!(tdb_chainunlock(*self.tdb, data(&key)), 0);
        }
    }

    fn count(&mut self, id: u64) -> u64 {
        let mut out = Vec::with_capacity(8);
        if self.get(id, &mut out) { u64::from_le_bytes(out[..].try_into().unwrap()) } else { 0 }
    }
}
