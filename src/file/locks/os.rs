//! The calls to the operating system that lock bytes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;

pub(super) use imp::Mine;

use super::{FileId, Sharing};
use crate::file::witness::{self, Call};

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
mod imp {
    use std::os::fd::AsRawFd;

    use super::*;

    #[cfg(not(target_os = "macos"))]
    type Flock = libc::flock64;
    #[cfg(target_os = "macos")]
    type Flock = libc::flock;

    #[cfg(not(target_os = "macos"))]
    const SET: libc::c_int = libc::F_OFD_SETLK;
    #[cfg(not(target_os = "macos"))]
    const GET: libc::c_int = libc::F_OFD_GETLK;
    /// From Apple's `sys/fcntl.h`.
    #[cfg(target_os = "macos")]
    const SET: libc::c_int = 90;
    #[cfg(target_os = "macos")]
    const GET: libc::c_int = 92;

    /// The kernel knows which locks are ours.
    #[derive(Debug, Default)]
    pub(in super::super) struct Mine;

    fn kind(sharing: Sharing) -> libc::c_int {
        match sharing {
            Sharing::Shared => libc::F_RDLCK as _,
            Sharing::Exclusive => libc::F_WRLCK as _,
        }
    }

    fn range(places: &Range<u64>, kind: libc::c_int) -> Flock {
        // SAFETY: the struct consists of integers, for which zero is a value; open-file-description locks want the
        // process id to be zero.
        let mut range: Flock = unsafe { std::mem::zeroed() };
        range.l_type = kind as _;
        range.l_whence = libc::SEEK_SET as _;
        range.l_start = places.start as _;
        range.l_len = (places.end - places.start) as _;
        range
    }

    fn call(file: &File, command: libc::c_int, range: &mut Flock) -> io::Result<()> {
        loop {
            #[cfg(any(target_pointer_width = "64", target_os = "macos"))]
            // SAFETY: `file` keeps the descriptor open during the call, and `range` is the struct that these commands
            // read and write.
            let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut *range) };
            #[cfg(not(any(target_pointer_width = "64", target_os = "macos")))]
            // The C library's `fcntl` takes offsets of 32 bits there.
            // SAFETY: as above.
            let result = unsafe { libc::syscall(libc::SYS_fcntl64, file.as_raw_fd(), command, &raw mut *range) };
            if result != -1 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    pub(in super::super) fn try_lock(file: &File, _mine: &Mine, place: u64, sharing: Sharing) -> io::Result<bool> {
        match call(file, SET, &mut range(&(place..place + 1), kind(sharing))) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(in super::super) fn unlock(file: &File, _mine: &Mine, places: Range<u64>) -> io::Result<()> {
        call(file, SET, &mut range(&places, libc::F_UNLCK as _))
    }

    /// The start of some lock of another opening on these bytes that conflicts with a lock `with` this sharing.
    pub(in super::super) fn held(
        file: &File,
        _mine: &Mine,
        places: Range<u64>,
        with: Sharing,
    ) -> io::Result<Option<u64>> {
        let mut found = range(&places, kind(with));
        call(file, GET, &mut found)?;
        Ok((found.l_type as libc::c_int != libc::F_UNLCK as libc::c_int).then_some(found.l_start as u64))
    }
}

#[cfg(windows)]
mod imp {
    use std::collections::BTreeMap;
    use std::os::windows::io::AsRawHandle;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, HANDLE};
    use windows_sys::Win32::Storage::FileSystem::{
        LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
    };
    use windows_sys::Win32::System::IO::OVERLAPPED;

    use super::*;

    /// The bytes that we have locked, and how. The system does not tell our locks from those of others, locks a byte
    /// twice if it is asked twice, and unlocks only exactly what was locked.
    #[derive(Debug, Default)]
    pub(in super::super) struct Mine(Mutex<BTreeMap<u64, Sharing>>);

    impl Mine {
        fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Sharing>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    fn overlapped(start: u64) -> OVERLAPPED {
        // SAFETY: the struct consists of integers and a pointer, for which zero is a value.
        let mut overlapped: OVERLAPPED = unsafe { std::mem::zeroed() };
        overlapped.Anonymous.Anonymous.Offset = start as u32;
        overlapped.Anonymous.Anonymous.OffsetHigh = (start >> 32) as u32;
        overlapped
    }

