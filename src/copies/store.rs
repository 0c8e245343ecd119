//! What a store offers to those that keep a copy of it.

use std::io::Read;
use std::path::Path;

use super::feed::{Commit, Feed};
use crate::engine::feed::wire::apply_next;
use crate::error::{Origin, Result};
use crate::file::layout::Seq;
use crate::store::Store;
use crate::{BackupOptions, BackupReport, Bookmark};

impl Store {
    /// Writes a copy of the store to a new file at `path`, as one commit left it, while others read and write: the
    /// default map and all named maps, with types, versions and deadlines, and without what is dead.
    ///
    /// The copy is a store like any other; it opens in constant time. A file is at `path` only once the copy is
    /// complete and flushed, and then the folder is flushed too. Until then it is `<path>.unfinished`; if this
    /// fails, that is removed; if the process is killed, the next backup to the same path removes it. An existing file
    /// is not touched ([`BackupOptions::overwrite`]).
    ///
    /// It works with every [`Access`](crate::Access), and for a store in memory. It takes one pass over the index and
    /// the live data, memory for one transaction of at most a mebibyte or one entry, and disk space for the whole copy.
    /// Nothing waits for it, and while others write it [rests](BackupOptions::full_speed) most of the time; like a
    /// [`Snapshot`](crate::Snapshot), it delays the reuse of space. Entries that have expired by now are left out. The
    /// copy has the permissions of the original under the umask, counts its commits anew, and [knows](Store::origin)
    /// which commit it is a copy of.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, copy) = (folder.path().join("app.slotlog"), folder.path().join("app.backup"));
    /// let store = Store::open(&path)?;
    /// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
    /// store.backup(&copy)?;                                  // while any process writes
    ///
    /// let copy = Store::open(&copy)?;                        // to restore it, close the store and rename the copy
    /// assert_eq!(copy.map::<str, u32>("ages")?.get("Ada")?, Some(36));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`AlreadyExists`](crate::Error::AlreadyExists), [`OntoItself`](crate::Error::OntoItself),
    ///   [`NotAFile`](crate::Error::NotAFile), [`NotFound`](crate::Error::NotFound) (the folder is missing),
    ///   [`PermissionDenied`](crate::Error::PermissionDenied): nothing can be written there.
    /// * [`Locked`](crate::Error::Locked), naming the unfinished file: another backup to the same path is in progress.
    ///   [`NotAStore`](crate::Error::NotAStore): a file that is no backup has that name.
    /// * [`Full`](crate::Error::Full): the disk is full. [`Io`](crate::Error::Io): it failed; if only the flush of the
    ///   folder did, the backup is at `path`, but may not survive a power cut.
    /// * [`Corrupt`](crate::Error::Corrupt): a record that would be copied is damaged.
    /// * Those of [`snapshot`](Store::snapshot).
    ///
    /// After each of them but the flush of the folder there is no new file, and an existing one is as it was.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.snapshot()?.backup(path)
    }

    /// [Writes a copy](Store::backup) with [options](BackupOptions): over an existing file, with progress and a way to
    /// stop.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::time::{Duration, Instant};
    /// use slotlog::BackupOptions;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, copy) = (slotlog::Store::in_memory()?, folder.path().join("app.backup"));
    /// let start = Instant::now();
    /// let options = BackupOptions::new().overwrite(true).on_progress(|progress| {
    ///     println!("{} of {} bytes", progress.done, progress.total);
    ///     if start.elapsed() < Duration::from_secs(600) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// });
    /// let report = store.backup_with(&copy, options)?;
    /// assert!(report.finished);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`backup`](Store::backup); with [`overwrite`](BackupOptions::overwrite),
    /// [`Locked`](crate::Error::Locked) if a process has the existing store open, and
    /// [`NotAStore`](crate::Error::NotAStore) if the existing file is something else.
    ///
    /// # Panics
    /// Only if the callback does. Then there is no new file.
    pub fn backup_with(&self, path: impl AsRef<Path>, options: BackupOptions<'_>) -> Result<BackupReport> {
        self.snapshot()?.backup_with(path, options)
    }

    /// Writes an increment to a new file at `path`: all commits after `seq`, up to now, in all maps. Applied to a copy
    /// of the store as of `seq`, it makes that a copy of the store as it is now, removals, cleared and dropped maps
    /// included. `seq` is what the [report](BackupReport::seq) of the last backup or increment says, or the
    /// [origin](Store::origin) of the copy. The file gets its name as that of a [backup](Store::backup) does.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (sunday, monday) = (folder.path().join("sunday"), folder.path().join("monday"));
    /// # let store = Store::in_memory()?;
    /// store.insert("key", "on Sunday")?;
    /// store.backup(&sunday)?;
    /// store.insert("key", "on Monday")?;
    /// let since = Store::open(&sunday)?.origin()?.ok_or("it is a copy")?.seq;
    /// store.backup_since(since, &monday)?;
    ///
    /// let restored = Store::open(&sunday)?;
    /// restored.apply_increment(&monday)?;
    /// assert_eq!(restored.get("key")?.as_deref(), Some(&b"on Monday"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// It takes time and space proportional to what was committed since, replaced values included.
    ///
    /// # Errors
    /// Those of [`changes`](Store::changes), above all [`HistoryTruncated`](crate::Error::HistoryTruncated) if the log
    /// does not reach back that far: then make a whole backup; those of [`backup`](Store::backup).
    pub fn backup_since(&self, seq: impl Into<Seq>, path: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_since_with(seq, path, BackupOptions::new())
    }

    /// Writes an [increment](Store::backup_since), with [options](BackupOptions).
    ///
    /// ```
    /// use slotlog::{BackupOptions, Durability};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("increment"));
    /// store.insert("key", "value")?;
    /// let options = BackupOptions::new().overwrite(true).durability(Durability::Buffered);
    /// let report = store.backup_since_with(0, &path, options)?;
    /// assert_eq!((report.finished, report.keys), (true, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`backup_since`](Store::backup_since) and of [`backup_with`](Store::backup_with).
    ///
    /// # Panics
    /// Only if the callback does. Then there is no new file.
    pub fn backup_since_with(
        &self,
        seq: impl Into<Seq>,
        path: impl AsRef<Path>,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        self.engine().back_up_since(seq.into(), path.as_ref(), options)
    }

    /// Applies an [increment](Store::backup_since) to this store, which has to be a copy of the commit that the
    /// increment follows, or of a later one. Returns how many commits were new. Each is applied as one transaction:
    /// stopped in the middle, this is a copy of an earlier commit, and the increment can be applied again.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("increment"));
    /// store.insert("one", "1")?;
    /// store.insert("two", "2")?;
    /// store.backup_since(0, &path)?;
    /// let copy = slotlog::Store::in_memory()?;
    /// assert_eq!(copy.apply_increment(&path)?, 2);
    /// assert_eq!(copy.apply_increment(&path)?, 0, "they are there");
    /// assert_eq!(copy.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CannotFollow`](crate::Error::CannotFollow) if this is no copy, or one of another store or of an older commit;
    /// [`InvalidOptions`](crate::Error::InvalidOptions) if the file is a store and no increment;
    /// [`DamagedChanges`](crate::Error::DamagedChanges); those of [`open`](Store::open) for the file, and those of
    /// [`Transaction::commit`](crate::Transaction::commit).
    pub fn apply_increment(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.engine().apply_increment(path.as_ref())
    }

    /// The change feed of the whole store: every commit after `seq`, in order, with all changes of all maps, made by
    /// any process. [`Feed::wait_for_commit`] waits for the next one. With [`Commit::apply`](crate::Commit::apply), or
    /// [`write_to`](crate::Commit::write_to) and [`apply_from`](Store::apply_from), another store follows this one.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let store = Store::in_memory()?;
    /// let mut feed = store.changes(0)?;
    /// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
    /// let replica = Store::in_memory()?;
    /// while let Some(commit) = feed.next_commit()? {
    ///     commit.apply(&replica)?;
    /// }
    /// assert_eq!(replica.map::<str, u32>("ages")?.get("Ada")?, Some(36));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// Beginning takes time proportional to the log since `seq`, each commit to its changes. How far the log reaches
    /// back: see [`changes_since`](Store::changes_since).
    ///
    /// # Errors
    /// Those of [`changes_since`](Store::changes_since).
    pub fn changes(&self, seq: impl Into<Seq>) -> Result<Feed> {
        Feed::after(self.source.clone(), seq.into())
    }

    /// Sets a bookmark: the log is kept from the commit `seq` on, so that [`changes`](Store::changes) can go on from
    /// there, whatever is compacted, in any process, until the bookmark is set again or
    /// [removed](Store::remove_bookmark). It is durable like every commit.
    ///
    /// While it stands, what is dead after it takes space: at most `limit` bytes. If there are more, because more was
    /// overwritten or removed since, or if the store would be full otherwise, the bookmark
    /// [breaks](crate::Bookmark::is_broken): the log goes on being cleaned, and its owner has to begin again with a
    /// [backup](Store::backup).
    ///
    /// ```
    /// use slotlog::{Commit, Store};
    ///
    /// fn work_on(commit: &Commit<'_>) { /* … */ }
    ///
    /// # let store = Store::in_memory()?;
    /// store.set_bookmark("mirror", store.seq()?, 1 << 30)?;
    /// # store.insert("key", "value")?;
    /// store.compact()?;
    ///
    /// // Later, perhaps in another process:
    /// let bookmarks = store.bookmarks()?;
    /// let mirror = bookmarks.iter().find(|bookmark| bookmark.name == "mirror").ok_or("it was set")?;
    /// let mut feed = store.changes(mirror.seq)?;
    /// while let Some(commit) = feed.next_commit()? {
    ///     work_on(&commit);
    /// }
    /// store.set_bookmark("mirror", feed.seq(), mirror.limit)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`HistoryTruncated`](crate::Error::HistoryTruncated) if the log does not reach back to `seq`, or there was no
    /// such commit; [`InvalidName`](crate::Error::InvalidName) unless the name has 1 to 255 bytes; those of
    /// [`insert`](Store::insert).
    pub fn set_bookmark(&self, name: &str, seq: impl Into<Seq>, limit: u64) -> Result<()> {
        self.engine().set_bookmark(name, seq.into(), limit)
    }

    /// All bookmarks, sorted by name. They are not copied by a [backup](Store::backup).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.set_bookmark("mirror", store.seq()?, 1 << 20)?;
    /// assert_eq!(store.bookmarks()?[0].name, "mirror");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt); [`PinsExhausted`](crate::Error::PinsExhausted).
    pub fn bookmarks(&self) -> Result<Vec<Bookmark>> {
        self.engine().bookmarks()
    }

    /// Removes a bookmark, and returns whether there was one.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.set_bookmark("mirror", store.seq()?, 1 << 20)?;
    /// assert!(store.remove_bookmark("mirror")?);
    /// assert!(!store.remove_bookmark("mirror")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn remove_bookmark(&self, name: &str) -> Result<bool> {
        self.engine().remove_bookmark(name)
    }

    /// Reads one commit of another store, as [`Commit::write_to`](crate::Commit::write_to) wrote it, and applies it as
    /// [`Commit::apply`](crate::Commit::apply) does. Returns its sequence number there, also if it was applied before;
    /// `None` at the end of `input`. While it reads, other writers wait, so give it bytes that are there.
    ///
    /// ```
    /// use slotlog::{Error, Store};
    ///
    /// # let store = Store::in_memory()?;
    /// let mut feed = store.changes(0)?;
    /// store.insert("key", "value")?;
    /// let mut sent = Vec::new();
    /// feed.next_commit()?.ok_or("there is one")?.write_to(&mut sent)?;
    ///
    /// let replica = Store::in_memory()?;
    /// let cut_off = replica.apply_from(&sent[..sent.len() - 1]);
    /// assert!(matches!(cut_off, Err(Error::DamagedChanges { .. })) && replica.is_empty()?);
    /// assert_eq!(replica.apply_from(&sent[..])?, Some(store.seq()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CannotFollow`](crate::Error::CannotFollow); [`DamagedChanges`](crate::Error::DamagedChanges) if the bytes are
    /// cut off, damaged or something else; [`Io`](crate::Error::Io) with what `input` reports; those of
    /// [`Transaction::commit`](crate::Transaction::commit). Nothing of the commit is applied then.
    pub fn apply_from(&self, input: impl Read) -> Result<Option<Seq>> {
        let applied = apply_next(&self.engine(), input)?;
        Ok(applied.map(|(seq, _)| seq))
    }

    /// Of which commit of which store this one is a copy: set by a [backup](Store::backup), moved on by each
    /// [commit](crate::Commit::apply) and each [increment](Store::apply_increment) that is applied. `None` if it is no
    /// copy.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("copy"));
    /// store.backup(&path)?;
    /// let origin = slotlog::Store::open(&path)?.origin()?.ok_or("it is a copy")?;
    /// assert_eq!((origin.store, origin.seq), (store.stats()?.uuid, store.seq()?));
    /// assert_eq!(store.origin()?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt); [`PinsExhausted`](crate::Error::PinsExhausted).
    pub fn origin(&self) -> Result<Option<Origin>> {
        Ok(self.engine().origin()?.map(Origin::from))
    }
}

