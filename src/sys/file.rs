//! Files and file systems: atomic creation, room, flushes.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fork::ForkFile;
use super::limit;

/// Opens an existing file.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)
}

/// Opens the same file anew. The new open file description has no part in the locks of `file`. A mapping keeps its description
/// open in forked children, so it must not be the description that has the locks.
pub(crate) fn open_again(file: &File, writable: bool) -> io::Result<File> {
    open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), writable).map_err(without_proc)
}

/// The error of a call that goes through `/proc`, with an explanation if `/proc` is missing.
fn without_proc(error: io::Error) -> io::Error {
    if Path::new("/proc/self/fd").exists() {
        error
    } else {
        explained(&error, "/proc is not mounted here: mount it")
    }
}

/// The error of a call that some kernels, file systems or sandboxes always refuse, with an explanation.
pub(super) fn unless_allowed(error: io::Error, means: &str) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM | libc::EACCES | libc::EINVAL | libc::ENOLCK) => {
            explained(&error, means)
        }
        _ => error,
    }
}

fn explained(error: &io::Error, means: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{means} ({error})"))
}

const NO_FALLOCATE: &str = "this file system or sandbox does not allow fallocate, without which a full disk would kill \
    processes (SIGBUS); use ext4, XFS, btrfs or tmpfs, and a sandbox that allows the call";
const NO_LINKS: &str = "this file system or sandbox allows no hard links, by which a new store gets its name whole; \
    create it elsewhere and move it here";

pub(super) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn c_string(path: &Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Creates a file whose content `fill` writes, and gives it its name only then. Fails with
/// `AlreadyExists` if the name is taken. A process that dies before the end leaves nothing, or, on
/// a file system without unnamed files, a name that no store has.
pub(crate) fn create_whole(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let dir = directory(path);
    let unnamed =
        OpenOptions::new().read(true).write(true).mode(mode).custom_flags(libc::O_TMPFILE).open(&dir);
    match unnamed {
        Ok(file) => {
            fill(&file)?;
            set_mode(&file, mode)?;
            file.sync_all()?;
            let from = c_string(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
            let to = c_string(path)?;
            // SAFETY: both are C strings that outlive the call.
            let linked = unsafe {
                libc::linkat(
                    libc::AT_FDCWD,
                    from.as_ptr(),
                    libc::AT_FDCWD,
                    to.as_ptr(),
                    libc::AT_SYMLINK_FOLLOW,
                )
            };
            if linked != 0 {
                let error = without_proc(io::Error::last_os_error());
                return Err(unless_allowed(error, NO_LINKS));
            }
        }
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOSYS)) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let temporary = dir.join(format!(".{name}.{}.new", random()?));
            let file =
                OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary)?;
            let result = fill(&file)
                .and_then(|()| set_mode(&file, mode))
                .and_then(|()| file.sync_all())
                .and_then(|()| give_name(&temporary, path));
            // After a change of its name it is gone already.
            let _ = std::fs::remove_file(&temporary);
            result?;
        }
        Err(e) => return Err(e),
    }
    File::open(dir)?.sync_all()
}

/// Gives a file another name, which must be free, by a link or, on a file system without links, by a rename.
fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    let Err(error) = std::fs::hard_link(from, to) else { return Ok(()) };
    if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)) {
        return Err(error);
    }
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: both are C strings that outlive the call.
    let renamed = unsafe {
        libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if renamed == 0 { Ok(()) } else { Err(unless_allowed(io::Error::last_os_error(), NO_LINKS)) }
}

/// The mode as asked for, independent of the umask.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// Fails if the file ends before `end` and this process may not extend a file so far (`RLIMIT_FSIZE`): the kernel would kill the
/// process (`SIGXFSZ`).
pub(crate) fn may_extend(file: &File, end: u64) -> io::Result<()> {
    let Some(limit) = limit::file_bytes().filter(|&limit| end > limit) else { return Ok(()) };
    if file.metadata()?.len() >= end {
        return Ok(());
    }
    let why = format!(
        "this process may not extend files beyond {limit} bytes (RLIMIT_FSIZE, `ulimit -f`), and {end} are needed",
    );
    Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
}

