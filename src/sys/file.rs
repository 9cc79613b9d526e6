//! Files and what they lie on: creation that is seen whole or not at all, room, flushes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Opens an existing file.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)
}

/// Opens the same file anew: another open file description, with no part in the locks of `file`.
/// A mapping keeps its description open in forked children, so it must not be the one with the locks.
pub(crate) fn open_again(file: &File, writable: bool) -> io::Result<File> {
    open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), writable)
}

fn directory(path: &Path) -> PathBuf {
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
                return Err(io::Error::last_os_error());
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
                .and_then(|()| std::fs::hard_link(&temporary, path));
            std::fs::remove_file(&temporary)?;
            result?;
        }
        Err(e) => return Err(e),
    }
    File::open(dir)?.sync_all()
}

/// The mode as asked for, whatever the umask says.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// Allocates the blocks of a range, and extends the file to its end, or changes nothing.
pub(crate) fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open; the call touches no memory.
        let done =
            unsafe { libc::fallocate(file.as_raw_fd(), 0, offset as libc::off_t, bytes as libc::off_t) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the file system knows that nothing was ever written to a range.
pub(crate) fn is_unwritten(file: &File, offset: u64, bytes: u64) -> bool {
    // SAFETY: the descriptor is open; the call touches no memory. Nobody reads or writes this file where its
    // position is.
    let data = unsafe { libc::lseek(file.as_raw_fd(), offset as libc::off_t, libc::SEEK_DATA) };
    if data >= 0 {
        data as u64 >= offset + bytes
    } else {
        // No data from there on.
        io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO)
    }
}

/// Makes a range read as zeros, and gives its blocks back; the length stays.
pub(crate) fn punch(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open; mapped pages of the range read as zeros afterwards.
    let done =
        unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as libc::off_t, bytes as libc::off_t) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Random bits from the kernel.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { Ok(u64::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

/// The boot that this machine is in: differs after every start of the kernel.
pub(crate) fn boot_id() -> io::Result<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&hex, 16).map_err(io::Error::other)?;
    Ok([(number >> 64) as u64, number as u64])
}

/// The name of the file system that the file lies on, if it is shared between hosts.
pub(crate) fn network_file_system(file: &File) -> io::Result<Option<&'static str>> {
    // SAFETY: `statfs` is plain old data; the call fills it.
    let kind = unsafe {
        let mut s: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &mut s) != 0 {
            return Err(io::Error::last_os_error());
        }
        s.f_type as u32
    };
    Ok(match kind {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("CIFS/SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE or virtiofs"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f => Some("AFS"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        0x786f_4256 => Some("vboxsf"),
        _ => None,
    })
}

/// An open file of its own, which sees every error of writing back that happens from here on.
///
/// The kernel tells of such an error once for each open file. Threads that flush at the same time through
/// one could miss what was told to another.
pub(crate) struct Witness(File);

impl Witness {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(Self)
    }

    /// Flushes all pages of the file, and its length.
    pub(crate) fn flush_all(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Gives an error that happened since it was last asked. Nothing is written.
    pub(crate) fn ask(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open; the call changes nothing.
        let asked =
            unsafe { libc::sync_file_range(self.0.as_raw_fd(), 0, 1, libc::SYNC_FILE_RANGE_WAIT_AFTER) };
        if asked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