impl Commit<'_> {
    /// Makes the same changes to another store, as one transaction, with the durability of that store's commits.
    /// Returns `false` if they were applied before.
    ///
    /// The other store must be a copy of this one as of the commit before: a [backup](Store::backup) to which all
    /// commits since were applied; or a new store, if the feed begins at 0. It remembers, in the same transaction, of
    /// which commit it [is a copy](Store::origin): so whatever is killed, no commit is applied twice, or left out. As
    /// long as it is to follow, nothing else may write to it.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (Store::in_memory()?, folder.path().join("replica"));
    /// store.insert("key", "before")?;
    /// store.backup(&path)?;
    /// store.insert("key", "after")?;
    ///
    /// let replica = Store::open(&path)?;
    /// let seen = replica.origin()?.ok_or("it is a copy")?.seq;
    /// let mut feed = store.changes(seen)?;
    /// while let Some(commit) = feed.next_commit()? {
    ///     commit.apply(&replica)?;
    /// }
    /// assert_eq!(replica.get("key")?.as_deref(), Some(&b"after"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CannotFollow`](crate::Error::CannotFollow) if that store is no copy of this one, or commits between are
    /// missing; [`DamagedChanges`](crate::Error::DamagedChanges) if its maps are not those of this store; those of
    /// [`Transaction::commit`](crate::Transaction::commit). Nothing is applied then.
    pub fn apply(&self, to: &Store) -> Result<bool> {
        self.apply_to(&to.engine())
    }
}
