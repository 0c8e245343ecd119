//! How far the log is durable, and what lies between that and its end.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::file::layout::{Offset, Seq, live};
use crate::file::mapping::Mapping;
use crate::file::space::{Extent, LogPoint, Space};

/// Ranges of the file, as offsets of their starts and ends.
pub(crate) type Ranges = Vec<(Offset, Offset)>;

/// How far the log is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// Offset after the last commit.
    pub(crate) end: Offset,
    /// Its sequence number.
    pub(crate) seq: Seq,
    /// The log after this point may have to be flushed. It is where that commit ends, or an earlier point if the extent
    /// of that end could not be told.
    from: LogPoint,
}

impl Durable {
    /// Up to `end`, after the commit `seq`. The extent is looked up when it is needed.
    pub(crate) fn up_to(end: Offset, seq: Seq) -> Durable {
        Durable { end, seq, from: LogPoint::default() }
    }

    /// The point of the log up to which it is durable, as exactly as can be told.
    pub(super) fn point(&self, space: &Space) -> LogPoint {
        self.point_in(space).unwrap_or(self.from)
    }

    /// The point of the log at which a commit ends, if its extent can be told: it was in the log by then and still is.
    /// An extent that has joined the log later is another one in the same place.
    fn point_in(&self, space: &Space) -> Option<LogPoint> {
        self.point_of(space.log_extent_of(self.end)?)
    }

    fn point_of(&self, extent: &Extent) -> Option<LogPoint> {
        (extent.count <= self.seq.count()).then_some(LogPoint { ordinal: extent.ordinal, at: self.end })
    }
}

/// The known way of the log through the file: the space table as last read, so that it is read again only if it has
/// changed.
pub(crate) struct Reach(Mutex<Space>);

impl Reach {
    /// Nothing is known yet.
    pub(crate) fn unknown() -> Reach {
        Reach(Mutex::new(Space::unknown()))
    }

    /// How far the log is committed, and the ranges of the file to flush to make that durable, given that `durable` is.
    /// No ranges if `read` cannot read the space table because it keeps changing.
    ///
    /// The commits are loaded before the table: it then has every extent that they lie in and that a recovery would
    /// follow. **Invariant.** So it does if it was read before them, and its counter of changes, loaded after them, is
    /// still the same. Reading it again looks at the file's length, which makes the flush a longer one.
    pub(crate) fn unflushed(
        &self,
        mapping: &Mapping,
        durable: Durable,
        read: impl FnOnce() -> Result<Option<Space>>,
    ) -> Result<(Durable, Option<Ranges>)> {
        let visible = mapping.live_seq(live::VISIBLE)?;
        let commit = mapping.live(live::COMMIT_POINT)?;
        let reached =
            Durable { end: Offset::of_commit_word(commit), seq: Seq::of_commit_word(commit, visible), ..durable };
        // Held for a few steps, and nothing else is waited for meanwhile.
        let mut space = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !space.is_current(mapping)? {
            let Some(now) = read()? else { return Ok((reached, None)) };
            *space = now;
        }
        let (from, upto) = (durable.point(&space), reached.point_in(&space));
        let ranges = between(space.extents(), from, upto);
        Ok((Durable { from: upto.unwrap_or(from), ..reached }, Some(ranges)))
    }
}

