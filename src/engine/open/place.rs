//! The place of a new store that is written as a whole: the name that it will have, and the file that it is written to
//! before it has that name. Backup and repair write such stores.
//!
//! **Invariant.** A file is under that name only if it is complete and durable:
//!
//! 1. While it is written it has [another name](part_of) in the same folder, and is locked exclusively.
//! 2. It is closed, which makes everything in it durable: the log before the superblock that says so.
//! 3. Only then it gets its name, in one step that also finds out whether the name is taken. The lock is still held, so
//!    that nobody else takes the file for a left-over.
//! 4. The folder is flushed.
//!
//! Killed at any moment, its writer leaves nothing under that name, or the whole. What it leaves under the other name
//! is known by that name, by the missing lock and by its first bytes. The next one that writes to the same place
//! removes it; another file of that name is left alone, and the place is refused. A file that is replaced is removed by
//! the same step that gives the name to the new one; that step is refused while a process has the old one open.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::path::{check_is_file, folder_of, is_at, mode_of, opening_error, sync_folder};
use super::roads::Seized;
use crate::engine::Engine;
use crate::engine::settings::{Durability, Settings};
use crate::error::{Error, HeldBy, Result};
use crate::file::witness::{self, Call};

/// How often others may take the place of the unfinished file while it is being created.
const ATTEMPTS: u32 = 16;

/// What happens to a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and the new store is refused.
    Kept,
    /// It is replaced if it is a store that no process has open.
    Replaced,
}

/// How a new store is opened that is made from `source`, and then closed.
pub(crate) fn settings_of_copy(source: Option<&File>) -> Settings {
    Settings {
        create_new: true,
        exclusive: true,
        mode: source.and_then(mode_of),
        // Nothing in it is dead, so closing it has nothing to move.
        auto_compact: None,
        ..Settings::default()
    }
}

/// A place that was free when it was looked at, or may be taken.
pub(crate) struct Place {
    name: PathBuf,
    part: PathBuf,
    existing: Existing,
}

/// The name of the file while it is not complete.
pub(crate) fn part_of(name: &Path) -> PathBuf {
    let mut part = OsString::from(name);
    part.push(".unfinished");
    part.into()
}

impl Place {
    /// Refuses a path that a new store which is made from `source` cannot go to.
    pub(crate) fn check(path: &Path, source: Option<&File>, existing: Existing) -> Result<Place> {
        let mut name = path.to_owned();
        if source.is_some_and(|file| is_at(file, path)) {
            return Err(Error::OntoItself { path: name });
        }
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_symlink() && existing == Existing::Replaced => {
                let leads_nowhere = || Error::NotAFile { path: path.to_owned(), what: "a link that leads nowhere" };
                name = fs::canonicalize(path).map_err(|_| leads_nowhere())?;
                drop(Seized::at(&name)?);
            }
            Ok(there) => {
                if !there.is_symlink() {
                    check_is_file(path, &there)?;
                }
                if existing == Existing::Kept {
                    return Err(Error::AlreadyExists { path: name });
                }
                drop(Seized::at(&name)?);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if path.file_name().is_none() || !folder_of(path).is_dir() {
                    return Err(Error::NotFound { path: name });
                }
            }
            Err(error) => return Err(opening_error(path, error)),
        }
        let part = part_of(&name);
        if source.is_some_and(|file| is_at(file, &part)) {
            // It would be taken for what an unfinished copy has left.
            return Err(Error::OntoItself { path: part });
        }
        Ok(Place { part, name, existing })
    }

    /// Creates the unfinished file, in place of one that a kill has left.
    pub(crate) fn begin(&self, settings: &Settings) -> Result<Part<'_>> {
        for _ in 0..ATTEMPTS {
            // An opening that fails in its last steps may leave its file.
            let mut left = Left { place: self, is_there: true };
            match Engine::open(&self.part, settings.clone()) {
                Ok(engine) => return Ok(Part { engine: Arc::new(engine), left }),
                Err(Error::AlreadyExists { .. }) => {
                    left.is_there = false;
                    self.remove_left_over()?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Locked { path: self.part.clone(), by: HeldBy::Opening })
    }

    /// Removes an unfinished file that no living process is writing to.
    fn remove_left_over(&self) -> Result<()> {
        let there = fs::symlink_metadata(&self.part);
        if there.is_ok_and(|there| there.is_symlink()) {
            // What it leads to is not a left-over.
            return Err(Error::NotAFile { path: self.part.clone(), what: "a symbolic link" });
        }
        let Some(_seized) = Seized::at(&self.part)? else { return Ok(()) };
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(&self.part, "remove what an unfinished backup or repair has left", error))
            }
            _ => Ok(()),
        }
    }

    /// Gives the file its name. It is complete and flushed, and still locked.
    fn give_name(&self) -> Result<()> {
        let failed = |error| Error::io(&self.name, "give the new store its name", error);
        witness::call(Call::Rename).map_err(failed)?;
        if self.existing == Existing::Replaced {
            // Until it is replaced, so that no process opens it in between.
            let _seized = Seized::at(&self.name)?;
            return fs::rename(&self.part, &self.name).map_err(failed);
        }
        // A second name does not replace what is there, unlike a new one. A file system may have no second names; and
        // where a file that is mapped cannot be removed, it would keep the first one.
        if cfg!(unix) && fs::hard_link(&self.part, &self.name).is_ok() {
            return fs::remove_file(&self.part).map_err(failed);
        }
        if fs::symlink_metadata(&self.name).is_ok() {
            return Err(Error::AlreadyExists { path: self.name.clone() });
        }
        fs::rename(&self.part, &self.name).map_err(failed)
    }
}

/// The file while it is written: a store that no other process can open. It is removed when this is dropped
/// before it has its name.
pub(crate) struct Part<'p> {
    engine: Arc<Engine>,
    /// After the engine, since not every system removes a file that is mapped.
    left: Left<'p>,
}

/// The unfinished file. If it still is there when this is dropped, it is removed.
struct Left<'p> {
    place: &'p Place,
    is_there: bool,
}

/// Whether this is still the unfinished file. Somebody may have removed it, and another one may have begun.
fn is_there_as(engine: &Engine, part: &Path) -> bool {
    engine.mapping.file_behind().is_some_and(|file| is_at(file, part))
}

impl Part<'_> {
    /// The store that is written to.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Makes it dense and durable, gives it its name, and returns its length.
    pub(crate) fn finish(mut self, durability: Durability) -> Result<u64> {
        let (place, is_there) = (self.left.place, &mut self.left.is_there);
        self.engine.settle_all()?;
        let mut len = 0;
        self.engine.close_and(|| {
            // Whatever can fail fails before the name is given.
            len = self.engine.mapping.file_len()?;
            if !is_there_as(&self.engine, &place.part) {
                return Err(Error::NotFound { path: place.part.clone() });
            }
            place.give_name()?;
            *is_there = false;
            Ok(())
        })?;
        if durability == Durability::Synced {
            sync_folder(&place.name)?;
        }
        Ok(len)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // It belongs to the parent.
            self.left.is_there = false;
        }
        if !self.left.is_there {
            return;
        }
        let is_ours = is_there_as(&self.engine, &self.left.place.part);
        self.left.is_there = is_ours && fs::remove_file(&self.left.place.part).is_err();
        self.engine.give_up();
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.is_there {
            // Should this fail too, the next one that writes here knows what it is.
            let _ = self.place.remove_left_over();
        }
    }
}
