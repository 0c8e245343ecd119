//! What can go wrong, by phase: naming the file, opening it, using it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, where, and what to do about it; [`report`](Error::report) says why as well.
///
/// The text of each is one line: the path of the file, what has happened, and behind a semicolon, what to do. What
/// comes of an error of the system ([`Io`](Error::Io)) or of a codec ([`Codec`](Error::Codec)) has that as its
/// [`source`](std::error::Error::source), and does not repeat it. Keys and values are never shown, names of maps are.
///
/// No error loses data: an operation that fails has not happened, and the store goes on as it was. The one exception is
/// a commit that was to be [synced](crate::Durability::Synced) and could not be: it may be there all the same.
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
    /// The file, or a folder on the way to it, does not exist.
    #[error(
        "{}: not found; check the path (a store is only created for writing, in a folder that exists)",
        path.display()
    )]
    NotFound {
        /// The path that was to be opened.
        path: PathBuf,
    },
    /// There is a file already, and `create_new` was asked for.
    #[error(
        "{}: exists already, and `create_new` was asked for; open it without that, or choose another path",
        path.display()
    )]
    AlreadyExists {
        /// The path that was to be created.
        path: PathBuf,
    },
    /// The path names a directory, a FIFO, a socket or a device.
    #[error("{}: is {what}, and a store is a regular file; choose another path", path.display())]
    NotAFile {
        /// The path that was to be opened.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The operating system forbids opening the file so.
    #[error(
        "{}: permission denied; check the rights of file and folder, or open with `Access::ReadOnly`",
        path.display()
    )]
    PermissionDenied {
        /// The path that was to be opened.
        path: PathBuf,
    },
    /// The file is something else. It was not touched.
    #[error("{}: not a slotlog store ({what}), and was left as it is; check the path", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: &'static str,
    },
    /// The file was written by a version of slotlog that this one does not understand.
    #[error(
        "{}: has format version {found}, and this build reads {supported}; use a slotlog of the version that wrote it",
        path.display()
    )]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version of this build.
        supported: u32,
    },
    /// The file uses features that this version does not understand.
    #[error("{}: uses features {features:#x} that this build does not know; use a newer slotlog", path.display())]
    UnsupportedFeature {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        features: u64,
    },
    /// The file is shorter than its own superblock says.
    #[error(
        "{}: truncated to {len} bytes of {expected}; restore the file from a copy, or, if this is a copy of a store in \
         use, copy it while it is closed, or copy it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The length that it should have at least.
        expected: u64,
    },
    /// The file is damaged.
    #[error(
        "{}: corrupt at offset {offset}: {what}; restore the file from a backup (`Store::verify` tells all that is \
         damaged)",
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
    /// Someone holds the store in a mode that excludes this one.
    #[error("{}: in use by {by}; {}", path.display(), by.advice())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who holds it.
        by: HeldBy,
    },
    /// What was to be closed [for good](crate::Store::close_last) is still open in this process. A checkpoint was
    /// taken, and the handle that was to be the last one is gone.
    #[error(
        "{}: still open in this process, by {handles} other handles; drop every clone, map, snapshot, transaction and \
         iterator of the store first",
        path.display()
    )]
    StillOpen {
        /// The file.
        path: PathBuf,
        /// How many handles are left.
        handles: usize,
    },
    /// As many openers have the store open for writing as there is room for, and there cannot be made more: the file
    /// can get no longer, another process went on writing all the time, or there are as many as there can ever be,
    /// 32,768.
    #[error("{}: {max} openers write to the store, and there is no room for more; close one of them", path.display())]
    ProcessesExhausted {
        /// The file.
        path: PathBuf,
        /// How many there is room for.
        max: u64,
    },
    /// The store was opened before this process was forked. It belongs to the parent.
    #[error("{}: opened before a fork, and belongs to the parent process; open it anew in the child", path.display())]
    Forked {
        /// The file.
        path: PathBuf,
    },
    /// The writer lock did not become free in time.
    #[error(
        "{}: gave up after waiting {waited:?} for its turn to write, which process {pid} has had for {held:?}; commit \
         or drop the transaction there, or raise `lock_timeout`",
        path.display()
    )]
    LockTimeout {
        /// The file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
        /// The process that holds the lock.
        pid: u32,
        /// How long it has held it.
        held: Duration,
    },
    /// This thread writes already, and began a second write, which could only wait for itself: it has a transaction
    /// open, in this [`Store`](crate::Store) or in another one of the same file, or is within a closure that a write
    /// calls. It is told within a tenth of a second.
    ///
    /// A transaction that was sent to another thread counts as that of the sender until the other one uses it, since
    /// nothing tells where a value is. A sender that goes on writing says that it [hands the transaction
    /// over](crate::Transaction::hand_over), and then is never told this because of it.
    #[error(
        "{}: this thread writes already and would wait for itself; commit or drop its transaction first, or if that \
         was sent to another thread, call `hand_over` before",
        path.display()
    )]
    WouldDeadlock {
        /// The file.
        path: PathBuf,
    },
    /// The key is too long.
    #[error("a key of {len} bytes is too long: the most is {max}; shorten it, or use a hash of it")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The value is too long.
    #[error("a value of {len} bytes is too long: the most is {max}; split it into several")]
    ValueTooLong {
        /// Bytes of the value.
        len: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// There is no room. What is there can still be read, and keys can still be removed.
    #[error("{}: full: {needed} more bytes are needed, and {why}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// How many bytes were to be added to the file.
        needed: u64,
        /// What stands in the way.
        why: FullReason,
    },
    /// The store was opened with [`Access::ReadOnly`](crate::Access::ReadOnly).
    #[error("{}: was opened with `Access::ReadOnly`; open it for writing to change it", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// All pins are taken: each thread that reads keeps one, and each commit that snapshots, iterators and borrowed
    /// values look at needs one. And there cannot be made more: the file can get no longer, another process went on
    /// writing all the time, or there are as many as there can ever be, 2.8 million.
    #[error(
        "{}: all {max} pins are taken, and there is no room for more; drop snapshots of old commits",
        path.display()
    )]
    PinsExhausted {
        /// The file.
        path: PathBuf,
        /// How many there is room for.
        max: u64,
    },
    /// A flush has failed, now or before, in this process or in another. What was committed since the last successful
    /// one can be read but may not be durable, and nothing is called durable any more. When everybody has closed the
    /// store, the next opening writes its whole log to the disk once more.
    #[error(
        "{}: a flush failed, so durability is unknown; close the store everywhere and open it again",
        path.display()
    )]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// The log does not go back to this sequence number without a gap, or never had it in this life of the store: it is
    /// older than what compaction has left, or newer than what a power cut has left.
    #[error(
        "{}: the changes since {seq:#x} are not in the log any more; read everything, and go on from there",
        path.display()
    )]
    HistoryTruncated {
        /// The file.
        path: PathBuf,
        /// The sequence number that was asked for.
        seq: u64,
    },
    /// The map has another type, or another version of it, than it was asked for.
    #[error(
        "{}: map {map:?} holds {found}, and was opened as {wanted}; open it with the types that it has, or move what \
         it has to a new map (see the documentation of `Store::map`)",
        path.display()
    )]
    TypeMismatch {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
        /// The types in the file: key, value and version.
        found: String,
        /// The types that were asked for.
        wanted: String,
    },
    /// A key or a value could not be encoded or decoded.
    #[error("{}: map {map:?}: {part} does not {step}", path.display())]
    Codec {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
        /// Whether it is a key or a value.
        part: CodecPart,
        /// Whether it was to be encoded or decoded.
        step: CodecStep,
        /// What does not fit.
        #[source]
        what: CodecError,
    },
    /// There is no map of this name, and it could not be created; or it was dropped since it was opened.
    #[error("{}: there is no map {map:?}; open it anew to create it, with a store that can be written", path.display())]
    NoSuchMap {
        /// The file.
        path: PathBuf,
        /// The name of the map.
        map: String,
    },
    /// A map was used in a transaction or snapshot of another store.
    #[error("{}: map {map:?} belongs to another store; use one of the same `Store`", path.display())]
    ForeignMap {
        /// The file of the transaction or snapshot.
        path: PathBuf,
        /// The name of the map.
        map: String,
    },
    /// A map cannot have this name.
    #[error("{}: map {:?}: {what}", path.display(), shown(name))]
    InvalidName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// What does not work.
        what: &'static str,
    },
    /// The store has counted as far as its file format goes, and refuses what would need one more number: any change
    /// when it has used up its [commits](Numbers::Commits), to be opened for writing after a power cut when it has used
    /// up its [recoveries](Numbers::Recoveries), a new map when it has used up its [maps](Numbers::Maps). Reading goes
    /// on working, and opening for reading or as a [copy](crate::Access::CopyOnWrite): copy what it has to a new store.
    #[error(
        "{}: all {max} numbers for {what} are used up; what the store has can be read: copy it to a new store",
        path.display()
    )]
    NumbersExhausted {
        /// The file.
        path: PathBuf,
        /// What they count.
        what: Numbers,
        /// How many there are.
        max: u64,
    },
    /// The options contradict each other or ask for the impossible.
    #[error("{}: {what}", path.display())]
    InvalidOptions {
        /// The path that was to be opened.
        path: PathBuf,
        /// What does not work.
        what: &'static str,
    },
    /// The operating system reported an error.
    #[error("{}: could not {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
}

