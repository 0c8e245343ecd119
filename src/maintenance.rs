//! Maintenance of a store: what makes it durable, gives space back, checks it, and tells how it does.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::engine::verify::report::{VerifyProgress, VerifyReport};
use crate::file::layout::DEFAULT_MAP;
use crate::store::Store;
use crate::{Census, CensusOptions, CompactProgress, CompactReport, Result, Stats};

impl Store {
    /// Makes every commit so far survive a power cut: one flush of the part of the log that is not flushed yet. Threads
    /// that call this at the same time share one flush.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("orders.slotlog"))?;
    /// store.insert("order 1", "tea")?;
    /// store.insert("order 2", "cake")?;
    /// store.sync()?;                                         // from here on both survive a power cut
    /// assert_eq!(store.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) if the flush fails. After that, in all processes and until all have closed the store,
    /// [`Poisoned`](crate::Error::Poisoned): a second flush would succeed, and reveal nothing about what the first one
    /// lost.
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// [Syncs](Store::sync), and records how far the log is durable, so that a shorter log is recognised as damage.
    /// Writers go on meanwhile. A checkpoint is taken automatically every
    /// [`checkpoint_every`](crate::Options::checkpoint_every) bytes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("orders.slotlog"))?;
    /// store.insert("order 1", "tea")?;
    /// assert!(store.stats()?.since_checkpoint > 0);
    /// store.checkpoint()?;
    /// assert_eq!(store.stats()?.since_checkpoint, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`sync`](Store::sync).
    pub fn checkpoint(&self) -> Result<()> {
        self.engine().checkpoint()
    }

    /// Makes the file as small as it can be, while others read and write: live values and indexes move to its
    /// beginning, the indexes are resized to fit, and the end of the file is cut off. It takes time proportional to the
    /// live data, and delays no writer by more than about a millisecond, except for a checkpoint. The next writes
    /// lengthen the file a little again.
    ///
    /// If it is killed or stopped ([`compact_with`](Store::compact_with)), it loses nothing, and another call continues
    /// from there. Whatever snapshots still see stays, and is [held back](CompactReport::held_back) until they are
    /// gone. While a process has the store open with [`Access::ReadOnly`](crate::Access::ReadOnly), the file does not
    /// get shorter.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let store = slotlog::Store::open(folder.path().join("store"))?;
    /// for number in 0..20_000u32 {
    ///     store.insert(number.to_le_bytes(), [7; 100])?;
    /// }
    /// store.clear()?;
    /// let report = store.compact()?;
    /// assert!(report.finished && report.file_len < 300_000 && report.freed_bytes > 2_000_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadOnly`](crate::Error::ReadOnly); [`Full`](crate::Error::Full) if there is no room to move anything;
    /// those of [`checkpoint`](Store::checkpoint). A damaged record is no error: it goes into
    /// [quarantine](crate::DamageStats::quarantined_records). [`Corrupt`](crate::Error::Corrupt) if it is an entry of
    /// the catalogue of maps, or anything else is damaged that compaction relies on.
    pub fn compact(&self) -> Result<CompactReport> {
        self.compact_with(|_| ControlFlow::Continue(()))
    }

    /// [Compacts](Store::compact), and asks `on_progress` from time to time whether to go on.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let report = store.compact_with(|progress| {
    ///     println!("round {}: {} of {} bytes", progress.round, progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.finished);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`compact`](Store::compact).
    ///
    /// # Panics
    /// Only if `on_progress` does.
    pub fn compact_with(
        &self,
        mut on_progress: impl FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        self.engine().compact(&mut on_progress)
    }

