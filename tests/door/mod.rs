//! Tests that stand behind the [door](crate::file::door), through which the engine changes its file, and so see every store and
//! every call to the system: they cut the power, kill the process, or have a call fail, at any of them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[cfg(unix)]
mod calls;
mod kills;
mod life;
mod medium;
mod power_cut;
#[path = "../support/mod.rs"]
mod support;
#[cfg(not(loom))]
mod upkeep;

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::engine::batch::Batch;
use crate::engine::expiry::Moment;
use crate::engine::pins::Pin;
use crate::error::{Error, Result};
use crate::file::layout::{DEFAULT_MAP, Kind};
use crate::file::log;

/// Of each key, which value it has: its number and its length.
type Content = BTreeMap<u16, (u32, u32)>;

fn key(number: u16) -> Vec<u8> {
    // Of various lengths, so that records begin anywhere in a sector. Neither keys nor values are all zeros, for what is on
    // the disk and all zeros counts as nothing there.
    let mut key = (number | 0x8000).to_le_bytes().to_vec();
    key.resize(2 + usize::from(number % 23), b'k');
    key
}

/// A value that says which one it is, so that a piece of another shows.
fn value((number, len): (u32, u32)) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend((4..len).map(|at| (number.wrapping_mul(31).wrapping_add(at) % 251) as u8 + 1));
    value
}

/// All that is in the store.
fn content(engine: &Engine) -> std::result::Result<Content, String> {
    let (pin, _, totals) = engine.pin_with_totals(DEFAULT_MAP).map_err(|error| error.to_string())?;
    let content = content_at(engine, &pin);
    engine.unpin(&pin);
    match content? {
        content if content.len() as u64 == totals.keys => Ok(content),
        content => Err(format!("there are {} keys, and the counter says {}", content.len(), totals.keys)),
    }
}

/// All that a pin shows.
fn content_at(engine: &Engine, pin: &Pin) -> std::result::Result<Content, String> {
    let text = |error: Error| error.to_string();
    let mut content = Content::new();
    let index = engine.index_at(DEFAULT_MAP, pin.seq).map_err(text)?;
    for slot in index.ok_or("the default map has no region")?.iter() {
        let Some(offset) = slot.map_err(text)?.record else { continue };
        let newest = log::record(&engine.region, offset).map_err(text)?;
        let Some(record) = engine.version_at(newest, pin.seq, Moment::NOW).map_err(text)? else { continue };
        if record.kind() != Some(Kind::Put) {
            continue;
        }
        let number =
            record.key().first_chunk().map(|bytes| u16::from_le_bytes(*bytes) & 0x7fff).ok_or("a key that is none")?;
        let is = (record.value().first_chunk().map(|bytes| u32::from_le_bytes(*bytes)), record.value().len() as u32);
        let (Some(of), len) = is else { return Err(format!("key {number} has a value that is none")) };
        if record.key() != key(number) || record.value() != value((of, len)) {
            return Err(format!("key {number} has a value of which a piece is wrong"));
        }
        content.insert(number, (of, len));
    }
    Ok(content)
}

fn check(engine: &Engine) -> std::result::Result<(), String> {
    let report = engine.verify().map_err(|error| error.to_string())?;
    if report.is_clean() { Ok(()) } else { Err(format!("verify: {:?}", report.findings())) }
}

/// Makes changes of a transaction: keys to put with the value that is meant, or to remove.
fn make_changes(batch: &mut Batch, changes: impl IntoIterator<Item = (u16, Option<(u32, u32)>)>) -> Result<()> {
    for (number, new) in changes {
        match new {
            Some(new) => batch.put(DEFAULT_MAP, &key(number), &value(new), None)?,
            None => drop(batch.remove(DEFAULT_MAP, &key(number))?),
        }
    }
    Ok(())
}