    fn lock_range(file: &File, places: &Range<u64>, sharing: Sharing) -> io::Result<bool> {
        let (mut place, len) = (overlapped(places.start), places.end - places.start);
        let exclusive = if sharing == Sharing::Exclusive { LOCKFILE_EXCLUSIVE_LOCK } else { 0 };
        let flags = LOCKFILE_FAIL_IMMEDIATELY | exclusive;
        // SAFETY: `file` keeps the handle open during the call, and `place` lives on this stack frame; the call returns
        // at once.
        let locked =
            unsafe { LockFileEx(file.as_raw_handle() as HANDLE, flags, 0, len as u32, (len >> 32) as u32, &mut place) };
        if locked != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error().map(|code| code as u32) {
            Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Ok(false),
            _ => Err(error),
        }
    }

    fn unlock_range(file: &File, places: &Range<u64>) -> io::Result<()> {
        let (mut place, len) = (overlapped(places.start), places.end - places.start);
        // SAFETY: as in `lock_range`.
        let unlocked =
            unsafe { UnlockFileEx(file.as_raw_handle() as HANDLE, 0, len as u32, (len >> 32) as u32, &mut place) };
        if unlocked != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(in super::super) fn try_lock(file: &File, mine: &Mine, place: u64, sharing: Sharing) -> io::Result<bool> {
        let mut mine = mine.lock();
        let before = mine.get(&place).copied();
        if before == Some(sharing) {
            return Ok(true);
        }
        let byte = place..place + 1;
        if before.is_some() {
            unlock_range(file, &byte)?;
            mine.remove(&place);
        }
        let locked = lock_range(file, &byte, sharing)?;
        // If refused, the old lock is taken back, unless another opener was faster.
        let now = match before {
            _ if locked => Some(sharing),
            Some(before) if lock_range(file, &byte, before)? => Some(before),
            _ => None,
        };
        if let Some(now) = now {
            mine.insert(place, now);
        }
        Ok(locked)
    }

    pub(in super::super) fn unlock(file: &File, mine: &Mine, places: Range<u64>) -> io::Result<()> {
        let mut mine = mine.lock();
        let ours: Vec<u64> = mine.range(places).map(|(&place, _)| place).collect();
        for place in ours {
            unlock_range(file, &(place..place + 1))?;
            mine.remove(&place);
        }
        Ok(())
    }

    /// The first of these bytes that another opening has a lock on that conflicts with one `with` this sharing. The
    /// system cannot be asked, so this tries to lock them; other openers may be refused in that moment.
    pub(in super::super) fn held(
        file: &File,
        mine: &Mine,
        places: Range<u64>,
        with: Sharing,
    ) -> io::Result<Option<u64>> {
        let mine = mine.lock();
        let ours = mine.range(places.clone()).map(|(&place, _)| place);
        let mut start = places.start;
        for place in ours.chain([places.end]) {
            if let Some(held) = first_held(file, start..place, with)? {
                return Ok(Some(held));
            }
            start = place + 1;
        }
        Ok(None)
    }

    fn is_free(file: &File, places: &Range<u64>, with: Sharing) -> io::Result<bool> {
        Ok(places.is_empty() || lock_range(file, places, with)? && unlock_range(file, places).map(|()| true)?)
    }

    fn first_held(file: &File, mut places: Range<u64>, with: Sharing) -> io::Result<Option<u64>> {
        if is_free(file, &places, with)? {
            return Ok(None);
        }
        // A lock released meanwhile makes the result too low, which is harmless, never too high.
        while places.end - places.start > 1 {
            let middle = places.start + (places.end - places.start) / 2;
            if is_free(file, &(places.start..middle), with)? {
                places.start = middle;
            } else {
                places.end = middle;
            }
        }
        Ok(Some(places.start))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
mod imp {
    use super::*;

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no locks that belong to an open file"))
    }

    #[derive(Debug, Default)]
    pub(in super::super) struct Mine;

    pub(in super::super) fn try_lock(_file: &File, _mine: &Mine, _place: u64, _sharing: Sharing) -> io::Result<bool> {
        unsupported()
    }

    pub(in super::super) fn unlock(_file: &File, _mine: &Mine, _places: Range<u64>) -> io::Result<()> {
        unsupported()
    }

    pub(in super::super) fn held(
        _file: &File,
        _mine: &Mine,
        _places: Range<u64>,
        _with: Sharing,
    ) -> io::Result<Option<u64>> {
        unsupported()
    }
}

pub(super) fn try_lock(file: &File, mine: &Mine, place: u64, sharing: Sharing) -> io::Result<bool> {
    witness::call(Call::Lock)?;
    imp::try_lock(file, mine, place, sharing)
}

pub(super) fn unlock(file: &File, mine: &Mine, places: Range<u64>) -> io::Result<()> {
    witness::call(Call::Lock)?;
    imp::unlock(file, mine, places)
}

pub(super) fn held(file: &File, mine: &Mine, places: Range<u64>, with: Sharing) -> io::Result<Option<u64>> {
    witness::call(Call::Lock)?;
    imp::held(file, mine, places, with)
}

/// Locks or unlocks the whole file, without waiting: a lock that does not collide with those on bytes.
#[cfg(target_os = "linux")]
fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: `file` keeps the descriptor open during the call, which takes no pointer.
    match unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Locks the whole file; `false` if another opening has it locked.
#[cfg(target_os = "linux")]
pub(super) fn try_whole(file: &File, sharing: Sharing) -> io::Result<bool> {
    witness::call(Call::Lock)?;
    let operation = match sharing {
        Sharing::Shared => libc::LOCK_SH,
        Sharing::Exclusive => libc::LOCK_EX,
    };
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unlocks the whole file.
#[cfg(target_os = "linux")]
pub(super) fn unlock_whole(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_UN)
}

/// The identity of this file among all that exist at the same time.
#[cfg(unix)]
pub(super) fn id(file: &File) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(windows)]
pub(super) fn id(file: &File) -> io::Result<FileId> {
    use std::os::windows::io::AsRawHandle;

    use windows_sys::Win32::Storage::FileSystem::{BY_HANDLE_FILE_INFORMATION, GetFileInformationByHandle};

    let mut found = std::mem::MaybeUninit::<BY_HANDLE_FILE_INFORMATION>::zeroed();
    // SAFETY: `file` keeps the handle open during the call, which fills in the struct that it is given.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), found.as_mut_ptr()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the struct consists of integers, for which the zeros that it began with are a value.
    let found = unsafe { found.assume_init() };
    let index = u64::from(found.nFileIndexHigh) << 32 | u64::from(found.nFileIndexLow);
    Ok((found.dwVolumeSerialNumber.into(), index))
}

#[cfg(target_os = "linux")]
pub(super) fn network_file_system(file: &File) -> Option<&'static str> {
    use std::os::fd::AsRawFd;

