//! History: the changes since a commit, as far as the log goes back.

use super::pins::Hold;
use crate::engine::Engine;
use crate::engine::state::head::LogHead;
use crate::error::{Error, Result};
use crate::file::layout::{MapId, Offset, Seq, live};
use crate::file::log::{self, Record, Scan};
use crate::file::space::{Extent, Space};

/// How often the head of the log may move during a look for the extents after it.
const ATTEMPTS: u32 = 100;

/// A commit, by its number and the CRC of the last record up to it, 0 if that is not known. In a copy of the file that
/// went another way, or after an older one was put in its place, the same number has another CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitId {
    pub(crate) seq: Seq,
    pub(crate) crc: u32,
}

impl CommitId {
    /// Whether this can be the commit with the same number that somebody else knows.
    pub(crate) fn can_be(self, other: CommitId) -> bool {
        self.seq == other.seq && (self.crc == other.crc || self.crc == 0 || other.crc == 0)
    }
}

/// A part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) after: Seq,
    pub(crate) until: Seq,
    /// The extent that it begins in, in a store that is in use, where the numbers of extents last.
    extent: Option<Extent>,
}

/// A place in the log between two commits, which outlasts what is held there: the number of its extent is used for no
/// other one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    ordinal: u64,
    at: Offset,
}

impl History {
    /// A place in the extent that it begins in.
    pub(crate) fn spot(&self, at: Offset) -> Option<Spot> {
        let extent = self.extent.filter(|extent| (extent.offset..extent.end()).contains(&at))?;
        Some(Spot { ordinal: extent.ordinal, at })
    }

    /// Leaves out what lies before a place that all commits up to `after` lie before, if it is in the same extent.
    pub(crate) fn go_on(&mut self, from: Spot) {
        let is_here = |extent: Extent| extent.ordinal == from.ordinal && (self.start..extent.end()).contains(&from.at);
        if self.extent.is_some_and(is_here) {
            self.start = from.at;
        }
    }
}

/// See [`Engine::changes`].
pub(crate) struct Changed<'e> {
    scan: Scan<'e>,
    map: MapId,
    after: Seq,
    until: Seq,
}

impl<'e> Iterator for Changed<'e> {
    type Item = Result<Record<'e>>;

    fn next(&mut self) -> Option<Self::Item> {
        for record in self.scan.by_ref() {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if record.seq() > self.until {
                return None;
            }
            if record.seq() > self.after && record.header.map() == self.map && record.tells() {
                return Some(Ok(record));
            }
        }
        None
    }
}

impl Engine {
    /// The part of the log with all commits after one sequence number and up to another, at which the caller
    /// [holds](crate::engine::read::pins::Hold) everything, dead records included.
    pub(crate) fn history(&self, after: Seq, until: Seq) -> Result<History> {
        let path = || self.mapping.path().to_owned();
        let truncated = || Error::HistoryTruncated { path: path(), seq: after };
        let end = self.last_commit_end()?;
        let (head, space) = self.head_and_space()?;
        let (head, behind) = (head.head.at, head.behind);
        if after < behind || after > until {
            return Err(truncated());
        }
        let (mut start, mut first) = (head, None);
        if after.incarnation() == until.incarnation() {
            // The last extent that begins with a commit that is not newer.
            let extents = space.iter().flat_map(|space| space.extents());
            let began = |count: u64| count <= after.count();
            let last =
                extents.filter(|extent| extent.is_log() && began(extent.count)).max_by_key(|extent| extent.count);
            match last {
                Some(extent) if !is_cut(space.as_ref(), extent, head) => start = extent.offset,
                _ => {}
            }
            first = last.copied();
        } else if after != Seq::ZERO && !self.is_marked(after, until)? {
            // `after` is of an earlier incarnation. The power cut that ended it may have undone its later commits, but
            // none with a bookmark: that was committed later still.
            let mut last = Seq::ZERO;
            for record in Scan::new(&self.mapping, head, end) {
                let record = record?;
                if record.seq().incarnation() > after.incarnation() {
                    break;
                }
                last = record.seq();
            }
            if after > last.max(behind) {
                return Err(truncated());
            }
        }
        let extent = if self.is_live()? && self.aside.is_none() { first } else { None };
        Ok(History { start, end, after, until, extent })
    }

    /// Where the last commit ends.
    pub(crate) fn last_commit_end(&self) -> Result<Offset> {
        match self.at_rest()? {
            Some(_) => Ok(self.superblock()?.log_end()),
            None => Ok(Offset::of_commit_word(self.mapping.live(live::COMMIT_POINT)?)),
        }
    }

    /// The commit with this number. Its CRC is known if the log reaches back to its last record.
    pub(crate) fn commit_id(&self, seq: Seq) -> Result<CommitId> {
        let unknown = CommitId { seq, crc: 0 };
        let hold = Hold::take(self)?;
        let end = self.last_commit_end()?;
        let (head, space) = self.head_and_space()?;
        if seq < head.behind || seq > hold.seq() {
            return Ok(unknown);
        }
        let head = head.head.at;
        let extents = space.iter().flat_map(|space| space.extents());
        let mut began: Vec<&Extent> = extents
            .filter(|extent| extent.is_log() && extent.count <= seq.count() && !is_cut(space.as_ref(), extent, head))
            .collect();
        began.sort_unstable_by_key(|extent| std::cmp::Reverse(extent.count));
        // What a later record says of the one before it is no help: that may be a jump of its own commit.
        let starts = began.iter().map(|extent| extent.offset).chain([head]).filter(|&start| start != end);
        for start in starts {
            // A damaged log is no reason to refuse what is not damaged.
            if !log::record(&self.mapping, start).is_ok_and(|first| first.seq() <= seq) {
                continue;
            }
            let mut commit = unknown;
            for record in Scan::new(&self.mapping, start, end) {
                let Ok(record) = record else { return Ok(unknown) };
                if record.seq() > seq {
                    break;
                }
                commit.crc = record.header.crc.get();
            }
            return Ok(commit);
        }
        Ok(unknown)
    }

    /// The head of the log, and the extents at that time; `None` for these if they change faster than they can be read.
    fn head_and_space(&self) -> Result<(LogHead, Option<Space>)> {
        for _ in 0..ATTEMPTS {
            let head = self.head()?;
            let space = self.space_now()?;
            if self.head()? == head {
                return Ok((head, space));
            }
        }
        Ok((self.head()?, None))
    }

    /// The changes of a map in a part of the log.
    pub(crate) fn changes<'e>(&'e self, history: &History, map: MapId) -> Changed<'e> {
        let History { start, end, after, until, .. } = *history;
        Changed { scan: Scan::new(&self.mapping, start, end), map, after, until }
    }
}

/// Whether an extent may begin within a record: if its front was cut off, it begins where the head lies.
fn is_cut(space: Option<&Space>, extent: &Extent, head: Offset) -> bool {
    let begins_with = space.and_then(|space| space.extent_of(head));
    begins_with.is_none_or(|first| first.offset == extent.offset || first.end() == extent.offset)
}
