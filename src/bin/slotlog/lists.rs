//! `slotlog list`, `count`, `maps`: what is in a store.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use slotlog::{Error, Expiry};

use super::common::columns::fitted;
use super::common::figures::size;
use super::common::output::Answer;
use super::common::tables::table_with_text;
use super::failure::{Done, Failure};
use super::formats::{Outgoing, jsonl, tsv};
use super::notation;
use super::open::{self, Found, printed};
use super::out::{Out, note, print, print_json};
use super::sort::sorted;
use super::text::{printable, unescape};
use super::types::{Type, Types};

/// Print entries: key, tab, value
///
/// They come in no particular order, as one commit left them. Control characters and what is not UTF-8 are escaped;
/// `slotlog import --format tsv` reads these lines.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog list app.slotlog
  slotlog list app.slotlog --prefix user/ --limit 10
  slotlog list app.slotlog --map ages --sort
  slotlog list app.slotlog --keys | wc -l")]
pub struct List {
    /// The file of the store
    file: PathBuf,
    /// The map; without it, the default map
    #[arg(long, short)]
    map: Option<String>,
    /// Only keys that begin with this, as they are printed
    #[arg(long, short, allow_hyphen_values = true)]
    prefix: Option<OsString>,
    /// At most this many entries
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Print only keys
    #[arg(long, short, conflicts_with = "values")]
    keys: bool,
    /// Print only values
    #[arg(long)]
    values: bool,
    /// Sort by key; takes memory for a reference to each entry
    #[arg(long)]
    sort: bool,
    /// Print JSON lines
    #[arg(long, conflicts_with_all = ["keys", "values"])]
    json: bool,
}

/// Which keys are wanted.
enum Prefix {
    All,
    Bytes(Vec<u8>),
    /// Of keys that are not stored as they are printed.
    Printed(Vec<u8>),
}

impl Prefix {
    fn of(text: Option<&OsString>, of: &Type) -> Result<Prefix, Failure> {
        match text.map(|text| text.as_encoded_bytes()) {
            None => Ok(Prefix::All),
            Some(text) if of.is_bytes() => {
                let bytes = unescape(text).map_err(|error| Failure::new(format!("--prefix: {error}")))?;
                Ok(Prefix::Bytes(bytes))
            }
            Some(text) => Ok(Prefix::Printed(text.to_vec())),
        }
    }

    fn takes(&self, of: &Type, key: &[u8]) -> bool {
        match self {
            Prefix::All => true,
            Prefix::Bytes(prefix) => key.starts_with(prefix),
            Prefix::Printed(prefix) => {
                let mut text = Vec::new();
                notation::write(of, key, &mut text);
                text.starts_with(prefix)
            }
        }
    }
}

pub fn list(arguments: &List) -> Done {
    let store = open::read(&arguments.file)?;
    let name = arguments.map.as_deref();
    let Found { map, types } = open::find(&store, &arguments.file, name)?;
    let prefix = Prefix::of(arguments.prefix.as_ref(), &types.key)?;
    let snapshot = store.snapshot()?;
    let outgoing = |(key, value, expires): (_, _, Expiry)| Outgoing { key, value, expires: expires.time() };
    let entries = snapshot.of(&map).iter_ref()?.map(|entry| entry.map(outgoing));
    let mut printer = Printer { arguments, types: &types, lines: Vec::new(), out: Out::standard(), printed: 0 };
    if arguments.sort {
        for entry in sorted(entries, &types.key)?.iter().filter(|entry| prefix.takes(&types.key, entry.key)) {
            if !printer.entry(entry)? {
                break;
            }
        }
    } else {
        printer.all(entries, &prefix)?;
    }
    printer.write()?;
    printer.out.flush()?;
    let is_empty = printer.printed == 0 && arguments.limit != Some(0) && prefix.is_all();
    if is_empty && name.is_none() && !store.maps()?.is_empty() {
        note("the default map is empty; `slotlog maps` shows the others, and --map lists one");
    }
    Ok(Answer::Yes)
}

impl Prefix {
    fn is_all(&self) -> bool {
        matches!(self, Prefix::All)
    }
}

/// Lines are printed together, up to this length.
const MOST_BYTES: usize = 1 << 16;

