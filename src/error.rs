//! What can go wrong: in naming the file, opening it, and using it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::seq::Seq;

/// Of which commit of which store another one is a copy; see [`Store::origin`](crate::Store::origin).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Origin {
    /// The random identity of the store, as a UUID: see [`Stats::uuid`](crate::Stats::uuid).
    pub store: String,
    /// The sequence number of the commit: the starting point for [`Store::changes`](crate::Store::changes) there.
    pub seq: Seq,
    /// A checksum of the history of the store up to that commit; 0 if it is not known. It tells the commit from the
    /// one with the same number in a copy of the store that went on differently.
    pub crc: u32,
}

/// The result of every operation that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, where, and what to do about it; [`report`](Error::report) adds the cause.
///
/// Each message is one line: the path of the file, what happened, and after a semicolon, what to do. An error caused by
/// the system ([`Io`](Error::Io)) or by a codec ([`Codec`](Error::Codec)) has that cause as its
/// [`source`](std::error::Error::source) and does not repeat it. Messages never show keys or values; they do show names
/// of maps.
///
/// No error loses data: an operation that fails has no effect, and the store stays usable. The one exception is a
/// [synced](crate::Durability::Synced) commit whose flush failed: it may be there all the same.
///
/// ```
/// use slotlog::Error;
///
/// # let store = slotlog::Store::in_memory()?;
/// let too_long = store.insert([0; 100_000], "value");
/// match too_long {
///     Err(Error::KeyTooLong { len, max }) => assert_eq!((len, max), (100_000, 65_535)),
///     other => panic!("{other:?}"),
/// }
/// assert!(store.is_empty()?);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file, or a folder on its path, does not exist.
    #[error(
        "{}: not found; check the path (a store or a backup can be created, but only in an existing folder)",
        path.display()
    )]
    NotFound {
        /// The requested path.
        path: PathBuf,
    },
    /// The file already exists, and a new one was asked for: by `create_new`, or by a [backup](crate::BackupOptions) or
    /// [repair](crate::RepairOptions) that may not overwrite.
    #[error(
        "{}: already exists; choose another path, or allow it: open without `create_new`, back up or repair with \
         `overwrite`",
        path.display()
    )]
    AlreadyExists {
        /// The requested path.
        path: PathBuf,
    },
    /// A [backup](crate::Store::backup) or a [repair](crate::repair()) would overwrite the store that it reads, perhaps
    /// by another name of its file. It was not touched.
    #[error("{}: is the store that is being copied; choose another path for the copy", path.display())]
    OntoItself {
        /// The requested path.
        path: PathBuf,
    },
    /// The path names a directory, a FIFO, a socket or a device.
    #[error("{}: is {what}, but a store must be a regular file; choose another path", path.display())]
    NotAFile {
        /// The requested path.
        path: PathBuf,
        /// What the path names.
        what: &'static str,
    },
    /// The operating system denies opening the file in this way.
    #[error(
        "{}: permission denied; check the permissions of file and folder, or open with `Access::ReadOnly`",
        path.display()
    )]
    PermissionDenied {
        /// The requested path.
        path: PathBuf,
    },
    /// The file is not a slotlog store. It was not touched.
    #[error("{}: not a slotlog store ({what}), left unchanged; check the path", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How it was recognised.
        what: &'static str,
    },
    /// The file was written by a version of slotlog that this build does not understand.
    #[error(
        "{}: has format version {found}, but this build reads {supported}; use the version of slotlog that wrote it",
        path.display()
    )]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version that this build supports.
        supported: u32,
    },
    /// The file uses features that this build does not understand.
    #[error("{}: uses features {features:#x} that this build does not know; use a newer slotlog", path.display())]
    UnsupportedFeature {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        features: u64,
    },
    /// The file is shorter than its own superblock says.
    #[error(
        "{}: truncated to {len} of {expected} bytes; restore the file from a backup, or, if it is a copy of a store in \
         use, copy it again or while it is closed",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// Its minimum length in bytes.
        expected: u64,
    },
    /// The file is damaged.
    #[error(
        "{}: corrupt at offset {offset}: {what}; restore the file from a backup, or save what is whole with `repair` \
         (`Store::verify` lists all damage)",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was found, and what was expected.
        what: Cow<'static, str>,
    },
    /// Another opener holds the store in a mode that excludes this one.
    #[error("{}: in use by {by}; {}", path.display(), by.advice())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The opener that holds it.
        by: HeldBy,
    },
    /// [`close_last`](crate::Store::close_last) was called, but the store is still open in this process. A checkpoint
    /// was taken, and the handle passed to the call is gone.
    #[error(
        "{}: still open in this process through {handles} other handles; drop every clone, map, snapshot, transaction \
         and iterator of the store first",
        path.display()
    )]
    StillOpen {
        /// The file.
        path: PathBuf,
        /// How many handles are left.
        handles: usize,
    },
    /// The table of openers that write is full and cannot grow: the file cannot grow, another process kept writing, or
    /// the maximum of 32,768 is reached.
    #[error("{}: {max} openers already write to it, with no room for more; close one of them", path.display())]
    ProcessesExhausted {
        /// The file.
        path: PathBuf,
        /// How many openers fit.
        max: u64,
    },
    /// The store was opened before this process was forked. It belongs to the parent process.
    #[error("{}: opened before a fork, so it belongs to the parent; open it again in the child", path.display())]
    Forked {
        /// The file.
        path: PathBuf,
    },
    /// The writer lock did not become free in time.
    #[error(
        "{}: gave up after {waited:?}: process {pid} has been writing for {held:?}; commit or drop its transaction, or \
         raise `lock_timeout`",
        path.display()
    )]
    LockTimeout {
        /// The file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The process that holds the writer lock.
        pid: u32,
        /// How long that process has held it.
        held: Duration,
    },
    /// This thread is already writing and began a second write, which would wait for itself forever: it has a
    /// transaction open, in this [`Store`](crate::Store) or in another one of the same file, or it is inside a closure
    /// that a write calls. The error is returned within a tenth of a second.
    ///
    /// A transaction that was sent to another thread counts as the sender's until the receiver first uses it, since a
    /// store cannot see where a value is. A sender that goes on writing calls
    /// [`hand_over`](crate::Transaction::hand_over) first, and then never gets this error because of that transaction.
    #[error(
        "{}: this thread is already writing and would wait for itself; commit or drop its transaction first, or call \
         `hand_over` before sending it to another thread",
        path.display()
    )]
    WouldDeadlock {
        /// The file.
        path: PathBuf,
    },
    /// The key is too long.
    #[error("a key of {len} bytes is too long: the maximum is {max}; shorten it, or use a hash of it")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// The maximum.
        max: usize,
    },
    /// The value is too long.
    #[error("a value of {len} bytes is too long: the maximum is {max}; split it into several")]
    ValueTooLong {
        /// Bytes of the value.
        len: u64,
        /// The maximum.
        max: u64,
    },
    /// There is no room. Reading still works, and keys can still be removed. What a snapshot or an iterator still sees
    /// makes no room, though: [`stats`](crate::Store::stats) shows how much waits for them, and which process has them.
    #[error("{}: full: {needed} more bytes are needed, but {why}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// How many bytes the file had to grow by.
        needed: u64,
        /// What limits the file.
        why: FullReason,
    },
    /// The store was opened with [`Access::ReadOnly`](crate::Access::ReadOnly).
    #[error("{}: opened with `Access::ReadOnly`; open it for writing to change it", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// All pins are taken: each reading thread keeps one, and each commit seen by snapshots, iterators and borrowed
    /// values needs one. The pin table cannot grow: the file cannot grow, another process kept writing, or the maximum
    /// of 2.8 million is reached.
    #[error(
        "{}: all {max} pins are taken, with no room for more; drop snapshots of old commits",
        path.display()
    )]
    PinsExhausted {
        /// The file.
        path: PathBuf,
        /// How many pins fit.
        max: u64,
    },
    /// A flush failed, now or earlier, in this process or in another. Commits since the last successful flush can be
    /// read but may not be durable, and no commit is reported as durable any more. Once all processes have closed the
    /// store, the next opener writes the whole log to the disk again.
    #[error(
        "{}: a flush failed, so durability is unknown; close the store in every process, then open it again",
        path.display()
    )]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// The log does not reach back to this sequence number without a gap, or the store has never had this number: it is
    /// older than what compaction has kept, or newer than what a power cut has left.
    #[error(
        "{}: the changes since {seq:#x} are no longer in the log; read everything, and continue from there",
        path.display()
    )]
    HistoryTruncated {
        /// The file.
        path: PathBuf,
        /// The requested sequence number.
        seq: Seq,
    },
    /// The changes do not follow what the store is a copy of: see [`Store::origin`](crate::Store::origin). They are
    /// changes of another store, or some between are missing. Nothing was applied.
    #[error(
        "{}: cannot apply changes of store {} after its commit {:#x}: {}; begin again with a backup of that store",
        path.display(), after.store, after.seq,
        match origin {
            None => "this is no copy of it".to_owned(),
            Some(origin) if (&origin.store, origin.seq) == (&after.store, after.seq) => {
                "this is a copy of another commit with that number, since one of the two is a copy of the file that \
                 went on differently".to_owned()
            }
            Some(origin) => format!("this is a copy of commit {:#x} of store {}", origin.seq, origin.store),
        }
    )]
    CannotFollow {
        /// The file.
        path: PathBuf,
        /// What the store is a copy of.
        origin: Option<Origin>,
        /// What it has to be a copy of.
        after: Origin,
    },
    /// What was received or read are not the changes of a commit, as [`Commit::write_to`](crate::Commit::write_to)
    /// writes them, or not all. Nothing of the commit was applied.
    #[error("{}: cannot apply changes: {what}; fetch them again", path.display())]
    DamagedChanges {
        /// The file to which they were to be applied.
        path: PathBuf,
        /// What is wrong with them.
        what: Cow<'static, str>,
    },
    /// The map has other types, or another version of them, than requested.
    #[error(
        "{}: map {map:?} holds {found}, but was opened as {wanted}; open it with its own types, or move its entries to \
         a new map (see the documentation of `Store::map`)",
        path.display()
    )]
    TypeMismatch {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
        /// The types in the file: key, value and version.
        found: String,
        /// The requested types.
        wanted: String,
    },
    /// A key or a value could not be encoded or decoded.
    #[error("{}: map {map:?}: could not {step} {part}", path.display())]
    Codec {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
        /// Whether it is the key or the value.
        part: CodecPart,
        /// Whether encoding or decoding failed.
        step: CodecStep,
        /// The reason.
        #[source]
        what: CodecError,
    },
    /// There is no map of this name, and it could not be created; or it was dropped after it was opened.
    #[error("{}: no map {map:?}; open it again to create it, from a store that is open for writing", path.display())]
    NoSuchMap {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
    },
    /// A transaction was to be rolled back to a savepoint that is not one of its own, or that was taken back itself.
    #[error(
        "{}: the savepoint is of another transaction, or was taken back with an earlier one; use one that is left",
        path.display()
    )]
    NoSuchSavepoint {
        /// The file.
        path: PathBuf,
    },
    /// A map was used in a transaction or snapshot of another store.
    #[error("{}: map {map:?} belongs to another store; use a map of this store", path.display())]
    ForeignMap {
        /// The file of the transaction or snapshot.
        path: PathBuf,
        /// The name of the map.
        map: String,
    },
    /// The name is not allowed for a map.
    #[error("{}: map {:?}: {what}", path.display(), shown(name))]
    InvalidName {
        /// The file.
        path: PathBuf,
        /// The rejected name.
        name: String,
        /// Why it is not allowed.
        what: &'static str,
    },
    /// The store has reached a limit of its file format and rejects operations that need one more number: any change
    /// once the [commits](Numbers::Commits) are used up, opening for writing after a power cut once the
    /// [recoveries](Numbers::Recoveries) are, a new map once the [maps](Numbers::Maps) are. Reading still works, and so
    /// does opening for reading or [copy-on-write](crate::Access::CopyOnWrite): copy the contents to a new store.
    #[error(
        "{}: all {max} numbers for {what} are used up; copy the contents, which can still be read, to a new store",
        path.display()
    )]
    NumbersExhausted {
        /// The file.
        path: PathBuf,
        /// What is counted.
        what: Numbers,
        /// The limit.
        max: u64,
    },
    /// The options contradict each other or have no meaning.
    #[error("{}: {what}", path.display())]
    InvalidOptions {
        /// The requested path.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system reported an error.
    #[error("{}: could not {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
}

