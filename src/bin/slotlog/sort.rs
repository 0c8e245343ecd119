//! Entries sorted by key, since a hash index has no order.

use std::cmp::Ordering;

use slotlog::Error;

use super::failure::Failure;
use super::formats::Outgoing;
use super::types::Type;
use super::values::Value;

/// The entries, sorted: numbers by size, all else byte by byte. Bytes that are no key of the type come last.
pub fn sorted<'e>(
    entries: impl Iterator<Item = Result<Outgoing<'e>, Error>>,
    of: &Type,
) -> Result<Vec<Outgoing<'e>>, Failure> {
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    if of.is_bytes() {
        entries.sort_unstable_by_key(|entry| entry.key);
        return Ok(entries);
    }
    let mut keyed: Vec<(Option<Value>, Outgoing<'e>)> =
        entries.into_iter().map(|entry| (Value::decode(of, entry.key), entry)).collect();
    keyed.sort_unstable_by(|(one, one_entry), (other, other_entry)| match (one, other) {
        (Some(one), Some(other)) => one.order(other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one_entry.key.cmp(other_entry.key),
    });
    Ok(keyed.into_iter().map(|(_, entry)| entry).collect())
}