    /// From `linux/magic.h`, and else from the sources of the file systems.
    const KNOWN: [(u32, &str); 13] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x564c, "NCP"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x7375_7245, "Coda"),
        // Among them virtiofs, the folders that a virtual machine shares with its host.
        (0x6573_5546, "FUSE"),
        (0x7461_636f, "OCFS2"),
        (0x0116_1970, "GFS2"),
        (0x0bd0_0bd0, "Lustre"),
    ];
    // Plain `fstatfs` fails on 32-bit systems if a size of the file system does not fit.
    let mut found = std::mem::MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: `file` keeps the descriptor open during the call, which fills in the struct that it is given.
    let result = unsafe { libc::fstatfs64(file.as_raw_fd(), found.as_mut_ptr()) };
    // SAFETY: the struct consists of integers, for which the zeros that it began with are a value.
    let magic = unsafe { found.assume_init() }.f_type as u32;
    KNOWN.iter().find(|(known, _)| result == 0 && *known == magic).map(|(_, name)| *name)
}

#[cfg(target_os = "macos")]
pub(super) fn network_file_system(file: &File) -> Option<&'static str> {
    use std::os::fd::AsRawFd;

    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `file` keeps the descriptor open during the call, which fills in the struct that it is given.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) };
    // SAFETY: the struct consists of integers, for which the zeros that it began with are a value.
    let local = unsafe { found.assume_init() }.f_flags & libc::MNT_LOCAL as u32 != 0;
    (result == 0 && !local).then_some("a network file system")
}

#[cfg(windows)]
pub(super) fn network_file_system(file: &File) -> Option<&'static str> {
    use std::os::windows::io::AsRawHandle;

    use windows_sys::Win32::Storage::FileSystem::{
        FILE_REMOTE_PROTOCOL_INFO, FileRemoteProtocolInfo, GetFileInformationByHandleEx,
    };

    let mut found = std::mem::MaybeUninit::<FILE_REMOTE_PROTOCOL_INFO>::zeroed();
    let size = size_of::<FILE_REMOTE_PROTOCOL_INFO>() as u32;
    // Only files on another machine have such information.
    // SAFETY: `file` keeps the handle open during the call, which fills in no more than the struct that it is given.
    let remote = unsafe {
        GetFileInformationByHandleEx(file.as_raw_handle(), FileRemoteProtocolInfo, found.as_mut_ptr().cast(), size)
    };
    (remote != 0).then_some("a network file system")
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub(super) fn network_file_system(_file: &File) -> Option<&'static str> {
    None
}
