//! `slotlog import`.
//!
//! Entries are read and taken apart first, and then written in one transaction, so that other writers never wait for
//! the other end of a pipe. An entry that is there already is not written again: an import that was interrupted is
//! completed by the same command.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use slotlog::{Durability, Error, Import, Store};

use super::common::figures::counted;
use super::common::output::Answer;
use super::common::progress::Progress;
use super::failure::{Done, Failure};
use super::formats::input::Input;
use super::formats::{Entry, Format, Head, Incoming, Knows, Reads, dump, jsonl, tsv};
use super::open;
use super::out::note;
use super::types::Types;

/// Take entries in, from a file or from standard input
///
/// They are committed in transactions of some thousand entries, and between these others can write. An entry that is
/// there already, with the same value and deadline, is not written again. So if an import was interrupted, by a kill or
/// a full disk, the same command completes it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog import app.slotlog words.tsv          lines of key, tab, value
  slotlog import app.slotlog everything.jsonl   as `export --all-maps` has it
  slotlog import app.slotlog ages.tsv --map ages --types 'str -> u32'
  zcat words.tsv.gz | slotlog import app.slotlog - --format tsv")]
pub struct Arguments {
    /// The file of the store; it is created if it is missing
    file: PathBuf,
    /// What is taken in; `-` is standard input
    input: PathBuf,
    /// Take everything into this map, whatever the input says
    #[arg(long, short)]
    map: Option<String>,
    /// The types of that map, if it is to be created: 'str -> u64'
    #[arg(long, requires = "map")]
    types: Option<String>,
    /// What the input is; otherwise the name of the file says it, and `-` is jsonl
    #[arg(long, short)]
    format: Option<Format>,
    /// Leave entries as they are whose keys are there
    #[arg(long)]
    keep: bool,
    /// Say nothing about what was done
    #[arg(long, short)]
    quiet: bool,
}

/// Entries of a transaction, and their bytes.
const MOST_ENTRIES: usize = 4096;
const MOST_BYTES: usize = 1 << 20;

pub fn run(arguments: &Arguments) -> Done {
    let (input, len) = Input::open(&arguments.input)?;
    let mut reader: Box<dyn Reads> = match Format::of(arguments.format, &arguments.input) {
        Format::Tsv => Box::new(tsv::Reader::new(input)),
        Format::Jsonl => Box::new(jsonl::Reader::new(input)),
        Format::Dump => Box::new(dump::Reader::new(input)),
    };
    let store = Store::options().durability(Durability::Buffered).open(&arguments.file)?;
    let mut importing = Importing {
        import: store.import(),
        maps: HashMap::new(),
        of_input: None,
        batch: Vec::new(),
        bytes: 0,
        counts: Counts::default(),
        store: &store,
        arguments,
    };
    let progress = Progress::of_bytes("importing", len);
    let imported = importing.all(&mut *reader, &progress);
    progress.finish();
    let counts = importing.counts;
    drop(importing);
    // What was committed before a failure stays, too.
    let synced = store.sync().and_then(|()| store.close());
    imported.map_err(|failure| failure.with_advice(&counts.advice()))?;
    synced?;
    if !arguments.quiet {
        note(&counts.summary());
    }
    Ok(Answer::Yes)
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// Entries that are in the store.
    taken: u64,
    /// Those of them that were written.
    written: u64,
}

impl Counts {
    fn summary(self) -> String {
        let Counts { taken, written } = self;
        let imported = counted(taken, "entry imported", "entries imported");
        match taken - written {
            0 => imported,
            left => format!("{imported}: {written} written, {left} there already"),
        }
    }

    fn advice(self) -> String {
        let taken = counted(self.taken, "entry is", "entries are");
        format!("; {taken} in the store by now, and the same command completes the import")
    }
}

struct Importing<'s> {
    store: &'s Store,
    import: Import,
    maps: HashMap<Rc<str>, Target>,
    /// The first map that the input names.
    of_input: Option<Rc<str>>,
    batch: Vec<Entry>,
    bytes: usize,
    counts: Counts,
    arguments: &'s Arguments,
}

