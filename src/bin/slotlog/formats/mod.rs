//! The formats in which entries go out and come in.

pub mod dump;
pub mod input;
pub mod jsonl;
pub mod tsv;

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use slotlog::MapInfo;

use super::failure::Failure;
use super::types::Types;

/// A format of export and import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object on each line; has the names and types of maps
    #[value(alias = "ndjson", alias = "json")]
    Jsonl,
    /// Key, tab, value; one map
    Tsv,
    /// Binary, with checksums; has the names and types of maps
    Dump,
}

impl Format {
    /// The format that was asked for, or that the name of the file says; JSON lines otherwise.
    pub fn of(asked: Option<Format>, file: &Path) -> Format {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        asked.unwrap_or(match extension.as_deref() {
            Some("tsv" | "txt" | "tab") => Format::Tsv,
            Some("dump" | "slotdump") => Format::Dump,
            _ => Format::Jsonl,
        })
    }
}

/// An entry on its way out.
pub struct Outgoing<'e> {
    pub key: &'e [u8],
    pub value: &'e [u8],
    pub expires: Option<SystemTime>,
}

/// A map, as an export names it. The default map has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub types: String,
    pub version: u32,
}

impl From<&MapInfo> for Head {
    fn from(map: &MapInfo) -> Head {
        Head { name: map.name.clone(), types: map.types.clone(), version: map.version }
    }
}

/// What an input says.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// There is this map.
    Map(Head),
    Entry(Entry),
}

/// An entry on its way in.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name of its map, if the input says so; empty for the default map.
    pub map: Option<Rc<str>>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub expires: Option<SystemTime>,
}

/// Who knows the types of the maps that an input names; `None` is for an input that names none.
pub trait Knows {
    fn types_of(&mut self, map: Option<&str>) -> Result<Rc<Types>, Failure>;
}

/// An input that is read piece by piece.
pub trait Reads {
    /// The next map or entry.
    fn next(&mut self, maps: &mut dyn Knows) -> Result<Option<Incoming>, Failure>;

    /// Whether the next one can be read without waiting for the other end of a pipe.
    fn is_at_hand(&mut self) -> bool;

    /// Bytes that were read.
    fn done(&self) -> u64;

    /// The place, for messages: `line 17`.
    fn place(&self) -> String;
}

/// A deadline as text: RFC 3339, or, beyond the year 9999, `@` and milliseconds since 1970.
pub fn deadline(at: SystemTime) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(at)) {
        Ok(()) => text,
        Err(_) => format!("@{}", milliseconds(at)),
    }
}

/// The deadline that a text stands for.
pub fn read_deadline(text: &str) -> Result<SystemTime, String> {
    let of_milliseconds = text.strip_prefix('@').and_then(|text| text.parse().ok()).and_then(time);
    let wrong = || format!("expected a time like 2030-12-31T23:59:59Z, found {text:?}");
    of_milliseconds.map_or_else(|| humantime::parse_rfc3339_weak(text).map_err(|_| wrong()), Ok)
}

/// A deadline as the file has it.
pub fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

pub fn time(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_back() {
        for milliseconds_since in [0, 1, 1_700_000_000_123, 253_402_300_799_999, 253_402_300_800_000, u64::MAX / 1_000]
        {
            let at = time(milliseconds_since).expect("a time");
            assert_eq!(read_deadline(&deadline(at)), Ok(at));
            assert_eq!(milliseconds(at), milliseconds_since);
        }
        assert_eq!(deadline(time(1_700_000_000_123).expect("a time")), "2023-11-14T22:13:20.123Z");
        assert!(read_deadline("tomorrow").is_err() && read_deadline("@").is_err());
    }

    #[test]
    fn names_of_files_tell_the_format() {
        for (name, format) in [
            ("a.tsv", Format::Tsv),
            ("a.TXT", Format::Tsv),
            ("a.dump", Format::Dump),
            ("a.jsonl", Format::Jsonl),
            ("-", Format::Jsonl),
        ] {
            assert_eq!(Format::of(None, Path::new(name)), format, "{name}");
        }
        assert_eq!(Format::of(Some(Format::Dump), Path::new("a.tsv")), Format::Dump);
    }
}