/// The ranges of the log between two points, or after the first one.
fn between<'e>(extents: impl Iterator<Item = &'e Extent>, from: LogPoint, upto: Option<LogPoint>) -> Ranges {
    let mut ranges = Ranges::new();
    for extent in extents.filter(|extent| extent.has_records()) {
        let rest = from.rest_of(extent).map(|rest| upto.map_or(rest, |upto| upto.part_of(extent, rest)));
        let Some((start, end)) = rest.filter(|(start, end)| start < end) else { continue };
        // Adjacent ranges are flushed by one call.
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::file::layout::{BLOCK, ExtentKind, commit_word};
    use crate::file::space::LogExtent;

    fn at(block: u64) -> Offset {
        Offset::EXTENTS + block * BLOCK
    }

    fn extent(block: u64, blocks: u64, kind: ExtentKind, count: u64, ordinal: u64) -> Extent {
        Extent::unlisted(at(block), blocks, kind, count, ordinal)
    }

    fn point(ordinal: u64, at: Offset) -> LogPoint {
        LogPoint { ordinal, at }
    }

    #[test]
    fn what_lies_between_two_points_is_flushed_and_nothing_else() {
        let extents = [
            extent(0, 4, ExtentKind::Log, 30, 3),
            extent(4, 4, ExtentKind::Log, 10, 1),
            extent(8, 4, ExtentKind::Index, 12, 0),
            extent(12, 4, ExtentKind::Log, 20, 2),
            extent(16, 4, ExtentKind::Retired, 20, 0),
        ];
        let between = |from, upto| between(extents.iter(), from, upto);
        let (begun, ended) = (point(1, at(5)), point(3, at(1) + 8));
        assert_eq!(between(begun, Some(ended)), [(at(0), at(1) + 8), (at(5), at(8)), (at(12), at(16))]);
        assert_eq!(between(begun, None), [(at(0), at(4)), (at(5), at(8)), (at(12), at(16))], "the end is not known");
        let all = [(at(0), at(8)), (at(12), at(16))];
        assert_eq!(between(LogPoint::default(), None), all, "side by side: one range");
        assert_eq!(between(point(2, at(13)), Some(point(2, at(14)))), [(at(13), at(14))]);
        assert_eq!(between(ended, Some(ended)), []);
        assert_eq!(between(point(3, at(4)), None), [], "all is durable up to the end of the last one");
    }

    #[test]
    fn what_was_emptied_is_flushed_as_long_as_a_recovery_goes_through_it() {
        let emptied = [extent(0, 4, ExtentKind::Emptied, 30, 1), extent(4, 4, ExtentKind::Log, 10, 2)];
        assert_eq!(between(emptied.iter(), point(1, at(2)), None), [(at(2), at(8))]);
    }

    /// An extent that has joined the log after a commit is another one in the same place.
    #[test]
    fn where_a_commit_ends_is_told_by_its_number() {
        let durable = Durable::up_to(at(2), Seq::new(1, 20));
        assert_eq!(durable.point_of(&extent(0, 4, ExtentKind::Log, 20, 7)), Some(point(7, at(2))));
        assert_eq!(durable.point_of(&extent(0, 4, ExtentKind::Log, 21, 9)), None);
    }

    /// The table is read when it has changed; while it changes all the time, everything is flushed.
    #[test]
    fn the_space_table_is_read_only_if_it_has_changed() {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        mapping.allocate(Offset::EXTENTS, at(8)).unwrap();
        let seq = Seq::new(1, 0);
        let commit = |seq: Seq, end: Offset| {
            mapping.store_live(live::COMMIT_POINT, commit_word(end.0, seq.0), Ordering::Release).unwrap();
            mapping.store_live(live::VISIBLE, seq.0, Ordering::Release).unwrap();
        };
        Space::create(&mapping, &[LogExtent { start: at(0), end: at(8), seq }], 1, seq).unwrap();
        let table = || Space::load(&mapping, mapping.live(live::SPACE_TABLE)?).map(Some);
        let reach = Reach::unknown();
        commit(seq.next(), at(0) + 80);
        let nothing = Durable::up_to(at(0), seq);
        let (reached, ranges) = reach.unflushed(&mapping, nothing, || Ok(None)).unwrap();
        assert_eq!(((reached.end, reached.seq), ranges), ((at(0) + 80, seq.next()), None), "it could not be read");
        let (reached, ranges) = reach.unflushed(&mapping, nothing, table).unwrap();
        assert_eq!((reached.from, ranges), (point(1, at(0) + 80), Some(vec![(at(0), at(0) + 80)])));
        commit(seq.next().next(), at(1));
        let known = reach.unflushed(&mapping, reached, || unreachable!("it has not changed")).unwrap();
        assert_eq!(known.1, Some(vec![(at(0) + 80, at(1))]));
        let changes = mapping.live(live::SPACE_CHANGES).unwrap();
        mapping.store_live(live::SPACE_CHANGES, changes + 2, Ordering::Release).unwrap();
        let mut read = 0;
        let counted = || {
            read += 1;
            table()
        };
        assert_eq!(reach.unflushed(&mapping, reached, counted).unwrap(), known);
        assert_eq!(read, 1);
    }
}
