//! `slotlog export`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use slotlog::{Export, Snapshot, Store};

use super::common::figures::counted;
use super::common::output::Answer;
use super::common::progress::Progress;
use super::failure::{Done, Failure};
use super::formats::{Format, Head, Outgoing, dump, jsonl, tsv};
use super::open;
use super::out::{NewFile, note};
use super::sort::sorted;
use super::types::Types;

/// Write entries to a file or to standard output, as one commit left them
///
/// The store may be written to meanwhile. JSON lines and TSV are for people and other programs; the dump is the
/// smallest and quickest. `slotlog import` takes each of them back bit for bit: keys, values, deadlines, and, except
/// from TSV, the names and types of maps.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog export app.slotlog everything.jsonl --all-maps
  slotlog export app.slotlog - --map ages | jq .value
  slotlog export app.slotlog words.tsv --sort
  slotlog export app.slotlog - -af dump | slotlog import copy.slotlog - -f dump")]
pub struct Arguments {
    /// The file of the store
    file: PathBuf,
    /// Where it is written to; `-` is standard output
    output: PathBuf,
    /// Only this map; otherwise, the default map
    #[arg(long, short)]
    map: Option<String>,
    /// The default map and all others
    #[arg(long, short, conflicts_with = "map")]
    all_maps: bool,
    /// What is written; otherwise the name of the file says it, and `-` is jsonl
    #[arg(long, short)]
    format: Option<Format>,
    /// Sort the entries of each map by key; takes memory for a reference to each
    #[arg(long)]
    sort: bool,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
    /// Say nothing about what was done
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Done {
    let format = Format::of(arguments.format, &arguments.output);
    if format == Format::Tsv && arguments.all_maps {
        return Err(Failure::new("TSV has no place for the names of maps; use --map, or another --format"));
    }
    let store = open::read(&arguments.file)?;
    // For the message if there is no such map.
    open::find(&store, &arguments.file, arguments.map.as_deref())?;
    let snapshot = store.snapshot()?;
    let mut writer = Writer {
        to: NewFile::create(&arguments.output, arguments.overwrite)?,
        line: Vec::new(),
        dump: dump::Writer::new(),
        format,
        progress: Progress::of_entries("exporting", expected(&store, arguments)?),
        entries: 0,
    };
    writer.begin()?;
    let names = names(&snapshot, arguments)?;
    for name in &names {
        writer.map(snapshot.export_map(name)?, arguments.sort)?;
    }
    let entries = writer.entries;
    writer.end()?;
    if !arguments.quiet {
        let exported = counted(entries, "entry exported", "entries exported");
        note(&format!("{exported}{}", overlooked(&store, arguments, entries)?));
    }
    Ok(Answer::Yes)
}

/// The maps that are exported; the default map has no name.
fn names(snapshot: &Snapshot, arguments: &Arguments) -> Result<Vec<String>, Failure> {
    if !arguments.all_maps {
        return Ok(vec![arguments.map.clone().unwrap_or_default()]);
    }
    let export = snapshot.export()?;
    Ok(std::iter::once(String::new()).chain(export.maps().iter().map(|map| map.name.clone())).collect())
}

/// How many entries there are, for the progress.
fn expected(store: &Store, arguments: &Arguments) -> Result<u64, Failure> {
    let name = arguments.map.as_deref().unwrap_or("(default)");
    let maps = store.stats()?.maps;
    Ok(maps.iter().filter(|map| arguments.all_maps || map.name == name).map(|map| map.entries).sum())
}

/// A hint, if nothing was exported because everything is in other maps.
fn overlooked(store: &Store, arguments: &Arguments, entries: u64) -> Result<String, Failure> {
    let others = store.maps()?.len();
    Ok(match others {
        _ if entries > 0 || arguments.all_maps || arguments.map.is_some() || others == 0 => String::new(),
        1 => "; there is another map: --all-maps has it too".to_owned(),
        others => format!("; there are {others} other maps: --all-maps has them too"),
    })
}

struct Writer {
    to: NewFile,
    line: Vec<u8>,
    dump: dump::Writer,
    format: Format,
    progress: Progress,
    entries: u64,
}

impl Writer {
    fn begin(&mut self) -> Result<(), Failure> {
        if self.format == Format::Dump { self.to.write(dump::MAGIC) } else { Ok(()) }
    }

    fn map(&mut self, export: Export<'_>, sort: bool) -> Result<(), Failure> {
        // The default map has no head.
        let info = export.maps().first().map_or_else(Head::default, Head::from);
        let types = if info.name.is_empty() { Types::BYTES } else { Types::named(&info.types) };
        match self.format {
            Format::Dump => self.dump.map(&info),
            Format::Jsonl if !info.name.is_empty() => jsonl::write_map(&info, &mut self.line),
            _ => {}
        }
        let name: Arc<str> = info.name.into();
        let mut entries = export
            .map(|entry| entry.map(|entry| Outgoing { key: entry.key, value: entry.value, expires: entry.expires }));
        if sort {
            return sorted(entries, &types.key)?.iter().try_for_each(|entry| self.entry(&name, &types, entry));
        }
        entries.try_for_each(|entry| self.entry(&name, &types, &entry?))
    }

    fn entry(&mut self, map: &str, types: &Types, entry: &Outgoing<'_>) -> Result<(), Failure> {
        match self.format {
            Format::Tsv => tsv::write(types, entry, &mut self.line),
            Format::Jsonl => jsonl::write(map, types, entry, &mut self.line),
            Format::Dump => {
                self.dump.entry(entry);
                self.dump.write(&mut self.line);
            }
        }
        self.entries += 1;
        if self.entries.is_multiple_of(1024) {
            self.progress.set(self.entries);
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.to.write(&self.line)?;
        self.line.clear();
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.format == Format::Dump {
            self.dump.end(&mut self.line);
        }
        self.write()?;
        self.progress.finish();
        self.to.finish()
    }
}