    /// Does pending upkeep in this thread for about `budget`: advances a resize, cleans the log if its dead share
    /// exceeds [the limit](crate::Options::auto_compact), takes a checkpoint that is due, shortens the file; and
    /// [compacts](Store::compact) a store that is mostly free. Returns whether there is more to do. Whatever is done
    /// here, writers need not do; others can write in between.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// while store.maintain(Duration::from_millis(5))? {}
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LockTimeout`](crate::Error::LockTimeout), [`WouldDeadlock`](crate::Error::WouldDeadlock),
    /// [`Corrupt`](crate::Error::Corrupt), those of [`checkpoint`](Store::checkpoint). With
    /// [`Access::ReadOnly`](crate::Access::ReadOnly) there is nothing to do.
    pub fn maintain(&self, budget: Duration) -> Result<bool> {
        self.engine().maintain(budget, self.engine().settings.lock_timeout)
    }

    /// Checks the whole file: superblocks, extents, every record of the log, every slot of every index, and the
    /// counters. Damage is a finding of the report, not an error. It takes one pass over the log and one over the
    /// indexes.
    ///
    /// Others can read and write meanwhile; none waits for more than a slice of the check (256 KiB of log, or 4,096
    /// slots). What is checked depends on whether a process writes meanwhile, and [`VerifyReport::scope`] says which it
    /// was:
    ///
    /// * *Without writers:* all of the above, plus what compaction has left before the head of the log that a recovery
    ///   may still need, and an index that is being built.
    /// * *With a writer in any process:* one commit, as a [`Snapshot`](crate::Snapshot) of it would see it. Every
    ///   record of its log is there with its checksum, in the order of the log; every key leads to its record and every
    ///   slot to a record of the log; the counters of maps and log are those of that commit, unless two more commits
    ///   came before they could be read. The superblocks are checked too; the tables of extents and maps are checked if
    ///   there is a moment without writers within about 20 ms. The rest is left out. Like a snapshot, the check holds
    ///   back the space that becomes free meanwhile.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let report = store.verify()?;
    /// assert!(report.is_clean(), "{:?}", report.findings());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only if the check itself cannot run: [`WouldDeadlock`](crate::Error::WouldDeadlock) in a thread that has a
    /// transaction open, [`PinsExhausted`](crate::Error::PinsExhausted), [`LockTimeout`](crate::Error::LockTimeout) if
    /// others commit so fast that not one commit could be pinned.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.engine().verify()
    }

    /// [Checks the file](Store::verify), and asks `on_progress` from time to time whether to go on: after each slice,
    /// when nothing is locked, so the callback may use the store, and wait for others that do. If it stops the check,
    /// the report contains what was found until then, and its [scope](VerifyReport::scope) says so.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use slotlog::VerifyScope;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// # for number in 0..20_000u32 {
    /// #     store.insert(number.to_le_bytes(), [7; 100])?;
    /// # }
    /// let report = store.verify_with(|progress| {
    ///     println!("{} of {} bytes", progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((report.is_clean(), report.scope()), (true, VerifyScope::Everything));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`verify`](Store::verify).
    ///
    /// # Panics
    /// Only if `on_progress` does.
    pub fn verify_with(&self, mut on_progress: impl FnMut(VerifyProgress) -> ControlFlow<()>) -> Result<VerifyReport> {
        self.engine().verify_with(&mut on_progress)
    }

    /// Sizes and counters. It takes time proportional to the number of maps and extents, not of keys.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// assert_eq!(store.stats()?.dead_bytes, 0);
    /// store.insert("Ada", "37")?;
    /// let stats = store.stats()?;
    /// assert!(stats.live_bytes > 0 && stats.dead_bytes > 0);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`LockTimeout`](crate::Error::LockTimeout).
    pub fn stats(&self) -> Result<Stats> {
        Stats::of(&self.engine())
    }

    /// What the entries of each map are like, which no counter says: the lengths of keys and values, ages, what has
    /// expired, the largest entries, how long searches are; and for each extent of the file, how much of it is alive.
    ///
    /// It sees one commit and holds back space meanwhile, like a [`Snapshot`](crate::Snapshot). It takes one pass over
    /// the log and one over the indexes, and reads the header of each record.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// for length in [10, 20, 3000] {
    ///     store.insert(format!("key {length}"), vec![7; length])?;
    /// }
    /// let values = &store.census()?.maps[1].values;
    /// assert_eq!((values.min, values.p50, values.max), (10, 20, 3000));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if an index or a table is damaged; a damaged record is only
    /// [counted](crate::MapCensus::damaged). [`PinsExhausted`](crate::Error::PinsExhausted) if all pins are taken and
    /// there is no room for more.
    pub fn census(&self) -> Result<Census> {
        self.census_with(CensusOptions::new())
    }

    /// [Takes a census](Store::census) of a sample, or with a callback for its progress. With
    /// [`at_most`](CensusOptions::at_most), it takes a time that does not depend on the size of the store.
    ///
    /// ```
    /// use slotlog::CensusOptions;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// # for number in 0..10_000u32 {
    /// #     store.insert(number.to_le_bytes(), "…")?;
    /// # }
    /// let sample = store.census_with(CensusOptions::new().at_most(1000))?;
    /// assert!(sample.maps[1].looked_at < 1.0);
    /// assert_eq!(sample.maps[1].keys.p50, 4);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`census`](Store::census).
    ///
    /// # Panics
    /// Only if the callback does.
    pub fn census_with(&self, options: CensusOptions<'_>) -> Result<Census> {
        crate::stats::census::take(&self.engine(), options)
    }

    /// How many lines of the index a search for a key loads: the number of keys that take 1, 2, 3 … of them, the last
    /// element counting all longer searches too. A removed key counts as long as the index keeps its tombstone. One
    /// pass over the index.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// for number in 0..100u32 {
    ///     store.insert(number.to_le_bytes(), "…")?;
    /// }
    /// let lengths = store.probe_lengths()?;
    /// assert_eq!(lengths.iter().sum::<u64>(), 100);
    /// assert!(lengths[0] > 50, "most keys are in the first line");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn probe_lengths(&self) -> Result<[u64; 8]> {
        crate::stats::report::probe_lengths(&self.engine(), DEFAULT_MAP)
    }
}