struct Printer<'l> {
    arguments: &'l List,
    types: &'l Types,
    /// What is to be printed next.
    lines: Vec<u8>,
    out: Out,
    printed: u64,
}

impl Printer<'_> {
    fn all<'e>(
        &mut self,
        entries: impl Iterator<Item = Result<Outgoing<'e>, Error>>,
        prefix: &Prefix,
    ) -> Result<(), Failure> {
        for entry in entries {
            let entry = entry?;
            if prefix.takes(&self.types.key, entry.key) && !self.entry(&entry)? {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.out.write(&self.lines)?;
        self.lines.clear();
        Ok(())
    }

    /// Prints an entry; `false` if that was one too many.
    fn entry(&mut self, entry: &Outgoing<'_>) -> Result<bool, Failure> {
        if Some(self.printed) == self.arguments.limit {
            return Ok(false);
        }
        self.printed += 1;
        let line = &mut self.lines;
        if self.arguments.json {
            jsonl::write(self.arguments.map.as_deref().unwrap_or_default(), self.types, entry, line);
        } else if self.arguments.keys {
            notation::write(&self.types.key, entry.key, line);
            line.push(b'\n');
        } else if self.arguments.values {
            notation::write(&self.types.value, entry.value, line);
            line.push(b'\n');
        } else {
            tsv::write(self.types, entry, line);
        }
        if line.len() >= MOST_BYTES {
            self.write()?
        }
        Ok(true)
    }
}

/// Print how many entries there are
///
/// Those that have expired are not counted, so this looks at each: a tenth of a second for a million.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog count app.slotlog
  slotlog count app.slotlog --map ages
  slotlog count app.slotlog --prefix user/")]
pub struct Count {
    /// The file of the store
    file: PathBuf,
    /// The map; without it, the default map
    #[arg(long, short)]
    map: Option<String>,
    /// Only keys that begin with this, as they are printed
    #[arg(long, short, allow_hyphen_values = true)]
    prefix: Option<OsString>,
}

pub fn count(arguments: &Count) -> Done {
    let store = open::read(&arguments.file)?;
    let found = open::find(&store, &arguments.file, arguments.map.as_deref())?;
    let (snapshot, of) = (store.snapshot()?, &found.types.key);
    let prefix = Prefix::of(arguments.prefix.as_ref(), of)?;
    let count = if prefix.is_all() {
        snapshot.of(&found.map).len()?
    } else {
        let mut count = 0;
        for entry in snapshot.of(&found.map).iter_ref()? {
            count += u64::from(prefix.takes(of, entry?.0));
        }
        count
    };
    print(&format!("{count}\n"))?;
    Ok(Answer::Yes)
}

/// Print the maps of a store, with their types
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog maps app.slotlog
  slotlog maps app.slotlog --json | jq -r '.[].name'")]
pub struct Maps {
    /// The file of the store
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The number of the default map, which is greater than that of the catalogue.
const DEFAULT_MAP: u32 = 1;

pub fn maps(arguments: &Maps) -> Done {
    let store = open::read(&arguments.file)?;
    // The catalogue is no map of the user.
    let maps: Vec<_> = store.stats()?.maps.into_iter().filter(|map| map.id >= DEFAULT_MAP).collect();
    if arguments.json {
        let maps: Vec<_> = maps
            .iter()
            .map(|map| {
                json!({
                    "name": if map.id == DEFAULT_MAP { "" } else { &map.name },
                    "types": map.types,
                    "version": map.version,
                    "entries": map.entries,
                    "live_bytes": map.live_bytes,
                })
            })
            .collect();
        print_json(&maps)?;
        return Ok(Answer::Yes);
    }
    let mut table = table_with_text(["map", "entries", "size", "types"]);
    for map in &maps {
        let types = match (map.types.as_str(), map.version) {
            ("", _) => "[u8] -> [u8]".to_owned(),
            (types, 0) => printable(types.as_bytes()),
            (types, version) => format!("{}, version {version}", printable(types.as_bytes())),
        };
        table.add_row([printed(&map.name), map.entries.to_string(), size(map.live_bytes), types]);
    }
    print(&fitted(table))?;
    Ok(Answer::Yes)
}
