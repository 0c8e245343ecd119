//! `slotlog diff`: what is different in two stores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Color, Style};
use clap::Args;
use slotlog::{Snapshot, Store};

use super::common::output::Answer;
use super::failure::{Done, Failure};
use super::formats::{Outgoing, tsv};
use super::open::{self, BytesMap, printed};
use super::out::{Out, has_colours};
use super::text::printable;
use super::types::Types;

/// Print what is different in two stores
///
/// For each map that differs, the entries that only the first store has begin with `-`, those that only the second has
/// with `+`; a changed value or deadline is both. Exit code: 1 if there are differences.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog diff yesterday.slotlog app.slotlog
  slotlog diff app.slotlog copy.slotlog --quiet && echo the same
  slotlog diff a.slotlog b.slotlog --brief")]
pub struct Arguments {
    /// The file of the first store
    #[arg(value_name = "FILE")]
    one: PathBuf,
    /// The file of the second store
    #[arg(value_name = "OTHER")]
    other: PathBuf,
    /// Only this map; otherwise, all
    #[arg(long, short)]
    map: Option<String>,
    /// Print only how many entries differ in each map
    #[arg(long, short)]
    brief: bool,
    /// Print nothing, and stop at the first difference
    #[arg(long, short, conflicts_with = "brief")]
    quiet: bool,
}

/// One of the two.
struct Side<'d> {
    path: &'d Path,
    store: Store,
    snapshot: Snapshot,
    /// The maps with their types and versions; the default map has no name.
    maps: BTreeMap<String, (String, u32)>,
}

impl<'d> Side<'d> {
    fn open(path: &'d Path, only: Option<&str>) -> Result<Side<'d>, Failure> {
        let store = open::read(path)?;
        let snapshot = store.snapshot()?;
        let named = snapshot.export()?.maps().to_vec();
        let mut maps: BTreeMap<String, (String, u32)> =
            named.into_iter().map(|map| (map.name, (map.types, map.version))).collect();
        maps.insert(String::new(), (String::new(), 0));
        if let Some(only) = only {
            maps.retain(|name, _| name == only);
        }
        Ok(Side { path, store, snapshot, maps })
    }

    fn types(&self, name: &str) -> Types {
        match self.maps.get(name) {
            Some((types, _)) if !name.is_empty() => Types::named(types),
            _ => Types::BYTES,
        }
    }

    fn map(&self, name: &str) -> Result<Option<BytesMap>, Failure> {
        Ok(if self.maps.contains_key(name) { Some(self.store.map_as_bytes(name)?) } else { None })
    }
}

pub fn run(arguments: &Arguments) -> Done {
    let only = arguments.map.as_deref();
    let (one, other) = (Side::open(&arguments.one, only)?, Side::open(&arguments.other, only)?);
    if let (Some(only), true) = (only, one.maps.is_empty() && other.maps.is_empty()) {
        return Err(open::no_map(&one.store, one.path, only)?);
    }
    let mut printer = Printer {
        arguments,
        out: Out::standard(),
        colours: has_colours(),
        head: None,
        line: Vec::new(),
        removed: 0,
        added: 0,
        has_found: false,
    };
    let names: std::collections::BTreeSet<&String> = one.maps.keys().chain(other.maps.keys()).collect();
    for name in names {
        compare(name, &one, &other, &mut printer)?;
        if arguments.quiet && printer.has_found {
            break;
        }
    }
    printer.out.flush()?;
    Ok(if printer.has_found { Answer::No } else { Answer::Yes })
}

/// Compares a map that at least one of them has.
fn compare(name: &str, one: &Side<'_>, other: &Side<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let said = |side: &Side<'_>| match side.maps.get(name) {
        None => "none".to_owned(),
        Some((types, 0)) => printable(types.as_bytes()),
        Some((types, version)) => format!("{}, version {version}", printable(types.as_bytes())),
    };
    let (of_one, of_other) = (said(one), said(other));
    printer.begin(match (name, of_one == of_other) {
        ("", _) => "@ (default)".to_owned(),
        (name, true) => format!("@ {}: {of_one}", printed(name)),
        (name, false) => format!("@ {}: {of_one}, and {of_other}", printed(name)),
    });
    if of_one != of_other {
        printer.print_head()?;
    }
    printer.only(one, other, name, Sign::Removed)?;
    printer.only(other, one, name, Sign::Added)?;
    printer.end()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Removed,
    Added,
}

struct Printer<'d> {
    arguments: &'d Arguments,
    out: Out,
    colours: bool,
    /// The head of the present map, until it is printed.
    head: Option<String>,
    line: Vec<u8>,
    removed: u64,
    added: u64,
    has_found: bool,
}

impl Printer<'_> {
    fn begin(&mut self, head: String) {
        (self.head, self.removed, self.added) = (Some(head), 0, 0);
    }

    fn print_head(&mut self) -> Result<(), Failure> {
        self.has_found = true;
        match self.head.take() {
            Some(head) if !self.arguments.quiet => self.out.write(format!("{head}\n").as_bytes()),
            _ => Ok(()),
        }
    }

    /// Prints what one side has and the other has not, or has otherwise.
    fn only(&mut self, one: &Side<'_>, other: &Side<'_>, name: &str, sign: Sign) -> Result<(), Failure> {
        if !one.maps.contains_key(name) {
            return Ok(());
        }
        let (types, there) = (one.types(name), other.map(name)?);
        let there = there.as_ref().map(|map| other.snapshot.of(map));
        for entry in one.snapshot.export_map(name)? {
            let entry = entry?;
            let is_same = match &there {
                Some(there) => {
                    there.get_ref(entry.key)? == Some(entry.value)
                        && there.expiry(entry.key)? == Some(entry.expires.into())
                }
                None => false,
            };
            if is_same {
                continue;
            }
            self.print_head()?;
            if self.arguments.quiet {
                break;
            }
            self.entry(&types, &Outgoing { key: entry.key, value: entry.value, expires: entry.expires }, sign)?;
        }
        Ok(())
    }

    fn entry(&mut self, types: &Types, entry: &Outgoing<'_>, sign: Sign) -> Result<(), Failure> {
        let (count, mark, colour) = match sign {
            Sign::Removed => (&mut self.removed, b'-', AnsiColor::Red),
            Sign::Added => (&mut self.added, b'+', AnsiColor::Green),
        };
        *count += 1;
        if self.arguments.brief {
            return Ok(());
        }
        self.line.clear();
        let style = Style::new().fg_color(Some(Color::Ansi(colour)));
        if self.colours {
            self.line.extend_from_slice(style.render().to_string().as_bytes());
        }
        self.line.push(mark);
        tsv::write(types, entry, &mut self.line);
        if self.colours {
            // The line ends in the usual colour.
            self.line.pop();
            self.line.extend_from_slice(style.render_reset().to_string().as_bytes());
            self.line.push(b'\n');
        }
        self.out.write(&self.line)
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.arguments.brief && self.head.is_none() {
            self.out.write(format!("-{} +{}\n", self.removed, self.added).as_bytes())?;
        }
        Ok(())
    }
}
