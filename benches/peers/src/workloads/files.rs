//! Folders and their files.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Advice, fadvise};

/// All files in a folder, however deep.
fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(all(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// The bytes that they take on the disk.
pub(super) fn allocated(folder: &Path) -> Result<u64> {
    all(folder)?.iter().map(|path| Ok(fs::metadata(path)?.blocks() * 512)).sum()
}

/// Waits until all of it is on the disk.
pub(super) fn sync(folder: &Path) -> Result<()> {
    all(folder)?.iter().try_for_each(|path| Ok(File::open(path)?.sync_all()?))
}

/// Makes the system drop them from its page cache.
pub(super) fn forget(folder: &Path) -> Result<()> {
    sync(folder)?;
    all(folder)?.iter().try_for_each(|path| Ok(fadvise(File::open(path)?, 0, None, Advice::DontNeed)?))
}

/// Copies a folder with its content.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in all(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(path, target)?;
    }
    Ok(())
}