/// Why a key or a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(Cow<'static, str>);

impl CodecError {
    /// An error with this message: what was found, and what was expected.
    pub fn new(what: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError(what.into())
    }
}

/// The part of an entry that a [codec error](Error::Codec) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CodecPart {
    /// The key.
    #[error("a key")]
    Key,
    /// The value.
    #[error("a value")]
    Value,
}

/// The step at which a [codec error](Error::Codec) happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CodecStep {
    /// Encoding, to store it.
    #[error("encode")]
    Encode,
    /// Decoding, to read it.
    #[error("decode")]
    Decode,
}

/// The counter that a store has [used up](Error::NumbersExhausted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Numbers {
    /// Commits, and a few steps of upkeep: about 17.6 trillion. At a million a second they last 200 days.
    #[error("commits")]
    Commits,
    /// Recoveries after a power cut: about a million. Where the system cannot tell one page cache from another, a kill
    /// counts as one.
    #[error("recoveries")]
    Recoveries,
    /// Maps ever created: about 16.8 million. The number of a dropped map is never reused, since a process may still
    /// have a handle to it.
    #[error("maps")]
    Maps,
}

/// The opener that has a store open in a way that [excludes](Error::Locked) another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeldBy {
    /// A process that has the store open exclusively.
    #[error("process {pid}, which has it open exclusively")]
    Exclusive {
        /// Its process id, as that process sees it.
        pid: u32,
        /// When it opened the store.
        since: SystemTime,
    },
    /// A process that has the store open for writing, shared with others.
    #[error("process {pid}, which has it open for writing")]
    Writer {
        /// Its process id, as that process sees it.
        pid: u32,
        /// When it opened the store.
        since: SystemTime,
    },
    /// Openers with [`Access::ReadOnly`](crate::Access::ReadOnly), which leave no name in the file.
    #[error("a process that has it open for reading (`Access::ReadOnly`)")]
    Readers,
    /// Openers that have mapped the file privately, so that it must not change, and leave no name in it: with
    /// [`Access::CopyOnWrite`](crate::Access::CopyOnWrite); or with read-only access, if they recovered the store after
    /// a power cut and still see what this opening would overwrite, or opened it as
    /// [untrusted](crate::Options::untrusted).
    #[error(
        "a process that uses a private copy of it (`Access::CopyOnWrite`, or `Access::ReadOnly` after a power cut)"
    )]
    Private,
    /// A process on another operating system: the file is shared over a network or with a virtual machine.
    #[error("process {pid} on another system")]
    OtherSystem {
        /// Its process id, as that process sees it.
        pid: u32,
    },
    /// A process that is opening or closing the store, which takes time after a power cut or on a slow disk.
    #[error("process {pid}, which {step}")]
    Opener {
        /// Its process id, as that process sees it.
        pid: u32,
        /// What it is doing, and how far it is.
        step: OpenerStep,
    },
    /// A process that is opening or closing the store and has not yet left its process id.
    #[error("a process that is opening or closing it")]
    Opening,
    /// A thread or process that is taking a checkpoint. That takes as long as a flush, unless it has been stopped.
    #[error("a thread or process that is taking a checkpoint")]
    Superblock,
    /// Another program that holds a lock on the file and has no entry in it.
    #[error("another program that holds a lock on the file")]
    Unknown,
}

