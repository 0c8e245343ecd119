//! The calls to the operating system that lock bytes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;

use super::Sharing;
use crate::file::door::{self, Call};

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
            // SAFETY: `file` keeps the descriptor open during the call, and `range` is the struct that these commands read
            // and write.
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

    pub(in super::super) fn try_lock(file: &File, places: Range<u64>, sharing: Sharing) -> io::Result<bool> {
        let kind = match sharing {
            Sharing::Shared => libc::F_RDLCK,
            Sharing::Exclusive => libc::F_WRLCK,
        };
        match call(file, SET, &mut range(&places, kind as _)) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(in super::super) fn unlock(file: &File, places: Range<u64>) -> io::Result<()> {
        call(file, SET, &mut range(&places, libc::F_UNLCK as _))
    }

    /// The start of some lock on these bytes that another opening holds.
    pub(in super::super) fn held(file: &File, places: Range<u64>) -> io::Result<Option<u64>> {
        let mut found = range(&places, libc::F_WRLCK as _);
        call(file, GET, &mut found)?;
        Ok((found.l_type as libc::c_int != libc::F_UNLCK as libc::c_int).then_some(found.l_start as u64))
    }
}

#[cfg(windows)]
mod imp {
    use std::os::windows::io::AsRawHandle;

    use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, HANDLE};
    use windows_sys::Win32::Storage::FileSystem::{
        LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
    };
    use windows_sys::Win32::System::IO::OVERLAPPED;

    use super::*;

    fn overlapped(start: u64) -> OVERLAPPED {
        // SAFETY: the struct consists of integers and a pointer, for which zero is a value.
        let mut overlapped: OVERLAPPED = unsafe { std::mem::zeroed() };
        overlapped.Anonymous.Anonymous.Offset = start as u32;
        overlapped.Anonymous.Anonymous.OffsetHigh = (start >> 32) as u32;
        overlapped
    }

    pub(in super::super) fn try_lock(file: &File, places: Range<u64>, sharing: Sharing) -> io::Result<bool> {
        let (mut place, len) = (overlapped(places.start), places.end - places.start);
        let exclusive = if sharing == Sharing::Exclusive { LOCKFILE_EXCLUSIVE_LOCK } else { 0 };
        let flags = LOCKFILE_FAIL_IMMEDIATELY | exclusive;
        // SAFETY: `file` keeps the handle open during the call, and `place` lives on this stack frame; the call returns at
        // once.
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

    /// Here only exactly what was locked can be unlocked; the rest goes when the handle is closed.
    pub(in super::super) fn unlock(file: &File, places: Range<u64>) -> io::Result<()> {
        let (mut place, len) = (overlapped(places.start), places.end - places.start);
        // SAFETY: as in `try_lock`.
        let unlocked =
            unsafe { UnlockFileEx(file.as_raw_handle() as HANDLE, 0, len as u32, (len >> 32) as u32, &mut place) };
        if unlocked != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Here nobody can be asked who has a lock. So this tries, and blames the first byte.
    pub(in super::super) fn held(file: &File, places: Range<u64>) -> io::Result<Option<u64>> {
        if places.is_empty() {
            return Ok(None);
        }
        if try_lock(file, places.clone(), Sharing::Exclusive)? {
            unlock(file, places)?;
            return Ok(None);
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

    pub(in super::super) fn try_lock(_file: &File, _places: Range<u64>, _sharing: Sharing) -> io::Result<bool> {
        unsupported()
    }

    pub(in super::super) fn unlock(_file: &File, _places: Range<u64>) -> io::Result<()> {
        unsupported()
    }

    pub(in super::super) fn held(_file: &File, _places: Range<u64>) -> io::Result<Option<u64>> {
        unsupported()
    }
}

pub(super) fn try_lock(file: &File, places: Range<u64>, sharing: Sharing) -> io::Result<bool> {
    door::call(Call::Lock)?;
    imp::try_lock(file, places, sharing)
}

pub(super) fn unlock(file: &File, places: Range<u64>) -> io::Result<()> {
    door::call(Call::Lock)?;
    imp::unlock(file, places)
}

pub(super) fn held(file: &File, places: Range<u64>) -> io::Result<Option<u64>> {
    door::call(Call::Lock)?;
    imp::held(file, places)
}

#[cfg(target_os = "linux")]
pub(super) fn network_file_system(file: &File) -> Option<&'static str> {
    use std::os::fd::AsRawFd;

    /// From `linux/magic.h` and the sources of the file systems that are not there.
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
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `file` keeps the descriptor open during the call, which fills in the struct that it is given.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) };
    // SAFETY: the struct consists of integers, for which the zeros that it began with are a value.
    let magic = unsafe { found.assume_init() }.f_type as u32;
    KNOWN.iter().find(|(known, _)| result == 0 && *known == magic).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn network_file_system(_file: &File) -> Option<&'static str> {
    None
}