/// Whether a call that writes before `end` is safe from `SIGXFSZ`. The signal comes even if the file is long enough.
fn may_write(end: u64) -> bool {
    limit::file_bytes().is_none_or(|limit| end <= limit)
}

/// Writes zeros over a range that was never written to, in pieces up to multiples of `piece`. Does nothing if the file system does
/// not know this of the range, or if the write is not allowed. Only speed depends on it.
pub(crate) fn write_zeros(file: &ForkFile, mut at: u64, bytes: u64, piece: u64, zeros: &[u8]) {
    let end = at + bytes;
    let Ok(file) = file.same() else { return };
    if !may_write(end) || !is_unwritten(file, at, bytes) {
        return;
    }
    while at < end {
        let next = (at / piece * piece + piece).min(end);
        if file.write_all_at(&zeros[..(next - at) as usize], at).is_err() {
            return;
        }
        at = next;
    }
}

/// Whether an error says that there is no room: on the disk, for the user, or for this process.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

/// Allocates the blocks of a range, and extends the file to its end, or changes nothing.
pub(crate) fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    may_extend(file, offset + bytes)?;
    fallocate(file, 0, offset..offset + bytes).map_err(|error| unless_allowed(error, NO_FALLOCATE))
}

/// `fallocate` with this mode, again if a signal came.
pub(super) fn fallocate(file: &File, mode: libc::c_int, bytes: Range<u64>) -> io::Result<()> {
    let (at, len) = (bytes.start as libc::off_t, (bytes.end - bytes.start) as libc::off_t);
    loop {
        // SAFETY: the descriptor is open, and the call touches only mapped pages of the file. In every mode that this crate uses,
        // these stay as they are, or read as zeros afterwards.
        if unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the file system knows that a range was never written to.
fn is_unwritten(file: &File, offset: u64, bytes: u64) -> bool {
    first_data(file, offset) >= offset + bytes
}

/// The first offset from `offset` on that was written to, as far as the file system knows; `u64::MAX` if there is none.
pub(crate) fn first_data(file: &File, offset: u64) -> u64 {
    // SAFETY: the descriptor is open; the call touches no memory. No read or write uses the position of this file.
    let data = unsafe { libc::lseek(file.as_raw_fd(), offset as libc::off_t, libc::SEEK_DATA) };
    match u64::try_from(data) {
        Ok(data) => data,
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => u64::MAX,
        // The file system does not know.
        Err(_) => offset,
    }
}

/// Makes a range read as zeros, and gives its blocks back; the length stays.
pub(crate) fn punch(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, offset..offset + bytes)
}

/// Random bits from the kernel.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { Ok(u64::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

/// The id of this boot: another one after every start of the kernel. `None` if the file with the id is not the kernel's own: some
/// containers cover it with another file.
pub(crate) fn boot_id() -> io::Result<Option<[u64; 2]>> {
    let mut file = File::open("/proc/sys/kernel/random/boot_id").map_err(without_proc)?;
    if file_system_kind(&file)? != libc::PROC_SUPER_MAGIC as u32 {
        return Ok(None);
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text)?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&hex, 16).map_err(io::Error::other)?;
    Ok(Some([(number >> 64) as u64, number as u64]))
}

/// The identity of a file, and the mount that it is seen through.
pub(crate) struct SeenAs {
    /// The mount's number, if the kernel never gives it again in this boot; otherwise 0.
    pub(crate) mount: u64,
    /// Device, inode, and the birth of the inode: the number of an inode is given again.
    pub(crate) file: [u64; 4],
}

/// The identity of a file's pages in memory.
pub(crate) fn identity(file: &File) -> io::Result<SeenAs> {
    use std::os::unix::fs::MetadataExt;
    /// Asks for the birth of the inode, and for a mount number that is not used again (Linux 6.8).
    const BIRTH: u32 = 0x800;
    const UNIQUE_MOUNT: u32 = 0x4000;
    /// Offsets in the kernel's `struct statx`.
    const BIRTH_AT: [usize; 2] = [10, 11];
    const MOUNT_AT: usize = 18;
    let metadata = file.metadata()?;
    let mut answer = [0_u64; 32];
    // SAFETY: the descriptor is open, the path is an empty C string, and the buffer has the 256 bytes of a `struct
    // statx`.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            BIRTH | UNIQUE_MOUNT,
            answer.as_mut_ptr(),
        )
    };
    // The mask in the answer, the first half of the first word, says which fields the kernel knows.
    let mask = if asked == 0 { answer[0] as u32 } else { 0 };
    let known = |bit, at: usize| if mask & bit != 0 { answer[at] } else { 0 };
    let birth = BIRTH_AT.map(|at| known(BIRTH, at));
    let parts = [metadata.dev(), metadata.ino(), birth[0], birth[1] as u32 as u64];
    Ok(SeenAs { mount: known(UNIQUE_MOUNT, MOUNT_AT), file: parts })
}