/// What a process that [opens or closes](HeldBy::Opener) a store is doing, and how many bytes are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenerStep {
    /// Opening the store, which takes almost no time.
    #[error("is opening it")]
    Opening,
    /// Recovering the store: checking its log; see [`RecoveryPhase`](crate::RecoveryPhase).
    #[error("is recovering it (checked {done} of {total} bytes)")]
    Walking {
        /// Bytes checked.
        done: u64,
        /// Length of the file; the log may be much shorter.
        total: u64,
    },
    /// Recovering the store: flushing what was found.
    #[error("is recovering it (flushed {done} of {total} bytes)")]
    Flushing {
        /// Bytes flushed.
        done: u64,
        /// Length of the file.
        total: u64,
    },
    /// Recovering the store: building its index.
    #[error("is recovering it (indexed {done} of {total} bytes)")]
    Indexing {
        /// Bytes of the log that are indexed.
        done: u64,
        /// Length of the log.
        total: u64,
    },
    /// Closing the store.
    #[error("is closing it (flushed {done} of {total} bytes)")]
    Closing {
        /// Bytes flushed.
        done: u64,
        /// Length of the file.
        total: u64,
    },
}

impl HeldBy {
    /// What to do about it.
    fn advice(self) -> &'static str {
        match self {
            HeldBy::Opener { .. } | HeldBy::Opening | HeldBy::Superblock => "try again when it is done",
            HeldBy::Unknown => "close it there first, or choose another path",
            _ => "close it there first",
        }
    }
}

