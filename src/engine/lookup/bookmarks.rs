//! Bookmarks: commits after which the log is kept, so that their owners can be told what has happened since.
//!
//! **Invariant.** Cleaning does not pass a record of a commit after a bookmark, unless more that is dead would be kept
//! for it than its owner allows, or the store is full. Nothing notes that a bookmark is broken: it is if the log no
//! longer reaches back to it.

use zerocopy::{FromBytes, IntoBytes};

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::state::head::LogHead;
use crate::error::Result;
use crate::file::layout::{BOOKMARKS, BookmarkEntry, CATALOGUE, Seq};
use crate::file::log::{Record, Wanted};

/// A bookmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) name: String,
    pub(crate) seq: Seq,
    /// Dead bytes of the log.
    pub(crate) limit: u64,
}

/// The value of the catalogue's entry.
pub(crate) fn value_of(marks: &[Mark]) -> Vec<u8> {
    let mut value = Vec::new();
    for mark in marks {
        let name_len = (mark.name.len() as u64).into();
        let entry = BookmarkEntry { seq: mark.seq.to_field(), limit: mark.limit.into(), name_len };
        value.extend_from_slice(entry.as_bytes());
        value.extend_from_slice(mark.name.as_bytes());
    }
    value
}

fn marks_in(mut value: &[u8]) -> Option<Vec<Mark>> {
    let mut marks = Vec::new();
    while !value.is_empty() {
        let (entry, rest) = BookmarkEntry::read_from_prefix(value).ok()?;
        let (name, rest) = rest.split_at_checked(entry.name_len.get().try_into().ok()?)?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        marks.push(Mark { name, seq: Seq::of_field(entry.seq), limit: entry.limit.get() });
        value = rest;
    }
    Some(marks)
}

impl Engine {
    /// The bookmarks in a record of the catalogue, or none.
    pub(crate) fn marks_by(&self, record: Option<Record<'_>>) -> Result<Vec<Mark>> {
        let Some(record) = record else { return Ok(Vec::new()) };
        self.check_crc(record)?;
        marks_in(record.value()).ok_or_else(|| self.mapping.corrupt(record.offset, "expected the bookmarks"))
    }

    /// Whether there is a bookmark at a commit, as of another one that the caller has pinned.
    pub(crate) fn is_marked(&self, seq: Seq, until: Seq) -> Result<bool> {
        let Some(index) = self.index_at(CATALOGUE, until)? else { return Ok(false) };
        let wanted = Wanted { map: CATALOGUE, key: BOOKMARKS, seq: until };
        let marks = self.marks_by(self.lookup(index.as_lines(), wanted, Moment::NOW)?)?;
        Ok(marks.iter().any(|mark| mark.seq == seq))
    }

    /// The bookmarks for which the log is kept. The caller holds the writer lock.
    pub(crate) fn kept_marks(&self, head: &LogHead) -> Result<Kept> {
        let mut marks = self.marks_by(self.value_in_turn(CATALOGUE, BOOKMARKS)?)?;
        marks.retain(|mark| mark.seq >= head.behind);
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.seq));
        Ok(Kept { marks })
    }
}

/// The bookmarks for which the log is kept, the oldest one last.
#[derive(Default)]
pub(crate) struct Kept {
    marks: Vec<Mark>,
}

impl Kept {
    /// Whether a record of this commit stays, with the log from it on, of which so many bytes are dead. Bookmarks that
    /// allow less are given up.
    pub(crate) fn keeps(&mut self, seq: Seq, dead: u64) -> bool {
        while let Some(oldest) = self.marks.last().filter(|oldest| oldest.seq < seq) {
            if dead <= oldest.limit {
                return true;
            }
            self.marks.pop();
        }
        false
    }
}
