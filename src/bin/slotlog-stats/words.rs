//! What each word means, for `--explain` and for the page.

/// The words of one section, and what they mean.
pub type Words = &'static [(&'static str, &'static str)];

pub const STORE: Words = &[
    ("file", "Where the store is, and the length of its file."),
    ("uuid", "The random identity of the store. A backup has one of its own, and says which store it is a copy of."),
    ("format", "The version of the file format."),
    ("commits", "Changes since the store was created. A transaction is one commit."),
    ("incarnation", "How often the store was recovered after a power cut, or as a copy."),
    (
        "checkpoint",
        "What was committed before the last checkpoint survives a power cut. Later commits do only if they were \
         synced.",
    ),
    ("writing now", "The process whose turn it is to write. Changes take turns, reads wait for nothing."),
    (
        "damage",
        "What compaction and scrubs have found. A damaged record goes into quarantine: reading its key fails until it \
         is written again.",
    ),
    ("upkeep", "What writers do besides: each write does a small share of resizing indexes and of cleaning the log."),
];

pub const SPACE: Words = &[
    ("alive", "Records of the log that hold the current value of a key."),
    ("expired", "Records whose deadline has passed: no reader sees them, and upkeep removes them."),
    (
        "dead",
        "Records that were replaced or removed. Upkeep frees them, once they are a certain share \
         and nothing holds them.",
    ),
    ("unwritten", "Room at the end of the log that the next commits go to."),
    ("index", "Where the record of each key is. Every map has an index of its own."),
    ("retired", "What was in use until a moment ago, and an older reader or a recovery may still need."),
    ("reserve", "Kept so that a full store can still remove something."),
    ("tables", "Which map has which index, and what each part of the file is used for."),
    ("free", "What new data goes to before the file grows."),
    ("frame", "The first pages of the file, and its end."),
    ("waits for a checkpoint", "A recovery after a power cut would still need this space, until the next checkpoint."),
    (
        "waits for readers",
        "A snapshot, an iterator or a value in place still sees this space. It can be used again once that is dropped.",
    ),
    ("waits for the next writer", "Nothing needs this space any more. The next writer that looks for room takes it."),
];

pub const MAPS: Words = &[
    ("entries", "Keys that have a value, including expired ones that were not removed yet."),
    ("data", "The size of their records: key, value and a header of 32 bytes."),
    (
        "load",
        "How many of the slots of the index are in use. It grows at 75 %: an index that stays above that is too full.",
    ),
    ("types", "The types of keys and values, as the program that made the map has named them."),
    ("p50, p99", "Half of the entries have at most the first, 99 of 100 at most the second."),
    ("age", "How many commits were made since the entry was written, or moved by compaction."),
    (
        "search",
        "How many lines of 64 bytes of the index a look-up reads. One is best; long searches mean \
         that an index is too full.",
    ),
];

pub const HOLDERS: Words = &[
    ("process", "A process that has the store open for writing. Readers leave no name."),
    ("pin", "A reader or a snapshot. What it sees is not used again until it is dropped."),
    ("behind", "How many commits were made since the one that a pin sees."),
    ("bookmark", "The log is kept from its commit on, so that a follower or an incremental backup can go on there."),
];

/// What a word means.
pub fn meaning(word: &str) -> &'static str {
    let all = [STORE, SPACE, MAPS, HOLDERS];
    all.iter().flat_map(|words| words.iter()).find(|(name, _)| *name == word).map_or("", |(_, meaning)| meaning)
}
