//! `slotlog get`, `set`, `remove`: single keys.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use slotlog::Expiry;

use super::common::output::Answer;
use super::failure::{Done, Failure};
use super::formats::input::Input;
use super::formats::{Outgoing, jsonl, read_deadline};
use super::notation;
use super::open::{self, Found};
use super::out::{Out, note};
use super::text::shown;
use super::types::{Type, Types};

/// Print the values of keys
///
/// Exit code: 1 if a key is not there.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog get app.slotlog alice
  slotlog get app.slotlog --map ages Ada Grace
  slotlog get app.slotlog picture --raw > picture.png
  slotlog list app.slotlog --keys | slotlog get app.slotlog -")]
pub struct Get {
    /// The file of the store
    file: PathBuf,
    /// The keys; `-` reads them from standard input, one on each line
    #[arg(required = true, allow_negative_numbers = true)]
    keys: Vec<OsString>,
    /// The map; without it, the default map
    #[arg(long, short)]
    map: Option<String>,
    /// Print the bytes of the values, and nothing else
    #[arg(long, short, conflicts_with = "json")]
    raw: bool,
    /// Print the entries as JSON lines, with their deadlines
    #[arg(long)]
    json: bool,
}

pub fn get(arguments: &Get) -> Done {
    let store = open::read(&arguments.file)?;
    let found = open::find(&store, &arguments.file, arguments.map.as_deref())?;
    let snapshot = store.snapshot()?;
    let map = snapshot.of(&found.map);
    let (mut out, mut line, mut answer) = (Out::standard(), Vec::new(), Answer::Yes);
    let mut print = |key: &[u8]| -> Result<(), Failure> {
        let key = read("key", &found.types.key, key)?;
        let Some(value) = map.get_ref(&key[..])? else {
            // What was found before stands before this.
            out.flush()?;
            note(&format!("{}: no key \"{}\"", arguments.file.display(), shown(&key)));
            answer = Answer::No;
            return Ok(());
        };
        line.clear();
        if arguments.raw {
            return out.write(value);
        }
        if arguments.json {
            let expires = map.expiry(&key[..])?.and_then(Expiry::time);
            let name = arguments.map.as_deref().unwrap_or_default();
            jsonl::write(name, &found.types, &Outgoing { key: &key, value, expires }, &mut line);
        } else {
            notation::write(&found.types.value, value, &mut line);
            line.push(b'\n');
        }
        out.write(&line)
    };
    for key in &arguments.keys {
        if key == "-" {
            let (mut input, _) = Input::open("-".as_ref())?;
            while let Some(key) = input.line()? {
                print(key)?;
            }
        } else {
            print(key.as_encoded_bytes())?;
        }
    }
    out.flush()?;
    Ok(answer)
}

/// A key or a value as the user has written it.
fn read(what: &str, of: &Type, text: &[u8]) -> Result<Vec<u8>, Failure> {
    notation::read(of, text).map_err(|error| Failure::new(format!("the {what} \"{}\": {error}", shown(text))))
}

/// Set the value of a key
///
/// It is durable once the command returns.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog set app.slotlog alice '3 visits'
  slotlog set app.slotlog session/7 token --ttl '1h 30m'
  slotlog set app.slotlog Ada 36 --map ages --types 'str -> u32'
  slotlog set app.slotlog picture - < picture.png")]
pub struct Set {
    /// The file of the store; it is created if it is missing
    file: PathBuf,
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    /// The value; `-` takes the bytes of standard input as they are
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    /// The map; without it, the default map
    #[arg(long, short)]
    map: Option<String>,
    /// The types of that map, if it is to be created: 'str -> u64'
    #[arg(long, requires = "map")]
    types: Option<String>,
    /// How long the entry lives, such as 90s, '1h 30m', 7days
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "expires")]
    ttl: Option<std::time::Duration>,
    /// When the entry expires, such as 2030-12-31T23:59:59Z
    #[arg(long, value_parser = read_deadline)]
    expires: Option<SystemTime>,
}

pub fn set(arguments: &Set) -> Done {
    let value = arguments.value.as_encoded_bytes();
    let of_input = if value == b"-" { Some(standard_input()?) } else { None };
    let types = arguments.types.as_deref();
    if arguments.map.is_none() {
        // A store is not created for a mistake.
        read("key", &Types::BYTES.key, arguments.key.as_encoded_bytes())?;
        read("value", &Types::BYTES.value, value)?;
    }
    let store = open::write(&arguments.file, true)?;
    let Found { map, types } = open::find_or_create(&store, &arguments.file, arguments.map.as_deref(), types)?;
    let key = read("key", &types.key, arguments.key.as_encoded_bytes())?;
    let value = match of_input {
        Some(bytes) if types.value.is_bytes() => bytes,
        Some(text) => read("value", &types.value, text.trim_ascii_end())?,
        None => read("value", &types.value, value)?,
    };
    let of_ttl = arguments.ttl.map(|ttl| SystemTime::now().checked_add(ttl));
    let too_long = || Failure::new("--ttl is too long; leave it away for an entry that does not expire");
    let expires = match of_ttl {
        Some(at) => Some(at.ok_or_else(too_long)?),
        None => arguments.expires,
    };
    match expires {
        Some(at) => map.insert_with_expiry(&key[..], &value[..], at)?,
        None => map.insert(&key[..], &value[..])?,
    }
    drop(map);
    store.close()?;
    Ok(Answer::Yes)
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(format!("standard input: could not be read: {error}")))?;
    Ok(bytes)
}

/// Remove keys, all of them in one commit
///
/// Exit code: 1 if a key was not there.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog remove app.slotlog alice bob
  slotlog list app.slotlog --keys --prefix session/ | slotlog remove app.slotlog -")]
pub struct Remove {
    /// The file of the store
    file: PathBuf,
    /// The keys; `-` reads them from standard input, one on each line
    #[arg(required = true, allow_negative_numbers = true)]
    keys: Vec<OsString>,
    /// The map; without it, the default map
    #[arg(long, short)]
    map: Option<String>,
}

pub fn remove(arguments: &Remove) -> Done {
    // All keys are there before the transaction begins, in which other writers wait.
    let mut texts = Vec::new();
    for key in &arguments.keys {
        if key == "-" {
            let (mut input, _) = Input::open("-".as_ref())?;
            while let Some(key) = input.line()? {
                texts.push(key.to_vec());
            }
        } else {
            texts.push(key.as_encoded_bytes().to_vec());
        }
    }
    let store = open::write(&arguments.file, false)?;
    let Found { map, types } = open::find(&store, &arguments.file, arguments.map.as_deref())?;
    let keys = texts.iter().map(|text| read("key", &types.key, text)).collect::<Result<Vec<_>, _>>()?;
    let (mut transaction, mut missing) = (store.begin()?, Vec::new());
    for key in keys {
        if !transaction.of(&map).remove(&key[..])? {
            missing.push(key);
        }
    }
    transaction.commit()?;
    drop(map);
    store.close()?;
    for key in &missing {
        note(&format!("{}: no key \"{}\"", arguments.file.display(), shown(key)));
    }
    Ok(if missing.is_empty() { Answer::Yes } else { Answer::No })
}
