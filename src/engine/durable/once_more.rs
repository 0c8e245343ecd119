//! Writing the log once more: all of it that was not known to be durable when the store was opened, if a process was
//! killed while flushing it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::reach::Durable;
use crate::error::Result;
use crate::file::layout::{Offset, live};
use crate::file::mapping::Mapping;
use crate::file::space::{Extent, LogPoint, Space};

/// Whether a process was killed while flushing the log, and the log was not written once more since.
pub(crate) fn is_unsure(mapping: &Mapping) -> Result<bool> {
    Ok(mapping.live(live::STATE)? & live::STATE_LOG_UNSURE != 0)
}

/// The part of the log to write once more, should it be unsure.
pub(crate) struct OnceMore {
    /// How far the superblock vouched for the log when the store was opened.
    opened: Durable,
    /// Held by the thread that writes.
    alone: Mutex<()>,
}

impl OnceMore {
    /// For a log that is known to be durable up to there.
    pub(crate) fn new(opened: Durable) -> OnceMore {
        OnceMore { opened, alone: Mutex::new(()) }
    }

    /// How far the superblock vouched for the log when the store was opened.
    pub(super) fn opened(&self) -> Durable {
        self.opened
    }

    /// Excludes other threads of this process.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write the log once more.
    pub(crate) fn begin(&self, mapping: &Mapping) -> Result<Rewriting<'_>> {
        Ok(Rewriting { opened: &self.opened, state: mapping.live(live::STATE)?, done: None })
    }
}

/// How far the log was written once more.
pub(crate) struct Rewriting<'o> {
    opened: &'o Durable,
    /// The state of the store when it began.
    state: u64,
    done: Option<LogPoint>,
}

impl Rewriting<'_> {
    /// Writes the next slice once more, at most `most` bytes, and returns it. The caller holds the writer lock.
    pub(crate) fn write_slice(
        &mut self,
        mapping: &Mapping,
        space: &Space,
        most: u64,
    ) -> Result<Option<(Offset, Offset)>> {
        let done = self.done.get_or_insert_with(|| self.opened.point(space));
        let Some((start, end)) = next_of(space.extents(), *done, most) else { return Ok(None) };
        mapping.rewrite(start.at, end - start.at)?;
        *done = LogPoint { at: end, ..start };
        Ok(Some((start.at, end)))
    }

    /// Clears the mark of an unsure log, if no process was killed in a flush since this was begun.
    pub(crate) fn end(self, mapping: &Mapping) -> Result<()> {
        let state = mapping.live(live::STATE)?;
        if state / live::STATE_UNSURE_COUNT == self.state / live::STATE_UNSURE_COUNT {
            // If it changes meanwhile, it is done once more.
            mapping.compare_exchange(live::STATE, state, state & !live::STATE_LOG_UNSURE, Ordering::SeqCst)?;
        }
        Ok(())
    }
}

/// The next part of the log after a point, at most `most` bytes: where it begins, and its end.
fn next_of<'e>(extents: impl Iterator<Item = &'e Extent>, done: LogPoint, most: u64) -> Option<(LogPoint, Offset)> {
    let rest = extents.filter(|extent| extent.has_records()).filter_map(|extent| {
        let (start, end) = done.rest_of(extent)?;
        Some((LogPoint { ordinal: extent.ordinal, at: start }, end))
    });
    let (start, end) = rest.min_by_key(|(start, _)| (start.ordinal, start.at))?;
    Some((start, if end - start.at > most { start.at + most } else { end }))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::file::layout::{BLOCK, ExtentKind, Offset, Seq};
    use crate::file::space::LogExtent;

    fn at(block: u64) -> Offset {
        Offset::EXTENTS + block * BLOCK
    }

    #[test]
    fn the_log_is_gone_through_in_its_order_and_in_slices() {
        let extents = [
            Extent::unlisted(at(0), 2, ExtentKind::Log, 30, 3),
            Extent::unlisted(at(2), 2, ExtentKind::Index, 30, 0),
            Extent::unlisted(at(4), 2, ExtentKind::Emptied, 10, 1),
            Extent::unlisted(at(6), 2, ExtentKind::Log, 20, 2),
        ];
        let slices = |mut done: LogPoint, most: u64| {
            let mut found = Vec::new();
            while let Some((start, end)) = next_of(extents.iter(), done, most) {
                found.push((start.at, end));
                done = LogPoint { at: end, ..start };
            }
            found
        };
        assert_eq!(slices(LogPoint::default(), u64::MAX), [(at(4), at(6)), (at(6), at(8)), (at(0), at(2))]);
        let from = LogPoint { ordinal: 2, at: at(6) + 8 };
        assert_eq!(slices(from, BLOCK), [(at(6) + 8, at(7) + 8), (at(7) + 8, at(8)), (at(0), at(1)), (at(1), at(2))]);
    }

    /// A mapping with a log of eight blocks; the superblock vouches for the first.
    fn unsure_log() -> (Mapping, Space, OnceMore) {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        mapping.allocate(Offset::EXTENTS, at(8)).unwrap();
        let seq = Seq::new(1, 0);
        let space = Space::create(&mapping, &[LogExtent { start: at(0), end: at(8), seq }], 1, seq).unwrap();
        mapping.change_bits(live::STATE, live::STATE_LOG_UNSURE, 0).unwrap();
        (mapping, space, OnceMore::new(Durable::up_to(at(1), seq)))
    }

    #[test]
    fn the_log_is_sure_when_all_of_it_was_written_once_more() {
        let (mapping, space, once_more) = unsure_log();
        let mut rewriting = once_more.begin(&mapping).unwrap();
        let mut slice = || rewriting.write_slice(&mapping, &space, 4 * BLOCK).unwrap();
        assert_eq!([slice(), slice(), slice()], [Some((at(1), at(5))), Some((at(5), at(8))), None]);
        assert!(is_unsure(&mapping).unwrap(), "not before it is said so");
        rewriting.end(&mapping).unwrap();
        assert!(!is_unsure(&mapping).unwrap());
    }

    #[test]
    fn one_more_who_is_killed_meanwhile_leaves_the_log_unsure() {
        let (mapping, _, once_more) = unsure_log();
        let rewriting = once_more.begin(&mapping).unwrap();
        let killed = |state| (state + live::STATE_UNSURE_COUNT) | live::STATE_LOG_UNSURE;
        mapping.update_live(live::STATE, killed).unwrap();
        rewriting.end(&mapping).unwrap();
        assert!(is_unsure(&mapping).unwrap());
        once_more.begin(&mapping).unwrap().end(&mapping).unwrap();
        assert!(!is_unsure(&mapping).unwrap());
    }
}
