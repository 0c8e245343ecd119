//! The few calls to the operating system that neither std nor memmap2 offers.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::span::Span;
use crate::error::FullReason;
use crate::file::witness::{self, Call};

/// Why a file could not be made longer.
#[derive(Debug)]
pub(super) enum Refused {
    Full(FullReason),
    Io(io::Error),
}

/// Makes a file of `old` bytes at least `to` bytes long, with real space for `from..to`, none of which is in use: a
/// later store through a mapping cannot run into a full disk. Bytes past `old` read as zeros, bytes before `from` are
/// not touched. On failure the file has its old length.
pub(super) fn extend(file: &File, from: u64, old: u64, to: u64) -> Result<(), Refused> {
    if let Some(limit) = file_size_limit()
        && to > old
        && to > limit
    {
        // Beyond the limit the kernel does not just refuse, it sends SIGXFSZ, which kills.
        return Err(Refused::Full(FullReason::FileSizeLimit(limit)));
    }
    if from >= to {
        return Ok(());
    }
    witness::allocate(file, to).and_then(|()| allocate(file, from, to)).map_err(|error| {
        // A failed allocation may leave the file extended with a hole.
        let restored = if to > old { set_len(file, old) } else { Ok(()) };
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::Full(FullReason::Disk),
            io::ErrorKind::FileTooLarge => Refused::Full(FullReason::AddressSpace(old)),
            _ => Refused::Io(restored.err().unwrap_or(error)),
        }
    })
}

/// How many bytes of a file have no real space, as far as the system tells.
#[cfg(unix)]
pub(super) fn missing_space(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;

    let found = file.metadata()?;
    Ok(found.len().saturating_sub(found.blocks() * 512))
}

#[cfg(not(unix))]
pub(super) fn missing_space(_file: &File) -> io::Result<u64> {
    Ok(0)
}

/// Allocates real space for a range of a file that others may be using; neither its bytes nor its length change.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn fill_holes(file: &File, from: u64, to: u64) -> Result<(), Refused> {
    use std::os::fd::AsRawFd;

    let (Ok(start), Ok(len)) = (libc::off_t::try_from(from), libc::off_t::try_from(to - from)) else { return Ok(()) };
    let filled = witness::allocate(file, to).and_then(|()| {
        loop {
            // SAFETY: `fallocate` takes a descriptor, which `file` keeps open during the call, and integers.
            if unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, start, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // Writing zeros instead, as for new space, could overwrite what another process writes.
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
                _ => return Err(error),
            }
        }
    });
    filled.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::Full(FullReason::Disk),
        _ => Refused::Io(error),
    })
}

/// The system has no call for that.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn fill_holes(_file: &File, _from: u64, _to: u64) -> Result<(), Refused> {
    Ok(())
}

/// The present length of the file.
///
/// Not for a commit that is about to be flushed: after a look at the inode, Linux gives the next write a time stamp of
/// its own, and the flush then writes the inode as well.
pub(super) fn len(file: &File) -> io::Result<u64> {
    witness::call(Call::Length)?;
    Ok(file.metadata()?.len())
}

/// Shortens the file to this length.
pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
    witness::call(Call::Truncate)?;
    file.set_len(len)
}

/// Whether a file could not be shortened because a process has it mapped, which some systems refuse.
pub(super) fn is_mapped_elsewhere(error: &io::Error) -> bool {
    /// `ERROR_USER_MAPPED_FILE`.
    const MAPPED: i32 = 1224;
    cfg!(windows) && error.raw_os_error() == Some(MAPPED)
}

/// Zeroes an unused range of a mapping that is memory of this process, and gives its whole pages back. With a file
/// behind it, dropping the pages is not enough: the content of the file would reappear.
pub(super) fn discard(span: Option<&std::sync::Arc<Span>>, offset: u64, len: u64) {
    let Some(span) = span.filter(|span| offset + len <= span.len() as u64) else { return };
    let (start, end) = (offset as usize, (offset + len) as usize);
    let zero = |from: usize, to: usize| {
        // SAFETY: `from..to` lies in the mapping (checked above), which can be written to. It is a part of a free range
        // of the store, into which no reference points.
        unsafe { span.as_mut_ptr().add(from).write_bytes(0, to - from) };
    };
    let whole = whole_pages(start..end, page_size());
    if !whole.is_empty() && renew(span, whole.start, whole.len()) {
        zero(start, whole.start);
        zero(whole.end, end);
    } else {
        zero(start, end);
    }
}