#[derive(Clone)]
struct Target {
    types: Rc<Types>,
    /// There is nothing in it that an entry could be compared with.
    was_empty: bool,
}

impl Importing<'_> {
    fn all(&mut self, reader: &mut dyn Reads, progress: &Progress) -> Result<(), Failure> {
        loop {
            let next = reader.next(self);
            let incoming = match next {
                Ok(incoming) => incoming,
                Err(failure) => {
                    // What is right before it is taken.
                    self.flush()?;
                    return Err(failure.within(reader.place()));
                }
            };
            match incoming {
                Some(Incoming::Entry(entry)) => {
                    self.check_is_the_only_one(entry.map.as_deref().unwrap_or_default())?;
                    self.bytes += entry.key.len() + entry.value.len();
                    self.batch.push(entry);
                }
                Some(Incoming::Map(head)) => {
                    self.flush()?;
                    self.create(&head).map_err(|failure| failure.within(reader.place()))?;
                }
                None => return self.flush(),
            }
            let is_full = self.batch.len() >= MOST_ENTRIES || self.bytes >= MOST_BYTES;
            if is_full || !reader.is_at_hand() {
                self.flush()?;
                progress.set(reader.done());
            }
        }
    }

    /// Writes what was read.
    fn flush(&mut self) -> Result<(), Failure> {
        for entry in std::mem::take(&mut self.batch) {
            let (wanted, of_input) = (self.arguments.map.as_deref(), entry.map.as_deref());
            let map = wanted.or(of_input).unwrap_or_default();
            let was_empty = self.target(map)?.was_empty;
            let (key, value, expires) = (&entry.key, &entry.value, entry.expires);
            let written = if self.arguments.keep {
                self.import.insert_if_new(map, key, value, expires)
            } else if was_empty {
                self.import.insert(map, key, value, expires).map(|()| true)
            } else {
                self.import.insert_if_changed(map, key, value, expires)
            };
            self.counts.written += u64::from(self.noted(written)?);
        }
        self.bytes = 0;
        let committed = self.import.commit();
        Ok(self.noted(committed)?)
    }

    /// An outcome, after it was noted what is in the store by now.
    fn noted<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.counts.taken = self.import.committed();
        outcome
    }

    /// Makes sure that there is a map that the input names; the user may want another name for it.
    fn create(&mut self, head: &Head) -> Result<(), Failure> {
        self.check_is_the_only_one(&head.name)?;
        let name = self.arguments.map.as_deref().unwrap_or(&head.name);
        self.import.create_map(name, &head.types, head.version)?;
        self.target(name)?;
        Ok(())
    }

    /// Several maps must not be mixed up in the one that the user wants.
    fn check_is_the_only_one(&mut self, of_input: &str) -> Result<(), Failure> {
        match &self.of_input {
            Some(seen) if self.arguments.map.is_some() && **seen != *of_input => {
                Err(Failure::new("there are several maps in it; leave --map away"))
            }
            Some(_) => Ok(()),
            None => {
                self.of_input = Some(of_input.into());
                Ok(())
            }
        }
    }

    /// The map of this name.
    fn target(&mut self, name: &str) -> Result<&Target, Failure> {
        if !self.maps.contains_key(name) {
            let types = self.arguments.types.as_deref();
            let chosen = (!name.is_empty()).then_some(name);
            let found = open::find_or_create(self.store, &self.arguments.file, chosen, types)?;
            let target = Target { types: Rc::new(found.types), was_empty: found.map.is_empty()? };
            self.maps.insert(name.into(), target);
        }
        Ok(&self.maps[name])
    }
}

impl Knows for Importing<'_> {
    fn types_of(&mut self, map: Option<&str>) -> Result<Rc<Types>, Failure> {
        let name = self.arguments.map.as_deref().or(map).unwrap_or_default();
        Ok(Rc::clone(&self.target(name)?.types))
    }
}
