//! The file at a path: whether it is one, whether it is still the same, and what the system says against it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::settings::Settings;
use crate::error::{Error, FullReason, Result};
use crate::file::layout::BLOCK;
#[cfg(not(unix))]
use crate::file::locks::is_same_file;

/// Refuses what cannot be a store before it is opened: to open a FIFO may wait for ever.
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

/// Refuses what makes no sense for any store.
pub(super) fn check_settings(path: &Path, settings: &Settings) -> Result<()> {
    if settings.auto_compact.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
        return Err(Error::InvalidOptions {
            path: path.to_owned(),
            what: "the dead share from which on the log is compacted is between 0 and 1; give such a one, or `None`",
        });
    }
    Ok(())
}

/// Opens the file, and says whether it was made for us.
pub(super) fn open_file(path: &Path, settings: &Settings) -> Result<(File, bool)> {
    let to_file = settings.access.is_to_file();
    let mut options = OpenOptions::new();
    options.read(true).write(to_file);
    // A file may appear or vanish between two looks at its path; that settles after a few rounds.
    for _ in 0..16 {
        match options.clone().create_new(false).open(path) {
            Ok(_) if settings.create_new => return Err(Error::AlreadyExists { path: path.to_owned() }),
            Ok(file) => return Ok((file, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && settings.create && to_file => {
                match options.clone().create_new(true).open(path) {
                    Ok(file) => return Ok((file, true)),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(opening_error(path, error)),
                }
            }
            Err(error) => return Err(opening_error(path, error)),
        }
    }
    Err(Error::NotFound { path: path.to_owned() })
}

pub(super) fn check_is_file(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a directory" } else { special_kind(kind) };
    Err(Error::NotAFile { path: path.to_owned(), what })
}

#[cfg(unix)]
pub(super) fn special_kind(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
pub(super) fn special_kind(_kind: fs::FileType) -> &'static str {
    "a device"
}

/// Whether this is the file at the path.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    // Not opened again: by now, that could wait for ever.
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => id(file) == id(there),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    File::open(path).and_then(|there| is_same_file(file, &there)).unwrap_or(false)
}

pub(super) fn opening_error(path: &Path, error: io::Error) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::PermissionDenied { path },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path },
        io::ErrorKind::IsADirectory => Error::NotAFile { path, what: "a directory" },
        _ => Error::Io { path, doing: "open the file", source: error },
    }
}

/// A full disk may show before anything is mapped.
pub(super) fn creation_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { path: path.to_owned(), needed: BLOCK, why: FullReason::Disk }
        }
        _ => Error::io(path, "write the new file", error),
    }
}

#[cfg(unix)]
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(path, "flush the folder", e))
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be flushed; creating a file is made durable by flushing the file.
    Ok(())
}