/// Takes the whole pages of a part of a span that shows a file out of the page table. An access finds them in the file
/// again.
#[cfg(target_os = "linux")]
pub(super) fn map_anew(span: Option<&std::sync::Arc<Span>>, offset: u64, len: u64) {
    let Some(span) = span.filter(|span| offset + len <= span.len() as u64) else { return };
    let pages = whole_pages(offset as usize..(offset + len) as usize, page_size());
    // SAFETY: the pages lie in the span (checked above), which shows a file that is shared with it: so whatever is
    // borrowed from them stays as it is. If the system refuses, nothing has changed.
    unsafe { libc::madvise(span.as_mut_ptr().add(pages.start).cast(), pages.len(), libc::MADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn map_anew(_: Option<&std::sync::Arc<Span>>, _: u64, _: u64) {}

/// Puts new memory, all zeros, in place of whole pages of a span, into which no reference points. `false` if the system
/// does not offer that; then they are unchanged.
#[cfg(unix)]
fn renew(span: &Span, offset: usize, len: usize) -> bool {
    assert!(offset + len <= span.len(), "the pages lie in the span");
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED);
    // SAFETY: `MAP_FIXED` replaces only pages of `span` (asserted), in one step, and no reference points into them.
    // They are unmapped with the rest of it when `span` is dropped.
    let mapped = unsafe {
        let at = span.as_mut_ptr().add(offset).cast();
        libc::mmap(at, len, access, flags | NO_RESERVE, -1, 0)
    };
    mapped != libc::MAP_FAILED
}

/// The whole pages within a range, empty if there are none. Pages can be longer than blocks, and what shares a page
/// with the range may be in use.
pub(super) fn whole_pages(range: std::ops::Range<usize>, page: usize) -> std::ops::Range<usize> {
    range.start.next_multiple_of(page)..range.end / page * page
}

#[cfg(not(unix))]
fn renew(_span: &Span, _offset: usize, _len: usize) -> bool {
    false
}

/// Memory is committed when it is touched, not before, where the system can do so.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
pub(super) const NO_RESERVE: libc::c_int = 0;

#[cfg(unix)]
pub(super) fn page_size() -> usize {
    // SAFETY: the call takes an integer, and every system knows this one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // The system always knows its page size; with the fallback, almost no range holds a whole page.
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(1 << 30)
}

#[cfg(not(unix))]
fn page_size() -> usize {
    1 << 12
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn allocate(file: &File, old: u64, new: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let start = libc::off_t::try_from(old).map_err(too_large)?;
    let delta = libc::off_t::try_from(new - old).map_err(too_large)?;
    loop {
        // SAFETY: `fallocate` takes a descriptor, which `file` keeps open during the call, and integers.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, start, delta) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Not `posix_fallocate`: where the file system lacks the call, that writes into every block of the range.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return fill(file, old, new),
            _ => return Err(error),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allocate(file: &File, old: u64, new: u64) -> io::Result<()> {
    fill(file, old, new)
}

/// Writes zeros from `old` to `new`: the only allocation that every file system knows.
fn fill(mut file: &File, old: u64, new: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};

    let zeros = [0; 1 << 16];
    file.seek(SeekFrom::Start(old))?;
    let mut left = new - old;
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        file.write_all(&zeros[..piece as usize])?;
        left -= piece;
    }
    Ok(())
}

/// The longest file that this process may write, if there is a limit.
#[cfg(unix)]
pub(super) fn file_size_limit() -> Option<u64> {
    limit(libc::RLIMIT_FSIZE)
}

#[cfg(not(unix))]
pub(super) fn file_size_limit() -> Option<u64> {
    None
}

/// How many addresses this process may use, if there is a limit.
#[cfg(unix)]
pub(super) fn address_limit() -> Option<u64> {
    limit(libc::RLIMIT_AS)
}

#[cfg(not(unix))]
pub(super) fn address_limit() -> Option<u64> {
    None
}

/// A mapping error that names the limit it may come from.
pub(super) fn naming_limit(error: io::Error) -> io::Error {
    match address_limit() {
        Some(limit) if error.kind() == io::ErrorKind::OutOfMemory => {
            let what = format!("{error}; the addresses of this process are limited to {limit} bytes (`ulimit -v`)");
            io::Error::new(error.kind(), what)
        }
        _ => error,
    }
}

/// The type of names of limits differs among systems.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
type Resource = libc::c_int;

#[cfg(unix)]
fn limit(of: Resource) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `getrlimit` fills in the struct that it is given, which lives on this stack frame.
    let result = unsafe { libc::getrlimit(of, &mut limit) };
    #[allow(clippy::useless_conversion, reason = "on some targets the limit has 32 bits")]
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then(|| limit.rlim_cur.into())
}

/// The identity of a file's page cache: boot id (two words), device, inode, birth time and mount. `None` where the
/// system cannot tell, which costs a recovery after a kill its speed, never its data.
#[cfg(target_os = "linux")]
pub(super) fn identity(file: &File) -> Option<[u64; 6]> {
    use std::os::fd::AsRawFd;

    /// Since Linux 6.8: a mount id that is not used again until the next boot, so that a disk that was pulled and
    /// plugged in again shows.
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).ok()?;

    let wanted = libc::STATX_INO | libc::STATX_BTIME | STATX_MNT_ID_UNIQUE;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a literal C string, and `found` has room for the struct that the call fills in.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, wanted, found.as_mut_ptr()) };
    // SAFETY: the struct consists of integers, for which the zeros that it began with are a value.
    let found = unsafe { found.assume_init() };
    if result != 0 || found.stx_mask & wanted != wanted {
        return None;
    }
    let birth = (found.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000) + u64::from(found.stx_btime.tv_nsec);
    Some([
        (boot >> 64) as u64,
        boot as u64,
        (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor),
        found.stx_ino,
        birth,
        found.stx_mnt_id,
    ])
}

