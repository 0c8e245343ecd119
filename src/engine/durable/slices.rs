//! Slices: the log is written back while it grows, each slice by the commit that completes it, so that the flush of a
//! checkpoint finds little left to do and no commit does much of it.
//!
//! A slice ends before the [folio](FOLIO) that is being appended to. Writing that one back as well would have each
//! store to its pages wait for the system, which first marks the page as changed again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::reach::{Durable, Ranges};
use crate::error::Result;
use crate::file::layout::{BLOCK, Offset};
use crate::file::mapping::{FOLIO, Mapping};

/// A slice is a sixteenth of what makes a checkpoint due, and not more than this.
const LARGEST: u64 = 1 << 20;

/// The most slices on their way to the disk before a commit waits for the oldest.
const UNDER_WAY: usize = 4;

/// What writes ranges of the file back.
pub(crate) trait WritesBack {
    /// Begins to write a range back, and does not wait.
    fn begin(&self, offset: Offset, len: u64) -> Result<()>;
    /// Waits for a range that was begun.
    fn wait(&self, offset: Offset, len: u64) -> Result<()>;
}

impl WritesBack for Mapping {
    fn begin(&self, offset: Offset, len: u64) -> Result<()> {
        self.begin_writing_back(offset, len)
    }

    fn wait(&self, offset: Offset, len: u64) -> Result<()> {
        self.wait_for_writing_back(offset, len)
    }
}

/// The parts of a log that are being written back.
pub(crate) struct Slices {
    /// The log's bytes at which the next slice is complete.
    next: AtomicU64,
    begun: Mutex<Begun>,
}

struct Begun {
    /// Where the log ended when a slice was last begun.
    end: Durable,
    /// What was cut off the last one, which belongs to the next.
    cut_off: (Offset, Offset),
    /// Ranges of the file of each slice that is under way, the oldest first, and the log's bytes at its end.
    under_way: VecDeque<(Ranges, u64)>,
    /// How many of the log's bytes are known to be written back.
    written_back: u64,
}

impl Slices {
    /// No slices yet, of a log that is durable up to there.
    pub(crate) fn new(durable: Durable) -> Slices {
        let cut_off = (durable.end, durable.end);
        let begun = Begun { end: durable, cut_off, under_way: VecDeque::new(), written_back: 0 };
        Slices { next: AtomicU64::new(0), begun: Mutex::new(begun) }
    }

    /// Whether a slice is complete once the log has had this many bytes.
    #[inline]
    pub(crate) fn are_complete_at(&self, bytes: u64) -> bool {
        bytes >= self.next.load(Ordering::Relaxed)
    }

    /// The right to begin the next slice; `None` if another thread has it.
    pub(crate) fn next(&self) -> Option<NextSlice<'_>> {
        Some(NextSlice { next: &self.next, begun: self.begun.try_lock().ok()? })
    }
}

/// The right to begin the next slice.
pub(crate) struct NextSlice<'s> {
    next: &'s AtomicU64,
    begun: MutexGuard<'s, Begun>,
}

