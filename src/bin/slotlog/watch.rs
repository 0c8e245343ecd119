//! `slotlog watch`: what is committed, by whichever process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use slotlog::{FeedChange, FeedChangeKind, Seq};

use super::common::output::Answer;
use super::failure::{Done, Failure};
use super::formats::{Outgoing, deadline, tsv};
use super::open::{self, printed};
use super::out::Out;
use super::text::printable;
use super::types::Types;
use super::{json, notation};

/// Print changes as they are committed, by whichever process
///
/// Each line has the commit, what was done, the map, the key, and the value. It goes on until it is stopped, or until
/// the reader of its output is gone.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog watch app.slotlog
  slotlog watch app.slotlog --map ages --json
  slotlog watch app.slotlog --since 0 --stop    the history, if the log has it")]
pub struct Arguments {
    /// The file of the store
    file: PathBuf,
    /// Only this map; otherwise, all
    #[arg(long, short)]
    map: Option<String>,
    /// Begin after this commit; otherwise, with what is committed from now on
    #[arg(long, value_name = "COMMIT", value_parser = commit)]
    since: Option<Seq>,
    /// Stop where there is no more, instead of waiting
    #[arg(long)]
    stop: bool,
    /// Stop after this many changes
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

fn commit(text: &str) -> Result<Seq, String> {
    text.parse().map_err(|_| "expected the number of a commit, such as 0x100000a3f".to_owned())
}

/// How long a wait is at most, before it begins again.
const WAIT: Duration = Duration::from_secs(60);

pub fn run(arguments: &Arguments) -> Done {
    let store = open::read(&arguments.file)?;
    let since = arguments.since.map_or_else(|| store.seq(), Ok)?;
    let mut feed = store.changes(since)?;
    let mut printer = Printer {
        types: store.maps()?.into_iter().map(|map| (map.name, Types::named(&map.types))).collect(),
        left: arguments.limit,
        out: Out::standard(),
        arguments,
    };
    while printer.left != Some(0) {
        let commit = if arguments.stop { feed.next_commit()? } else { feed.wait_for_commit(WAIT)? };
        let Some(commit) = commit else {
            if arguments.stop {
                break;
            }
            continue;
        };
        for change in &commit {
            printer.change(commit.seq(), &change?)?;
        }
        printer.out.flush()?;
    }
    Ok(Answer::Yes)
}

struct Printer<'w> {
    arguments: &'w Arguments,
    /// The types of the named maps, by their names.
    types: HashMap<String, Types>,
    left: Option<u64>,
    out: Out,
}

impl Printer<'_> {
    fn change(&mut self, seq: Seq, change: &FeedChange<'_>) -> Result<(), Failure> {
        match change.kind {
            FeedChangeKind::Create { types, .. } => {
                drop(self.types.insert(change.name.to_owned(), Types::named(types)))
            }
            FeedChangeKind::Rename { from } => {
                if let Some(types) = self.types.remove(from) {
                    self.types.insert(change.name.to_owned(), types);
                }
            }
            _ => {}
        }
        let is_wanted = self.arguments.map.as_deref().is_none_or(|name| name == change.name);
        if !is_wanted || self.left == Some(0) {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        // A map that was dropped since is not known by its name.
        let unknown = Types::named("");
        let types = match change.name {
            "" => &Types::BYTES,
            name => self.types.get(name).unwrap_or(&unknown),
        };
        let line = if self.arguments.json { as_json(seq, change, types) } else { as_text(seq, change, types) };
        self.out.write(&line)
    }
}

fn verb(kind: &FeedChangeKind<'_>) -> &'static str {
    match kind {
        FeedChangeKind::Insert { .. } => "set",
        FeedChangeKind::Remove { .. } => "remove",
        FeedChangeKind::Expire { .. } => "expire",
        FeedChangeKind::Clear => "clear",
        FeedChangeKind::Create { .. } => "create",
        FeedChangeKind::Drop => "drop",
        FeedChangeKind::Rename { .. } => "rename",
        // A later library may tell of more.
        _ => "change",
    }
}

fn as_text(seq: Seq, change: &FeedChange<'_>, types: &Types) -> Vec<u8> {
    let mut line = format!("{seq:#x}\t{}\t{}", verb(&change.kind), printed(change.name)).into_bytes();
    match change.kind {
        FeedChangeKind::Insert { key, value, expires } => {
            line.push(b'\t');
            tsv::write(types, &Outgoing { key, value, expires }, &mut line);
            return line;
        }
        FeedChangeKind::Remove { key } | FeedChangeKind::Expire { key } => {
            line.push(b'\t');
            notation::write(&types.key, key, &mut line);
        }
        FeedChangeKind::Create { types, .. } => {
            line.extend_from_slice(format!("\t{}", printable(types.as_bytes())).as_bytes())
        }
        FeedChangeKind::Rename { from } => line.extend_from_slice(format!("\tfrom {}", printed(from)).as_bytes()),
        _ => {}
    }
    line.push(b'\n');
    line
}

fn as_json(seq: Seq, change: &FeedChange<'_>, types: &Types) -> Vec<u8> {
    let mut line = format!("{{\"commit\":{seq},\"change\":\"{}\",\"map\":", verb(&change.kind)).into_bytes();
    json::write_string(change.name, &mut line);
    let mut member = |name: &str, write: &mut dyn FnMut(&mut Vec<u8>)| {
        line.extend_from_slice(format!(",\"{name}\":").as_bytes());
        write(&mut line);
    };
    match change.kind {
        FeedChangeKind::Insert { key, value, expires } => {
            member("key", &mut |line| json::write(&types.key, key, line));
            member("value", &mut |line| json::write(&types.value, value, line));
            if let Some(at) = expires {
                member("expires", &mut |line| json::write_string(&deadline(at), line));
            }
        }
        FeedChangeKind::Remove { key } | FeedChangeKind::Expire { key } => {
            member("key", &mut |line| json::write(&types.key, key, line));
        }
        FeedChangeKind::Create { version, types } => {
            member("types", &mut |line| json::write_string(types, line));
            member("version", &mut |line| line.extend_from_slice(json!(version).to_string().as_bytes()));
        }
        FeedChangeKind::Rename { from } => member("from", &mut |line| json::write_string(from, line)),
        _ => {}
    }
    line.extend_from_slice(b"}\n");
    line
}