/// A name may have any length; a message shows this many characters.
fn shown(name: &str) -> String {
    const MOST: usize = 60;

    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Why a store is [full](Error::Full).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FullReason {
    /// The limit that [`Options::max_size`](crate::Options::max_size) sets.
    #[error("`max_size` is {0} bytes; raise it, or remove keys and drop snapshots")]
    MaxSize(u64),
    /// The store [evicts](crate::Options::evict), and a key and its value take at most this many bytes there.
    #[error("in a store that evicts, a key and its value take at most {0} bytes, a 32nd of `max_size`; raise that")]
    Entry(u64),
    /// The disk is full, or the user's quota is used up.
    #[error("the disk is full; free some space, or remove keys and drop snapshots")]
    Disk,
    /// The process may not make files any larger (`RLIMIT_FSIZE`).
    #[error(
        "files of this process are limited to {0} bytes; raise that (`ulimit -f`), or remove keys and drop snapshots"
    )]
    FileSizeLimit(u64),
    /// The address space of this process is limited (`RLIMIT_AS`); a mapped file takes as much of it as it has bytes.
    #[error("the addresses of this process are limited to {0} bytes; raise the limit (`ulimit -v`), or remove keys")]
    AddressLimit(u64),
    /// The system has no more address space for the store, or the format has reached its largest size.
    #[error("at most {0} bytes can be addressed; remove keys")]
    AddressSpace(u64),
}