/// The mark of an inode: a hint of the life time of the file's data. The value means nothing, but differs from no hint. The kernel
/// keeps it with the inode in memory, and nowhere else. So an inode that has it was never out of memory since it was set.
const MARK: u64 = 1;

/// Marks the inode in memory. Only the file's owner may.
pub(crate) fn mark_in_memory(file: &File) {
    /// `F_SET_RW_HINT`
    const SET: libc::c_int = 1036;
    if !is_marked_in_memory(file) {
        // SAFETY: the descriptor is open, and the call reads one word. A failure leaves the inode without a mark.
        unsafe { libc::fcntl(file.as_raw_fd(), SET, &MARK) };
    }
}

/// Whether the inode has the mark.
pub(crate) fn is_marked_in_memory(file: &File) -> bool {
    /// `F_GET_RW_HINT`
    const GET: libc::c_int = 1035;
    let mut hint = 0_u64;
    // SAFETY: the descriptor is open, and the call stores one word.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), GET, &mut hint) };
    asked == 0 && hint == MARK
}

/// The number of the type of the file's file system.
pub(super) fn file_system_kind(file: &File) -> io::Result<u32> {
    // SAFETY: `statfs` is plain old data; the call fills it.
    unsafe {
        let mut s: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &mut s) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(s.f_type as u32)
    }
}

/// Whether the file may be on an overlay, where one inode number may stand for two files, one after the other.
pub(crate) fn is_on_overlay(file: &File) -> bool {
    const OVERLAYFS: u32 = 0x794c_7630;
    file_system_kind(file).is_ok_and(|kind| kind == OVERLAYFS)
}

/// The name of the file's file system, if it is shared between hosts.
pub(crate) fn network_file_system(file: &File) -> io::Result<Option<&'static str>> {
    Ok(match file_system_kind(file)? {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("CIFS/SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE or virtiofs"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x4750_4653 => Some("GPFS"),
        0x1983_0326 => Some("BeeGFS"),
        0x2003_0528 => Some("OrangeFS"),
        0xaad7_aaea => Some("PanFS"),
        0xbeef_dead => Some("StorNext"),
        0x564c => Some("NCP"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        0x786f_4256 => Some("vboxsf"),
        0xbacb_acbc => Some("vmhgfs"),
        0x7c7c_6673 => Some("Parallels' shared folders"),
        _ => None,
    })
}

/// Whether the file is only in memory (tmpfs, ramfs, hugetlbfs): it is lost with the system, and no flush changes that.
pub(crate) fn is_in_memory(file: &File) -> bool {
    matches!(file_system_kind(file), Ok(0x0102_1994 | 0x8584_58f6 | 0x9584_58f6))
}

/// An open file description of its own, which is told of every error of writing back from here on.
///
/// The kernel reports such an error once for each open file description. If several threads flushed through one, a thread could
/// miss an error that was reported to another.
pub(crate) struct Witness(File);

impl Witness {
    pub(crate) fn new(file: &ForkFile) -> io::Result<Self> {
        File::open(format!("/proc/self/fd/{}", file.same()?.as_raw_fd())).map(Self)
    }

    /// Flushes all pages of the file, and its length.
    pub(crate) fn flush_all(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Fails if writing back has failed since the last call. Writes nothing.
    pub(crate) fn ask(&self) -> io::Result<()> {
        ask_for_error(&self.0)
    }
}

/// Fails if there is an error of writing back that was not reported to this open file description yet. To a new one the kernel
/// reports an error that was reported to none.
pub(crate) fn ask_for_error(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call changes nothing.
    let asked = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 1, libc::SYNC_FILE_RANGE_WAIT_AFTER) };
    if asked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