/// What does not fit when a key or a value is encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(Cow<'static, str>);

impl CodecError {
    /// An error that says what was found, and what was expected.
    pub fn new(what: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError(what.into())
    }
}

/// What of an entry a [codec error](Error::Codec) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecPart {
    /// The key.
    #[error("a key")]
    Key,
    /// The value.
    #[error("a value")]
    Value,
}

/// What a [codec error](Error::Codec) happened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecStep {
    /// It was to be stored.
    #[error("encode")]
    Encode,
    /// It was to be read.
    #[error("decode")]
    Decode,
}

/// What a store that has [run out of numbers](Error::NumbersExhausted) has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Numbers {
    /// Commits, and a few steps of upkeep: about 17.6 million million, which a million a second reach in 200 days.
    #[error("commits")]
    Commits,
    /// Recoveries from a power cut: about a million. Where the system does not tell one page cache from another, a kill
    /// counts as one.
    #[error("recoveries")]
    Recoveries,
    /// Maps that were ever made: about 16.8 million. The number of a map that was dropped is not given to another one,
    /// since somebody may still have a handle to it.
    #[error("maps")]
    Maps,
}

/// Who has a store open in a way that [excludes](Error::Locked) another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeldBy {
    /// A process that has the store alone.
    #[error("process {pid}, which has it alone")]
    Exclusive {
        /// Its process id, as it sees it itself.
        pid: u32,
        /// Since when.
        since: SystemTime,
    },
    /// A process that writes, together with others.
    #[error("process {pid}, which writes to it")]
    Writer {
        /// Its process id, as it sees it itself.
        pid: u32,
        /// Since when.
        since: SystemTime,
    },
    /// Openers with [`Access::ReadOnly`](crate::Access::ReadOnly), who leave no name in the file.
    #[error("a process that reads it (`Access::ReadOnly`)")]
    Readers,
    /// Openers who have its content as memory of their own, which the file must not change under, and leave no name in
    /// it: with [`Access::CopyOnWrite`](crate::Access::CopyOnWrite); or for reading, if they have recovered it after a
    /// power cut and see what this opening would write over, or had to be [untrusting](crate::Options::untrusted).
    #[error(
        "a process that works on a private copy of it (`Access::CopyOnWrite`, or `Access::ReadOnly` after a power cut)"
    )]
    Private,
    /// A process that runs under another operating system: the file is shared over a network or with a virtual machine.
    #[error("process {pid} of another system")]
    OtherSystem {
        /// Its process id, as it sees it itself.
        pid: u32,
    },
    /// A process that is opening or closing the store, which takes its time after a power cut, and on a slow disk.
    #[error("process {pid}, which {step},")]
    Opener {
        /// Its process id, as it sees it itself.
        pid: u32,
        /// What it is at, and how far.
        step: OpenerStep,
    },
    /// Somebody who is opening or closing the store, and has not said yet who it is.
    #[error("a process that is opening or closing it")]
    Opening,
    /// A thread or process that takes a checkpoint. That lasts as long as a flush, unless it was stopped.
    #[error("a thread or process that takes a checkpoint of it")]
    Superblock,
    /// Somebody who holds a lock on the file and has no entry in it.
    #[error("another program, which holds a lock on the file")]
    Unknown,
}

