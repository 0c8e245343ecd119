//! The file at a path: whether it is a file, whether it is still the same, and what the system's errors about it mean.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::settings::Settings;
use crate::error::{Error, FullReason, Result};
use crate::file::layout::{BLOCK, MAX_FILE_LEN};
#[cfg(not(unix))]
use crate::file::locks::is_same_file;
use crate::file::locks::{Locks, OPENING, Sharing};
#[cfg(unix)]
use crate::file::witness::{self, Call};

/// The least limit of a store that evicts: entries, an index and the reserve have to fit into it.
const LEAST_CACHE: u64 = 1 << 20;

/// Refuses what cannot be a store before opening it: opening a FIFO may block for ever.
pub(super) fn check_path(path: &Path, settings: &Settings) -> Result<()> {
    if settings.create_new && !settings.access.is_to_file() {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "a store that is opened read-only or copy-on-write cannot be created; open it for writing",
        });
    }
    check_settings(path, settings)?;
    match fs::metadata(path) {
        Ok(metadata) => check_is_file(path, &metadata),
        Err(_) => Ok(()),
    }
}

/// Refuses settings that make no sense for any store.
pub(super) fn check_settings(path: &Path, settings: &Settings) -> Result<()> {
    if settings.auto_compact.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "the dead share from which on the log is compacted is between 0 and 1; give such a one, or `None`",
        });
    }
    if settings.mode.is_some_and(|mode| mode & 0o600 != 0o600 || mode > 0o7777) {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "the mode of a new file lets its owner read and write, and has no bits beyond 0o7777",
        });
    }
    if settings.evict.is_some() && !(LEAST_CACHE..MAX_FILE_LEN).contains(&settings.max_size) {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "a store that evicts has a `max_size`, of 1 MiB at least",
        });
    }
    Ok(())
}

/// Opens the file. Also returns its place if it was created for us.
pub(super) fn open_file(path: &Path, settings: &Settings) -> Result<(File, Option<PathBuf>)> {
    let to_file = settings.access.is_to_file();
    let mut options = OpenOptions::new();
    options.read(true).write(to_file);
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes"))]
    let mut creating = options.clone();
    #[cfg(unix)]
    if let Some(mode) = settings.mode {
        std::os::unix::fs::OpenOptionsExt::mode(&mut creating, mode);
    }
    // A file may appear or vanish between two looks at its path; that settles after a few rounds.
    for _ in 0..16 {
        match options.open(path) {
            Ok(_) if settings.create_new => return Err(Error::AlreadyExists { path: path.to_owned() }),
            Ok(file) => return Ok((file, None)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && settings.create && to_file => {}
            Err(error) => return Err(opening_error(path, error)),
        }
        match creating.clone().create_new(true).open(path) {
            Ok(file) => return Ok((file, Some(path.to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(opening_error(path, error)),
        }
        if !fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
            continue;
        }
        // A link that leads to nothing, which for the system is something that exists.
        if settings.create_new {
            return Err(Error::AlreadyExists { path: path.to_owned() });
        }
        // The system follows it, not this crate: it knows which links must not be followed. If another opener creates
        // the file in between, that does no harm.
        let file = creating.clone().create(true).open(path).map_err(|error| opening_error(path, error))?;
        return Ok((file, fs::canonicalize(path).ok()));
    }
    Err(Error::NotFound { path: path.to_owned() })
}

/// A file that was created for an opening, and is removed if the opening fails.
pub(super) struct Made {
    place: PathBuf,
    locks: Arc<Locks>,
}

impl Made {
    pub(crate) fn new(place: PathBuf, locks: Arc<Locks>) -> Made {
        Made { place, locks }
    }

    /// Removes a file in which the creation of a store has begun. Only for the holder of the lock for opening.
    pub(crate) fn remove(&self) {
        // If this fails, the next opening sees what it is: empty, or begun.
        let _ = fs::remove_file(&self.place);
    }

    fn is_empty(&self) -> bool {
        self.locks.file().metadata().is_ok_and(|metadata| metadata.len() == 0)
    }
}

impl Drop for Made {
    /// Removes a file that did not become a store. With the lock for opening held, no other process begins to create a
    /// store in it; and a process that waits for that lock then checks whether the file is still there.
    fn drop(&mut self) {
        if self.is_empty()
            && self.locks.try_lock(OPENING, Sharing::Exclusive).unwrap_or(false)
            && self.is_empty()
            && is_at(self.locks.file(), &self.place)
        {
            self.remove();
        }
    }
}

pub(crate) fn check_is_file(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a directory" } else { special_kind(kind) };
    Err(Error::NotAFile { path: path.to_owned(), what })
}

#[cfg(unix)]
fn special_kind(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special_kind(_kind: fs::FileType) -> &'static str {
    "a device"
}

/// The mode of a store that is made from this file: those who may use the one may use the other.
#[cfg(unix)]
pub(super) fn mode_of(file: &File) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;

    Some(file.metadata().ok()?.permissions().mode() & 0o777 | 0o600)
}

#[cfg(not(unix))]
pub(super) fn mode_of(_file: &File) -> Option<u32> {
    None
}

/// Whether this is the file at the path.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    // Not opened again: by now, that could block for ever.
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => id(file) == id(there),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    File::open(path).and_then(|there| is_same_file(file, &there)).unwrap_or(false)
}

/// Opens a file once more for reading, with its own locks, wherever its path leads by now.
pub(super) fn open_again(file: &File, path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        if let Ok(again) = File::open(link) {
            return Ok(again);
        }
    }
    let again = File::open(path)?;
    if crate::file::locks::is_same_file(file, &again)? { Ok(again) } else { Err(io::ErrorKind::NotFound.into()) }
}

pub(crate) fn opening_error(path: &Path, error: io::Error) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::PermissionDenied { path },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path },
        io::ErrorKind::IsADirectory => Error::NotAFile { path, what: "a directory" },
        _ => Error::Io { path, doing: "open the file", source: error },
    }
}

/// The error of creating a file: a full disk may show before anything is mapped.
pub(super) fn creation_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { path: path.to_owned(), needed: BLOCK, why: FullReason::Disk }
        }
        _ => Error::io(path, "write the new file", error),
    }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the entry of a new file durable, as far as the system allows: an unreadable folder, or one in a file system
/// without this call, is written when the system sees fit. A file without a name has no entry.
#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let place = match fs::canonicalize(path) {
        Ok(place) => place,
        // It is in no folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => path.to_owned(),
    };
    let flush = || witness::call(Call::Folder).and_then(|()| File::open(folder_of(&place))?.sync_all());
    match flush() {
        Err(error) if is_refused(error.kind()) => Ok(()),
        synced => synced.map_err(|e| Error::io(path, "flush the folder", e)),
    }
}

#[cfg(unix)]
fn is_refused(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be flushed; flushing the file makes its creation durable.
    Ok(())
}