#[cfg(not(target_os = "linux"))]
pub(super) fn identity(_file: &File) -> Option<[u64; 6]> {
    None
}

/// A hint on how long the content of the file lives, which nothing else sets to this value. The system keeps it with
/// the inode in memory, and on no disk: while it is there, this is the inode, and so the page cache, that was marked.
#[cfg(target_os = "linux")]
const MARK: u64 = 5;

/// From `linux/fcntl.h`; Linux 4.13. The mark is `RWH_WRITE_LIFE_EXTREME`.
#[cfg(target_os = "linux")]
const F_GET_RW_HINT: libc::c_int = 1024 + 11;
#[cfg(target_os = "linux")]
const F_SET_RW_HINT: libc::c_int = 1024 + 12;

/// Marks the file for as long as its page cache lives, where the system lets us.
#[cfg(target_os = "linux")]
pub(super) fn mark(file: &File) {
    use std::os::fd::AsRawFd;

    let mark = MARK;
    // If this fails, the mount alone tells.
    // SAFETY: `file` keeps the descriptor open during the call, which reads a word that lives on this stack frame.
    unsafe { libc::fcntl(file.as_raw_fd(), F_SET_RW_HINT, &raw const mark) };
}

/// Whether the file was [marked](mark) since it came into memory.
#[cfg(target_os = "linux")]
pub(super) fn is_marked(file: &File) -> bool {
    use std::os::fd::AsRawFd;

    let mut found = 0u64;
    // SAFETY: `file` keeps the descriptor open during the call, which writes to a word that lives on this stack frame.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), F_GET_RW_HINT, &raw mut found) };
    result == 0 && found == MARK
}

#[cfg(not(target_os = "linux"))]
pub(super) fn mark(_file: &File) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_marked(_file: &File) -> bool {
    false
}

/// Begins writing a range back, and does not wait.
#[cfg(target_os = "linux")]
pub(super) fn begin_writing_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits for the writes of a range that are under way.
#[cfg(target_os = "linux")]
pub(super) fn wait_for_writing_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