impl Error {
    /// The whole message in one line: what went wrong, then, after colons, the error of the system or of a codec that
    /// caused it. That is its [`source`](std::error::Error::source), which `to_string` leaves out so that programs that
    /// print the whole chain do not repeat it.
    ///
    /// ```
    /// use slotlog::{CodecError, CodecPart, CodecStep, Error};
    ///
    /// let (part, step, what) = (CodecPart::Key, CodecStep::Encode, CodecError::new("it is odd"));
    /// let error = Error::Codec { path: "app.slotlog".into(), map: "evens".into(), part, step, what };
    /// assert_eq!(error.to_string(), r#"app.slotlog: map "evens": could not encode a key"#);
    /// assert_eq!(error.report(), r#"app.slotlog: map "evens": could not encode a key: it is odd"#);
    /// ```
    pub fn report(&self) -> String {
        let mut report = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            report.push_str(": ");
            report.push_str(&error.to_string());
            source = error.source();
        }
        report
    }

    /// An operating-system error; the most common kinds get a variant of their own.
    pub(crate) fn io(path: &Path, doing: &'static str, source: io::Error) -> Error {
        Error::Io { path: path.to_owned(), doing, source }
    }

    /// Damage at `offset`.
    #[cold]
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::*;
    use crate::file::layout::PINS;
    use crate::{Access, Codec, Store};

    /// A codec that rejects everything.
    struct Refuses;

    impl Codec for Refuses {
        type Borrowed = u8;
        type Owned = u8;

        fn name() -> String {
            "refuses".to_owned()
        }

        fn encode(_: &u8) -> std::result::Result<impl AsRef<[u8]>, CodecError> {
            Err::<[u8; 1], _>(CodecError::new("it refuses this"))
        }

        fn decode(_: &[u8]) -> std::result::Result<u8, CodecError> {
            Err(CodecError::new("it refuses this"))
        }
    }

    /// The name of the variant. A new variant does not compile until it is listed here.
    fn name(error: &Error) -> &'static str {
        macro_rules! names {
            ($($name:ident)*) => {
                (&[$(stringify!($name)),*], match error { $(Error::$name { .. } => stringify!($name),)* })
            };
        }
        let (all, name): (&[&'static str], _) = names!(
            NotFound AlreadyExists OntoItself NotAFile PermissionDenied NotAStore UnsupportedVersion
            UnsupportedFeature Truncated Corrupt Locked StillOpen ProcessesExhausted Forked LockTimeout WouldDeadlock
            KeyTooLong ValueTooLong Full ReadOnly PinsExhausted Poisoned HistoryTruncated CannotFollow DamagedChanges
            TypeMismatch Codec NoSuchMap NoSuchSavepoint ForeignMap InvalidName NumbersExhausted InvalidOptions Io
        );
        assert_eq!(all.len(), ALL);
        name
    }

    /// How many variants there are.
    const ALL: usize = 34;

    fn of<T>(refused: Result<T>) -> Error {
        match refused {
            Ok(_) => panic!("it was to be refused"),
            Err(error) => error,
        }
    }

    /// Every error: those that a program can provoke are provoked, at a path in this folder.
    fn errors(folder: &Path) -> Vec<Error> {
        let path = folder.join("store");
        let at = |name: &str| folder.join(name);
        let store = Store::open(&path).unwrap();
        store.insert("key", "value").unwrap();
        let ages = store.map::<str, u32>("ages").unwrap();
        let refusing = store.map::<Refuses, u8>("refuses").unwrap();
        let other = Store::open(&path).unwrap();
        fs::write(at("text"), "something else, of some length").unwrap();
        fs::copy(&path, at("short")).unwrap();
        fs::File::options().write(true).open(at("short")).unwrap().set_len(20_000).unwrap();
        let small = Store::options().max_size(300_000).open(at("small")).unwrap();
        let closed = Store::open(at("closed")).unwrap();
        let _clone = closed.clone();
        let mut errors = vec![
            of(Store::options().create(false).open(at("missing"))),
            of(Store::options().create_new(true).open(&path)),
            of(Store::open(folder)),
            of(Store::open(at("text"))),
            of(Store::open(at("short"))),
            of(Store::options().exclusive(true).open(&path)),
            of(closed.close_last()),
            of(store.backup(&path)),
            of(store.backup(at("text"))),
            of(store.insert([0; 70_000], "value")),
            of((0..4000).try_for_each(|key: u32| small.insert(key.to_le_bytes(), [7; 200]))),
            of(store.map::<str, u64>("ages")),
            of(refusing.insert(1, 1)),
            of(Store::in_memory().unwrap().snapshot().unwrap().of(&ages).get("Ada")),
            of(store.map::<str, u64>("")),
            of(store.map::<str, u64>(&"long ".repeat(20_000))),
            of(Store::options().access(Access::CopyOnWrite).create_new(true).open(at("new"))),
            of(Store::options().auto_compact(Some(2.0)).open(at("new"))),
            of(Store::options().access(Access::ReadOnly).in_memory()),
            of(store.changes_since(u64::MAX)),
        ];
        let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
        errors.push(of(reader.insert("key", "value")));
        errors.push(of(reader.map::<str, u32>("missing")));
        {
            let mut transaction = other.begin().unwrap();
            let before = transaction.savepoint().unwrap();
            let after = transaction.savepoint().unwrap();
            transaction.rollback_to(&before).unwrap();
            errors.push(of(transaction.rollback_to(&after)));
            errors.push(of(other.insert("key", "value")));
            let impatient = Store::options().lock_timeout(Duration::from_millis(1)).open(&path).unwrap();
            let elsewhere = std::thread::spawn(move || of(impatient.insert("key", "value")));
            errors.push(elsewhere.join().unwrap());
        }
        errors.extend(rare(&path));
        errors
    }

    /// Errors that need special circumstances, and the remaining causes of the others.
    fn rare(path: &Path) -> Vec<Error> {
        let p = || path.to_owned();
        let since = SystemTime::UNIX_EPOCH;
        let mut errors = vec![
            Error::PermissionDenied { path: p() },
            Error::UnsupportedVersion { path: p(), found: 7, supported: 1 },
            Error::UnsupportedFeature { path: p(), features: 8 },
            Error::corrupt(path, 4096, "expected something else"),
            Error::ProcessesExhausted { path: p(), max: 128 },
            Error::Forked { path: p() },
            Error::ValueTooLong { len: 1 << 33, max: u64::from(u32::MAX) },
            Error::PinsExhausted { path: p(), max: PINS },
            Error::Poisoned { path: p() },
            Error::io(path, "flush the file", io::Error::other("the cable was pulled")),
        ];
        let mut holders = vec![HeldBy::Exclusive { pid: 7, since }, HeldBy::Writer { pid: 7, since }];
        holders.extend([HeldBy::Readers, HeldBy::Private, HeldBy::OtherSystem { pid: 7 }]);
        holders.extend([HeldBy::Opening, HeldBy::Superblock, HeldBy::Unknown]);
        errors.extend(holders.into_iter().map(|by| Error::Locked { path: p(), by }));
        let reasons =
            [FullReason::MaxSize(7), FullReason::Disk, FullReason::FileSizeLimit(7), FullReason::AddressSpace(7)];
        errors.extend(reasons.map(|why| Error::Full { path: p(), needed: 4096, why }));
        let of = |seq| Origin { store: "4f1d".to_owned(), seq: Seq(seq), crc: 7 };
        errors.extend([None, Some(of(7)), Some(of(9))].map(|origin| Error::CannotFollow {
            path: p(),
            origin,
            after: of(9),
        }));
        errors.push(Error::DamagedChanges { path: p(), what: "they end in the middle of a commit".into() });
        let counted = [Numbers::Commits, Numbers::Recoveries, Numbers::Maps];
        errors.extend(counted.map(|what| Error::NumbersExhausted { path: p(), what, max: 7 }));
        let (map, what) = (|| "ages".to_owned(), || CodecError::new("it is odd"));
        for (part, step) in [(CodecPart::Key, CodecStep::Decode), (CodecPart::Value, CodecStep::Encode)] {
            errors.push(Error::Codec { path: p(), map: map(), part, step, what: what() });
        }
        errors
    }

    /// The words that advice may begin with.
    const ADVICE: [&str; 24] = [
        "check", "open", "choose", "use", "restore", "close", "try", "drop", "commit", "shorten", "split", "raise",
        "free", "remove", "read", "copy", "create", "give", "see", "set", "what", "move", "begin", "fetch",
    ];

    #[test]
    fn each_error_says_what_and_where_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let errors = errors(folder.path());
        let mut names: Vec<&str> = errors.iter().map(name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL, "not all of them are here: {names:?}");
        for error in &errors {
            let text = error.to_string();
            let what = match error {
                // These come from an argument, before any file is involved.
                Error::KeyTooLong { .. } | Error::ValueTooLong { .. } => text.as_str(),
                _ => {
                    let behind = text.strip_prefix(&*folder.path().to_string_lossy());
                    let behind = behind.or_else(|| text.strip_prefix("(in memory)"));
                    behind.and_then(|behind| behind.split_once(": ")).expect(&text).1
                }
            };
            assert!(what.len() > 10 && text.len() < 400 + folder.path().as_os_str().len(), "{text}");
            assert!(!text.contains(['\n', '\t']) && !text.contains("  ") && !text.ends_with('.'), "{text}");
            match error.source() {
                Some(source) => {
                    let source = source.to_string();
                    assert!(!text.contains(&source), "it says twice: {text}");
                    assert_eq!(error.report(), format!("{text}: {source}"));
                }
                None => {
                    assert_eq!(error.report(), text);
                    let advice = what.split("; ").skip(1);
                    let is_advice = |advice: &str| advice.split(' ').next().is_some_and(|word| ADVICE.contains(&word));
                    assert!(advice.into_iter().any(is_advice), "it does not say what to do: {text}");
                }
            }
        }
    }

    #[test]
    fn errors_of_the_system_and_of_codecs_have_them_as_their_sources() {
        let folder = tempfile::tempdir().unwrap();
        for error in errors(folder.path()) {
            let has_one = matches!(error, Error::Io { .. } | Error::Codec { .. });
            assert_eq!(error.source().is_some(), has_one, "{error}");
        }
    }
}
