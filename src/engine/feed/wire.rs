//! A commit as bytes: how it is sent from one store to another. [The format](crate::format#commits-that-are-sent)
//! begins with a [`SentCommit`].
//!
//! **Invariant.** A CRC ends each commit, and is checked before it becomes visible: a commit that was cut off or
//! damaged on its way is not applied.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use zerocopy::{FromZeros, IntoBytes};

use super::follow::Follower;
use super::told::{Told, Unit, What};
use crate::engine::Engine;
use crate::engine::read::history::CommitId;
use crate::error::{Error, Result};
use crate::file::layout::{COMMIT_MAGIC, MapId, SentChange, SentCommit, Seq, sent};

/// A change, with what follows its head.
type Parts<'c> = (SentChange, &'c [u8], &'c [u8]);

fn parts_of<'c>(told: &Told<'c>) -> Parts<'c> {
    let name = told.name.as_bytes();
    let none: &[u8] = &[];
    let (kind, key, value, version, deadline) = match told.what {
        What::Put { key, value, deadline: None } => (sent::PUT, key, value, 0, 0),
        What::Put { key, value, deadline: Some(deadline) } => (sent::PUT_UNTIL, key, value, 0, deadline),
        What::Remove(key) => (sent::REMOVE, key, none, 0, 0),
        What::Expire(key) => (sent::EXPIRE, key, none, 0, 0),
        What::Clear => (sent::CLEAR, none, none, 0, 0),
        What::Create { version, types } => (sent::CREATE, name, types.as_bytes(), version, 0),
        What::Drop => (sent::DROP, name, none, 0, 0),
        What::Rename(from) => (sent::RENAME, name, from.as_bytes(), 0, 0),
    };
    let head = SentChange {
        kind: kind.into(),
        key_len: (key.len() as u16).into(),
        value_len: (value.len() as u32).into(),
        map: told.map.0.into(),
        version_or_crc: version.into(),
        deadline: deadline.into(),
    };
    (head, key, value)
}

/// Bytes on their way, with their CRC.
struct Summed<S> {
    inner: S,
    hasher: crc32fast::Hasher,
}

impl<S: Write> Summed<S> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

/// Writes a commit. `failed` makes an error of one that `out` reports.
pub(crate) fn write_commit<'c>(
    out: impl Write,
    unit: Unit,
    changes: impl Iterator<Item = Result<Told<'c>>>,
    failed: impl Fn(io::Error) -> Error,
) -> Result<()> {
    let mut summed = Summed { inner: out, hasher: crc32fast::Hasher::new() };
    let Unit { uuid, previous, last } = unit;
    let head = SentCommit {
        magic: COMMIT_MAGIC,
        uuid,
        previous: previous.seq.to_field(),
        seq: last.seq.to_field(),
        previous_crc: previous.crc.into(),
        crc: last.crc.into(),
    };
    summed.send(head.as_bytes()).map_err(&failed)?;
    for told in changes {
        let (head, key, value) = parts_of(&told?);
        for part in [head.as_bytes(), key, value] {
            summed.send(part).map_err(&failed)?;
        }
    }
    let mut end = SentChange::new_zeroed();
    let before = std::mem::offset_of!(SentChange, version_or_crc);
    summed.hasher.update(&end.as_bytes()[..before]);
    end.version_or_crc = summed.hasher.clone().finalize().into();
    summed.inner.write_all(end.as_bytes()).map_err(&failed)
}

impl<S: Read> Summed<S> {
    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Reads so many bytes. Takes memory for those that come, not for those that are announced.
    fn receive_many(&mut self, len: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        let read = (&mut self.inner).take(len).read_to_end(bytes)?;
        if (read as u64) < len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(bytes);
        Ok(())
    }
}

/// Reads a commit and applies it. Returns its number, and whether it is new to the store; or `None` at the end of
/// `input`.
pub(crate) fn apply_next(engine: &Arc<Engine>, input: impl Read) -> Result<Option<(Seq, bool)>> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => engine.damaged_changes("they end in the middle of a commit".to_owned()),
        _ => Error::io(engine.mapping.path(), "read changes for it", error),
    };
    let mut summed = Summed { inner: input, hasher: crc32fast::Hasher::new() };
    let mut head = SentCommit::new_zeroed();
    if at_end(&mut summed, &mut head).map_err(failed)? {
        return Ok(None);
    }
    if head.magic != COMMIT_MAGIC {
        return Err(engine.damaged_changes("a commit does not begin like one".to_owned()));
    }
    let previous = CommitId { seq: Seq::of_field(head.previous), crc: head.previous_crc.get() };
    let last = CommitId { seq: Seq::of_field(head.seq), crc: head.crc.get() };
    let unit = Unit { uuid: head.uuid, previous, last };
    let mut follower = Follower::begin(engine, unit)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    loop {
        let mut change = SentChange::new_zeroed();
        let (before, after) = change.as_mut_bytes().split_at_mut(std::mem::offset_of!(SentChange, version_or_crc));
        summed.receive(before).map_err(failed)?;
        let crc = summed.hasher.clone().finalize();
        summed.receive(after).map_err(failed)?;
        if change.kind.get() == sent::END {
            let is_sane = (change.deadline.get(), change.version_or_crc.get()) == (0, crc);
            if !is_sane {
                return Err(engine.damaged_changes("the CRC of a commit does not hold".to_owned()));
            }
            let is_new = follower.is_some();
            follower.map_or(Ok(()), Follower::end)?;
            return Ok(Some((last.seq, is_new)));
        }
        summed.receive_many(change.key_len.get().into(), &mut key).map_err(failed)?;
        summed.receive_many(change.value_len.get().into(), &mut value).map_err(failed)?;
        let told = told_by(&change, &key, &value).map_err(|what| engine.damaged_changes(what.to_owned()))?;
        if let Some(follower) = &mut follower {
            follower.change(&told)?;
        }
    }
}

/// Reads the head of a commit, unless there is none.
fn at_end(summed: &mut Summed<impl Read>, head: &mut SentCommit) -> io::Result<bool> {
    let (first, rest) = head.as_mut_bytes().split_at_mut(1);
    match summed.receive(first) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(true),
        first => first?,
    }
    summed.receive(rest)?;
    Ok(false)
}

fn told_by<'c>(change: &SentChange, key: &'c [u8], value: &'c [u8]) -> std::result::Result<Told<'c>, &'static str> {
    let text = |bytes: &'c [u8]| std::str::from_utf8(bytes).map_err(|_| "a name is not UTF-8");
    let map = MapId(change.map.get());
    let mut name = "";
    let what = match change.kind.get() {
        sent::PUT => What::Put { key, value, deadline: None },
        sent::PUT_UNTIL => What::Put { key, value, deadline: Some(change.deadline.get()) },
        sent::REMOVE => What::Remove(key),
        sent::EXPIRE => What::Expire(key),
        sent::CLEAR => What::Clear,
        kind => {
            name = text(key)?;
            match kind {
                sent::CREATE => What::Create { version: change.version_or_crc.get(), types: text(value)? },
                sent::DROP => What::Drop,
                sent::RENAME => What::Rename(text(value)?),
                _ => return Err("a change is of an unknown kind"),
            }
        }
    };
    Ok(Told { map, name, what })
}
