//! Where the system lacks something, or others use the file for purposes of their own, the error says what it is and what
//! to do; nothing is destroyed.
//!
//! Fails when: an error names another cause than the one there is; a call goes on without what it needs; a live owner
//! is robbed through the directories of an overlay.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{self, Me, Worker};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use recstore::{Error, Lock, Options, Store};

/// A system call that the kernel refuses from here on.
struct Refused {
    call: libc::c_long,
    /// With such an argument only: its number, and its bits.
    only: Option<(u32, u32)>,
    error: i32,
}

/// Has the kernel refuse system calls to this process.
fn refuse(refused: &[Refused]) {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let jump = |kind, k, jt, jf| op(libc::BPF_JMP | kind | libc::BPF_K, k, jt, jf);
    let end = |k| op(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    let mut filter = Vec::new();
    for r in refused {
        filter.push(load(0));
        match r.only {
            None => filter.push(jump(libc::BPF_JEQ, r.call as u32, 0, 1)),
            Some((argument, bits)) => {
                filter.push(jump(libc::BPF_JEQ, r.call as u32, 0, 5));
                filter.push(load(16 + 8 * argument));
                filter.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits, 0, 0));
                filter.push(jump(libc::BPF_JEQ, bits, 0, 2));
                filter.push(jump(libc::BPF_JA, 0, 0, 0));
            }
        }
        filter.push(end(libc::SECCOMP_RET_ERRNO | r.error as u32));
    }
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives for as long as the call, and the kernel checks it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

fn of_call(call: libc::c_long, error: i32) -> Refused {
    Refused { call, only: None, error }
}

/// Creates or opens a store where something is missing, and says what came of it.
fn lacking(me: &mut Me) {
    let lacks = me.var("LACKS");
    let no_links = of_call(libc::SYS_linkat, libc::EPERM);
    match lacks.as_str() {
        "fallocate" => refuse(&[of_call(libc::SYS_fallocate, libc::EOPNOTSUPP)]),
        "flock" => refuse(&[of_call(libc::SYS_flock, libc::ENOSYS)]),
        "OFD locks" => {
            let only = Some((1, libc::F_OFD_SETLK as u32));
            refuse(&[Refused { call: libc::SYS_fcntl, only, error: libc::EACCES }]);
        }
        "links" => refuse(&[no_links]),
        "links and unnamed files" => {
            let only = Some((2, libc::O_TMPFILE as u32));
            refuse(&[no_links, Refused { call: libc::SYS_openat, only, error: libc::EOPNOTSUPP }]);
        }
        "/proc" => {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        }
        other => panic!("{other}"),
    }
    let path = me.var("STORE");
    let options = Options::new().record_size(64);
    let result = if me.var("DO") == "create" { options.create(&path) } else { options.open(&path) };
    match result.and_then(|store| store.put(1, b"x")) {
        Ok(_) => me.say("done"),
        Err(error) => me.say(&error.to_string()),
    }
}

/// Locks the whole file as `lockf` does.
fn locks_all_bytes(me: &mut Me) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(me.var("STORE")).unwrap();
    let all = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&all)).unwrap();
    me.say("locked");
    me.wait_for_the_end();
}

/// Stays inside of `update`.
fn stays_inside(me: &mut Me) {
    let store = Store::open(me.var("STORE")).unwrap();
    store
        .update(1, |_| {
            me.say("inside");
            me.line();
            Some(b"the owner's")
        })
        .unwrap();
    me.say("done");
}

#[test]
fn child_entry() {
    let Some(mut me) = Me::from_env() else { return };
    match me.role.as_str() {
        "lacking" => lacking(&mut me),
        "locks_all_bytes" => locks_all_bytes(&mut me),
        "stays_inside" => stays_inside(&mut me),
        other => panic!("no role {other}"),
    }
}

fn said_without(what: &str, does: &str, path: &Path) -> String {
    let with = [("STORE", path.to_str().unwrap()), ("LACKS", what), ("DO", does)];
    let mut worker = Worker::spawn("lacking", &with);
    let said = worker.hear();
    worker.finish();
    said
}

#[test]
fn what_the_system_lacks_is_named() {
    let dir = common::scratch();
    let there = dir.path().join("there");
    Options::new().record_size(64).create(&there).unwrap().close().unwrap();
    let absent = dir.path().join("absent");
    for (lacks, does, path, due) in [
        ("fallocate", "create", &absent, "does not allow fallocate"),
        ("flock", "open", &there, "does not allow flock"),
        ("OFD locks", "open", &there, "does not allow locks of open file descriptions"),
        ("links", "create", &absent, "allows no hard links"),
        ("/proc", "open", &there, "/proc is not mounted here"),
        ("/proc", "create", &absent, "/proc is not mounted here"),
    ] {
        if lacks == "/proc" && common::user() != 0 {
            common::skipped("a mount over /proc: only root may mount");
            continue;
        }
        let said = said_without(lacks, does, path);
        assert!(said.contains(due), "without {lacks}: {said}");
        assert!(!absent.exists(), "without {lacks}");
    }
    let store = Store::open(&there).unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_file_system_without_links_and_unnamed_files_has_stores_all_the_same() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    assert_eq!(said_without("links and unnamed files", "create", &path), "done");
    assert_eq!(Store::open(&path).unwrap().get(1).unwrap().unwrap().data(), b"x");
    let said = said_without("links and unnamed files", "create", &path);
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "what was begun is left behind");
}