/// What a process that [opens or closes](HeldBy::Opener) a store is at, and how many bytes of it are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenerStep {
    /// It opens a store, which takes no time.
    #[error("is opening it")]
    Opening,
    /// It recovers the store and checks its log; see [`RecoveryPhase`](crate::RecoveryPhase).
    #[error("is recovering it (it has checked {done} of {total} bytes)")]
    Walking {
        /// Bytes that were checked.
        done: u64,
        /// Length of the file; the log may be much shorter.
        total: u64,
    },
    /// It recovers the store and flushes what it has found.
    #[error("is recovering it (it has flushed {done} of {total} bytes)")]
    Flushing {
        /// Bytes that were flushed.
        done: u64,
        /// Length of the file.
        total: u64,
    },
    /// It recovers the store and builds its index.
    #[error("is recovering it (it has indexed {done} of {total} bytes)")]
    Indexing {
        /// Bytes of the log that are in the index.
        done: u64,
        /// Length of the log.
        total: u64,
    },
    /// It closes the store.
    #[error("is closing it (it has flushed {done} of {total} bytes)")]
    Closing {
        /// Bytes that were flushed.
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

/// A name may be of any length; so much of it is shown.
fn shown(name: &str) -> String {
    const MOST: usize = 60;

    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Why a store is [full](Error::Full).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FullReason {
    /// The limit that [`Options::max_size`](crate::Options::max_size) sets.
    #[error("`max_size` is {0} bytes; raise it, or remove keys")]
    MaxSize(u64),
    /// The disk, or the user's quota.
    #[error("the disk is full; free some space, or remove keys")]
    Disk,
    /// The process may not make files larger (`RLIMIT_FSIZE`).
    #[error("files of this process are limited to {0} bytes; raise the limit (`ulimit -f`), or remove keys")]
    FileSizeLimit(u64),
    /// The addresses that this process may use (`RLIMIT_AS`), of which a mapped file takes as many as it has bytes.
    #[error("the addresses of this process are limited to {0} bytes; raise the limit (`ulimit -v`), or remove keys")]
    AddressLimit(u64),
    /// The addresses that the system has for the store, or the largest size that the format can address.
    #[error("no more than {0} bytes can be addressed; remove keys")]
    AddressSpace(u64),
}

impl Error {
    /// All of it in one line: what went wrong, and behind it, after colons, the error of the system or of a codec that
    /// it came of. That is its [`source`](std::error::Error::source), which `to_string` leaves out, so that a program
    /// that prints whole chains says nothing twice.
    ///
    /// ```
    /// use slotlog::{CodecError, CodecPart, CodecStep, Error};
    ///
    /// let (part, step, what) = (CodecPart::Key, CodecStep::Encode, CodecError::new("it is odd"));
    /// let error = Error::Codec { path: "app.slotlog".into(), map: "evens".into(), part, step, what };
    /// assert_eq!(error.to_string(), r#"app.slotlog: map "evens": a key does not encode"#);
    /// assert_eq!(error.report(), r#"app.slotlog: map "evens": a key does not encode: it is odd"#);
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

    /// An operating-system error, with the phases that deserve a variant of their own picked out.
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

    /// A codec that refuses everything.
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

    /// Its name, of every one that there is: a new one does not compile before it stands here.
    fn name(error: &Error) -> &'static str {
        macro_rules! names {
            ($($name:ident)*) => {
                (&[$(stringify!($name)),*], match error { $(Error::$name { .. } => stringify!($name),)* })
            };
        }
        let (all, name): (&[&'static str], _) = names!(
            NotFound AlreadyExists NotAFile PermissionDenied NotAStore UnsupportedVersion UnsupportedFeature Truncated
            Corrupt Locked StillOpen ProcessesExhausted Forked LockTimeout WouldDeadlock KeyTooLong ValueTooLong Full
            ReadOnly PinsExhausted Poisoned HistoryTruncated TypeMismatch Codec NoSuchMap ForeignMap InvalidName
            NumbersExhausted InvalidOptions Io
        );
        assert_eq!(all.len(), ALL);
        name
    }

    /// How many there are.
    const ALL: usize = 30;

    fn of<T>(refused: Result<T>) -> Error {
        match refused {
            Ok(_) => panic!("it was to be refused"),
            Err(error) => error,
        }
    }

    /// Every error, those that a program can bring about as it does, at a path in this folder.
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
            let _transaction = other.begin().unwrap();
            errors.push(of(other.insert("key", "value")));
            let impatient = Store::options().lock_timeout(Duration::from_millis(1)).open(&path).unwrap();
            let elsewhere = std::thread::spawn(move || of(impatient.insert("key", "value")));
            errors.push(elsewhere.join().unwrap());
        }
        errors.extend(rare(&path));
        errors
    }

    /// Those that take a machine of their own, and all the causes of the others.
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
        let counted = [Numbers::Commits, Numbers::Recoveries, Numbers::Maps];
        errors.extend(counted.map(|what| Error::NumbersExhausted { path: p(), what, max: 7 }));
        let (map, what) = (|| "ages".to_owned(), || CodecError::new("it is odd"));
        for (part, step) in [(CodecPart::Key, CodecStep::Decode), (CodecPart::Value, CodecStep::Encode)] {
            errors.push(Error::Codec { path: p(), map: map(), part, step, what: what() });
        }
        errors
    }

    /// What the advice of an error may begin with.
    const ADVICE: [&str; 22] = [
        "check", "open", "choose", "use", "restore", "close", "try", "drop", "commit", "shorten", "split", "raise",
        "free", "remove", "read", "copy", "create", "give", "see", "set", "what", "move",
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
                // They come of what a call was given, before any file is looked at.
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
