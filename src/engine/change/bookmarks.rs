//! Setting and removing bookmarks.

use std::sync::Arc;

use super::batch::Batch;
use crate::engine::Engine;
use crate::engine::lookup::bookmarks::{Mark, value_of};
use crate::error::{Error, Result};
use crate::file::layout::{BOOKMARKS, CATALOGUE, Offset, Seq};
use crate::file::space::LogPoint;

/// The longest name of a bookmark, in bytes.
const MAX_NAME: usize = 255;

/// A named place in the change feed; see [`Store::set_bookmark`](crate::Store::set_bookmark).
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.set_bookmark("replica", store.seq()?, 1 << 30)?;
/// let bookmark: slotlog::Bookmark = store.bookmarks()?.remove(0);
/// assert_eq!((bookmark.name.as_str(), bookmark.limit, bookmark.is_broken), ("replica", 1 << 30, false));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bookmark {
    /// Its name.
    pub name: String,
    /// The sequence number of the commit after which the log is kept.
    pub seq: Seq,
    /// How many dead bytes of the log are kept for it at most.
    pub limit: u64,
    /// How many bytes of the log are kept for it: those after its commit, and of the extent in which that lies, beyond
    /// what is alive.
    pub kept_bytes: u64,
    /// The log no longer reaches back to its commit: more than its limit has died since, or the store was full.
    pub is_broken: bool,
}

impl Engine {
    /// All bookmarks, sorted by name.
    pub(crate) fn bookmarks(&self) -> Result<Vec<Bookmark>> {
        let view = self.view()?;
        let mut marks = self.marks_by(view.get(CATALOGUE, BOOKMARKS)?)?;
        marks.sort_by(|one, other| one.name.cmp(&other.name));
        marks.into_iter().map(|mark| self.look_at_mark(mark, view.seq())).collect()
    }

    fn look_at_mark(&self, mark: Mark, visible: Seq) -> Result<Bookmark> {
        let Mark { name, seq, limit } = mark;
        let start = match self.history(seq, visible) {
            Ok(history) => Some(history.start),
            Err(Error::HistoryTruncated { .. }) => None,
            Err(error) => return Err(error),
        };
        let kept_bytes = start.map_or(Ok(0), |start| self.dead_after(start))?;
        Ok(Bookmark { name, seq, limit, kept_bytes, is_broken: start.is_none() })
    }

    /// Bytes of the log after a place in it, beyond what is alive.
    fn dead_after(&self, start: Offset) -> Result<u64> {
        let Some(space) = self.space_now()? else { return Ok(0) };
        let Some(first) = space.extent_of(start) else { return Ok(0) };
        let from = LogPoint { ordinal: first.ordinal, at: start };
        let extents = space.extents().filter(|extent| extent.is_log());
        let bytes: u64 = extents.filter_map(|extent| from.rest_of(extent)).map(|(from, to)| to - from).sum();
        let tail = self.last_commit_end()?;
        let unused = space.extent_of(tail).map_or(0, |last| last.end() - tail);
        Ok(bytes.saturating_sub(unused).saturating_sub(self.live_bytes()?))
    }

    /// Sets a bookmark, in place of one with the same name.
    pub(crate) fn set_bookmark(self: &Arc<Self>, name: &str, seq: Seq, limit: u64) -> Result<()> {
        if name.is_empty() || name.len() > MAX_NAME {
            let what = "a bookmark has a name of 1 to 255 bytes; choose another one";
            return Err(Error::InvalidName { path: self.mapping.path().to_owned(), name: name.to_owned(), what });
        }
        let mut batch = Batch::begin(Arc::clone(self))?;
        // Nothing is cleaned before the commit.
        self.history(seq, self.visible()?)?;
        let mut marks = self.marks_by(batch.get(CATALOGUE, BOOKMARKS)?)?;
        marks.retain(|mark| mark.name != name);
        marks.push(Mark { name: name.to_owned(), seq, limit });
        batch.put(CATALOGUE, BOOKMARKS, &value_of(&marks), None)?;
        batch.commit_as_usual()
    }

    /// Removes a bookmark, and says whether there was one.
    pub(crate) fn remove_bookmark(self: &Arc<Self>, name: &str) -> Result<bool> {
        let mut batch = Batch::begin(Arc::clone(self))?;
        let mut marks = self.marks_by(batch.get(CATALOGUE, BOOKMARKS)?)?;
        let before = marks.len();
        marks.retain(|mark| mark.name != name);
        let is_there = marks.len() < before;
        if is_there {
            batch.put(CATALOGUE, BOOKMARKS, &value_of(&marks), None)?;
        }
        batch.commit_as_usual()?;
        Ok(is_there)
    }
}