#[test]
fn a_foreign_lock_of_all_bytes_is_named_and_keeps_no_dead_owner_alive() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Options::new().regions(1).create(&path).unwrap();
    store.put(1, b"before").unwrap();
    let name = path.to_str().unwrap();
    let mut owner = Worker::spawn("stays_inside", &[("STORE", name)]);
    owner.expect("inside");
    // Where a handle has a lock, another kind does not come in.
    drop(store);
    owner.kill();
    let mut foreign = Worker::spawn("locks_all_bytes", &[("STORE", name)]);
    foreign.expect("locked");
    match Store::open(&path) {
        Err(error @ Error::Busy { lock: Lock::Seats, owner: Some(holder), .. }) => {
            assert_eq!((holder.pid, holder.exists), (foreign.pid(), Some(true)), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let lock = Store::open_read_only(&path).unwrap().stats().unwrap().regions[0].lock.clone().unwrap();
    assert_eq!((lock.pid, lock.alive), (owner.pid(), false));
    foreign.kill();
    assert_eq!(Store::open(&path).unwrap().put(1, b"after").map(drop).map_err(|e| e.to_string()), Ok(()));
}

#[test]
fn a_symbolic_link_to_nothing_is_neither_absent_nor_there() {
    let dir = common::scratch();
    let (link, to) = (dir.path().join("link"), dir.path().join("nothing"));
    symlink(&to, &link).unwrap();
    for result in [Store::open(&link), Store::create(&link), Store::open_or_create(&link)] {
        match result {
            Err(error @ Error::NotAStore { .. }) => {
                let due = format!("a symbolic link to {}, where there is nothing", to.display());
                assert!(error.to_string().contains(&due), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    Store::create(&to).unwrap().put(1, b"x").unwrap();
    assert!(Store::open(&link).unwrap().get(1).unwrap().is_some());
}

/// An overlay on a file system of its own; unmounted when dropped.
struct Overlay {
    base: PathBuf,
    _dir: tempfile::TempDir,
}

impl Overlay {
    fn new() -> Option<Self> {
        let dir = common::scratch();
        let base = dir.path().join("with a space");
        std::fs::create_dir(&base).unwrap();
        let none = None::<&str>;
        if let Err(error) = mount(Some("none"), &base, Some("tmpfs"), MsFlags::empty(), none) {
            common::skipped(format_args!("no mount of tmpfs: {error}"));
            return None;
        }
        let this = Self { base, _dir: dir };
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
            let dir = this.base.join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        });
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        match mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&options[..])) {
            Ok(()) => Some(this),
            Err(error) => {
                common::skipped(format_args!("no mount of an overlay: {error}"));
                None
            }
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = umount2(&self.base.join("merged"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.base, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_live_owner_is_not_robbed_through_the_upper_directory_of_an_overlay() {
    let Some(overlay) = Overlay::new() else { return };
    let (merged, upper) = (overlay.base.join("merged/store"), overlay.base.join("upper/store"));
    let options = Options::new().regions(1).lock_timeout(Some(Duration::from_millis(50)));
    let store = options.create(&merged).unwrap();
    store.put(1, b"before").unwrap();
    let mut owner = Worker::spawn("stays_inside", &[("STORE", merged.to_str().unwrap())]);
    owner.expect("inside");
    for refused in
        [options.open(&upper), options.open_read_only(&upper), options.create(overlay.base.join("upper/new"))]
    {
        match refused {
            Err(Error::BelowOverlay { merged, .. }) => assert_eq!(merged, overlay.base.join("merged")),
            other => panic!("{other:?}"),
        }
    }
    // By the same mount all is as it should be.
    assert!(matches!(store.put(1, b"stolen"), Err(Error::Busy { lock: Lock::Region(0), .. })));
    owner.say("go");
    owner.expect("done");
    owner.finish();
    assert_eq!(store.get(1).unwrap().unwrap().data(), b"the owner's");
    store.close().unwrap();
    // Without the overlay, the file is one like any other.
    umount2(&overlay.base.join("merged"), MntFlags::MNT_DETACH).unwrap();
    assert_eq!(options.open(&upper).unwrap().get(1).unwrap().unwrap().data(), b"the owner's");
}