impl NextSlice<'_> {
    /// Where the last slice ended.
    pub(crate) fn begins_at(&self) -> Durable {
        self.begun.end
    }

    /// The slice ends here, after this many bytes of log; a checkpoint is due each time that has grown by `every`.
    pub(crate) fn ends_at(&mut self, reached: Durable, bytes: u64, every: u64) {
        let slice = (every / 16).clamp(BLOCK, LARGEST);
        self.next.store(bytes.saturating_add(slice), Ordering::Relaxed);
        self.begun.end = reached;
    }

    /// The log was flushed up to this many bytes. Returns how many of them were not known to be written back.
    pub(crate) fn was_flushed(&mut self, bytes: u64) -> u64 {
        let flushed = bytes.saturating_sub(self.begun.written_back);
        self.begun.written_back = bytes;
        flushed
    }

    /// Begins to write the slice back, and returns its bytes.
    pub(crate) fn begin(&mut self, disk: &impl WritesBack, mut ranges: Ranges, bytes: u64) -> Result<u64> {
        let tail = self.begun.end.end;
        let last = std::mem::replace(&mut self.begun.cut_off, (tail, tail));
        for range in &mut ranges {
            range.0 = if range.0 == last.1 { last.0 } else { range.0 };
            if range.1 == tail {
                range.1 = tail.align_down(FOLIO).max(range.0);
                self.begun.cut_off = (range.1, tail);
            }
        }
        ranges.retain(|(from, end)| from < end);
        for &(from, end) in &ranges {
            disk.begin(from, end - from)?;
        }
        let flushed = ranges.iter().map(|&(from, end)| end - from).sum();
        let (cut_from, cut_to) = self.begun.cut_off;
        self.begun.under_way.push_back((ranges, bytes.saturating_sub(cut_to - cut_from)));
        Ok(flushed)
    }

    /// Waits for the oldest slice, if too many are under way.
    pub(crate) fn wait_for_oldest(&mut self, disk: &impl WritesBack) -> Result<()> {
        if self.begun.under_way.len() > UNDER_WAY {
            let (ranges, upto) = self.begun.under_way.pop_front().unwrap_or_default();
            for (from, end) in ranges {
                disk.wait(from, end - from)?;
            }
            self.begun.written_back = upto.max(self.begun.written_back);
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::RefCell;
    use std::path::PathBuf;

    use super::*;
    use crate::error::Error;
    use crate::file::layout::Seq;

    /// What was begun and what was waited for.
    #[derive(Default)]
    struct Disk {
        begun: RefCell<Vec<(Offset, u64)>>,
        waited: RefCell<Vec<(Offset, u64)>>,
        fails: bool,
    }

    impl Disk {
        fn note(&self, list: &RefCell<Vec<(Offset, u64)>>, range: (Offset, u64)) -> Result<()> {
            list.borrow_mut().push(range);
            if self.fails { Err(Error::Poisoned { path: PathBuf::new() }) } else { Ok(()) }
        }
    }

    impl WritesBack for Disk {
        fn begin(&self, offset: Offset, len: u64) -> Result<()> {
            self.note(&self.begun, (offset, len))
        }

        fn wait(&self, offset: Offset, len: u64) -> Result<()> {
            self.note(&self.waited, (offset, len))
        }
    }

    const EVERY: u64 = 16 << 20;
    const SLICE: u64 = EVERY / 16;

    fn slices() -> Slices {
        Slices::new(Durable::up_to(Offset(0), Seq::ZERO))
    }

    /// Begins a slice that ends once the log has had this many bytes, which are as many of the file.
    fn begin(slices: &Slices, disk: &Disk, bytes: u64) -> Result<u64> {
        let mut slice = slices.next().unwrap();
        let begins = slice.begins_at().end;
        slice.ends_at(Durable::up_to(Offset(bytes), Seq(bytes / 8)), bytes, EVERY);
        let begun = slice.begin(disk, vec![(begins, Offset(bytes))], bytes)?;
        slice.wait_for_oldest(disk).map(|()| begun)
    }

    #[test]
    fn a_slice_is_complete_when_the_log_has_grown_by_a_sixteenth() {
        let (slices, disk) = (slices(), Disk::default());
        assert!(slices.are_complete_at(0), "nothing is known yet");
        begin(&slices, &disk, 1000).unwrap();
        assert!(!slices.are_complete_at(1000 + SLICE - 1));
        assert!(slices.are_complete_at(1000 + SLICE));
        for (every, slice) in [(1, BLOCK), (u64::MAX, LARGEST)] {
            slices.next().unwrap().ends_at(Durable::up_to(Offset(0), Seq::ZERO), 0, every);
            assert!(slices.are_complete_at(slice) && !slices.are_complete_at(slice - 1), "every {every}");
        }
    }

    #[test]
    fn slices_follow_each_other_and_only_the_oldest_of_too_many_is_waited_for() {
        let (slices, disk) = (slices(), Disk::default());
        for number in 1..=UNDER_WAY as u64 {
            assert_eq!(begin(&slices, &disk, number * SLICE).unwrap(), SLICE);
        }
        assert!(disk.waited.borrow().is_empty());
        begin(&slices, &disk, 5 * SLICE).unwrap();
        begin(&slices, &disk, 6 * SLICE).unwrap();
        assert_eq!(*disk.waited.borrow(), [(Offset(0), SLICE), (Offset(SLICE), SLICE)]);
        let begun: Vec<_> = (0..6).map(|number| (Offset(number * SLICE), SLICE)).collect();
        assert_eq!(*disk.begun.borrow(), begun);
    }

    #[test]
    fn what_is_being_appended_to_is_left_to_the_next_slice() {
        let (slices, disk) = (slices(), Disk::default());
        let at = |folios: u64, bytes: u64| Offset(folios * FOLIO + bytes);
        let begin = |ranges: &[(Offset, Offset)]| {
            let (tail, mut slice) = (ranges.last().unwrap().1, slices.next().unwrap());
            slice.ends_at(Durable::up_to(tail, Seq::ZERO), tail.0, EVERY);
            slice.begin(&disk, ranges.to_vec(), tail.0).unwrap()
        };
        assert_eq!(begin(&[(at(0, 0), at(2, 80))]), 2 * FOLIO);
        assert_eq!(begin(&[(at(2, 80), at(2, 800))]), 0, "it is still there");
        assert_eq!(begin(&[(at(2, 800), at(4, 0)), (at(8, 4096), at(9, 8))]), 3 * FOLIO - 4096);
        // What was left behind is written back to its end, and what begins within a folio from there.
        assert_eq!(begin(&[(at(9, 8), at(9, 4096)), (at(20, 4096), at(20, 8192))]), 4096);
        let begun = disk.begun.take();
        assert_eq!(
            begun,
            [(at(0, 0), at(2, 0)), (at(2, 0), at(4, 0)), (at(8, 4096), at(9, 0)), (at(9, 0), at(9, 4096))]
                .map(|(from, end)| (from, end - from))
        );
    }

    #[test]
    fn a_flush_counts_what_was_not_known_to_be_written_back() {
        let (slices, disk) = (slices(), Disk::default());
        for number in 1..=6 {
            begin(&slices, &disk, number * SLICE).unwrap();
        }
        assert_eq!(slices.next().unwrap().was_flushed(8 * SLICE), 6 * SLICE, "two slices were waited for");
        assert_eq!(slices.next().unwrap().was_flushed(8 * SLICE), 0);
        // A later wait does not take that back.
        begin(&slices, &disk, 9 * SLICE).unwrap();
        assert_eq!(slices.next().unwrap().was_flushed(9 * SLICE), SLICE);
    }

    #[test]
    fn one_at_a_time_begins_a_slice() {
        let slices = slices();
        let slice = slices.next().unwrap();
        std::thread::scope(|scope| assert!(scope.spawn(|| slices.next().is_none()).join().unwrap()));
        drop(slice);
        assert!(slices.next().is_some());
    }

    #[test]
    fn a_slice_whose_writing_fails_is_not_under_way() {
        let (slices, failing) = (slices(), Disk { fails: true, ..Disk::default() });
        assert!(begin(&slices, &failing, SLICE).is_err());
        assert!(slices.begun.lock().unwrap().under_way.is_empty());
        assert!(!slices.are_complete_at(SLICE), "nor is it begun again at once");
    }
}