/// Errors count: a failure reported here is not reported again by a later flush of this open file.
#[cfg(target_os = "linux")]
fn sync_file_range(file: &File, offset: u64, len: u64, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return Ok(()) };
    // SAFETY: `sync_file_range` takes a descriptor, which `file` keeps open during the call, and integers.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A kernel or a file system without the call, or a signal: then the flush does all of it.
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP | libc::EPERM | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn begin_writing_back(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Writing back cannot be begun early here, so this does all of it.
#[cfg(not(target_os = "linux"))]
pub(super) fn wait_for_writing_back(file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    file.sync_data()
}

/// Puts the first `len` bytes of a file, a multiple of the page size or all of it, in place of the first bytes of a
/// span that is at least as long. Writes to them stay in this process.
#[cfg(unix)]
pub(super) fn put_private(span: &Span, file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    assert!(len <= span.len() as u64, "the file fits into the mapping");
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED | NO_RESERVE);
    let at = span.as_mut_ptr().cast();
    // SAFETY: `MAP_FIXED` replaces only pages of `span`, from its start, which is that of a page, and no further than
    // its end (asserted); there is no reference into it yet. It is unmapped as a whole when `span` is dropped.
    let mapped = unsafe { libc::mmap(at, len as usize, access, flags, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // The last page may show more of the file than that, where pages are larger than blocks.
    let end = (len as usize).next_multiple_of(page_size()).min(span.len());
    // SAFETY: the bytes belong to the page of the last byte of `len`, so to the file and to the span, which is private
    // to this process and into which there is no reference yet.
    unsafe { span.as_mut_ptr().add(len as usize).write_bytes(0, end - len as usize) };
    Ok(())
}

/// Here no span can replace a part of another, so the file is read.
#[cfg(not(unix))]
pub(super) fn put_private(span: &Span, file: &File, len: u64) -> io::Result<()> {
    assert!(len <= span.len() as u64, "the file fits into the mapping");
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(buffer.len() as u64) as usize;
        read_at(file, at, &mut buffer[..piece])?;
        // SAFETY: `at + piece` is at most `len`, and the span, which is private to this process and into which there is
        // no reference yet, is at least that long.
        unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), span.as_mut_ptr().add(at as usize), piece) };
        at += piece as u64;
    }
    Ok(())
}

/// Writes bytes without the mapping.
#[inline]
pub(super) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    witness::call(Call::Append)?;
    write_all_at(file, offset, bytes)
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;

    while !bytes.is_empty() {
        match file.seek_write(bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
pub(super) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;

    while !bytes.is_empty() {
        match file.seek_read(bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                offset += read as u64;
                bytes = &mut bytes[read..];
            }
        }
    }
    Ok(())
}

/// Sleeps while `word`, which is little-endian, is `seen`, until [`wake`] or the end of `timeout`.
#[cfg(target_os = "linux")]
pub(super) fn wait(word: &AtomicU32, seen: u32, timeout: Duration) {
    /// The timeout that this call takes. The C library's struct of that name differs where its times are longer than
    /// the system's words.
    #[repr(C)]
    struct Timeout {
        seconds: libc::c_long,
        nanoseconds: libc::c_long,
    }
    let seconds = libc::c_long::try_from(timeout.as_secs()).unwrap_or(libc::c_long::MAX);
    let timeout = Timeout { seconds, nanoseconds: timeout.subsec_nanos() as _ };
    // Not FUTEX_PRIVATE_FLAG: the word is shared with other processes. SAFETY: the kernel reads the word, which is
    // aligned and lives during the call, and the timeout on this stack frame.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen.to_le(), &raw const timeout) };
}

/// Wakes all threads that sleep on `word`, in all processes.
#[cfg(target_os = "linux")]
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: the address only names the queue of sleepers.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

/// Here no thread can be woken across processes, so this looks again soon.
#[cfg(not(target_os = "linux"))]
pub(super) fn wait(_word: &AtomicU32, _seen: u32, timeout: Duration) {
    std::thread::sleep(timeout.min(Duration::from_millis(1)));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn wake(_word: &AtomicU32) {}
