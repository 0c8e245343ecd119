//! The life of a store on a [`Medium`]: its steps, in processes that are killed, on a disk whose flushes may fail.
//! After each kill its content is compared with the expected one.

use std::cell::Cell;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::medium::Medium;
use super::{Content, NAMED, NAMES, Version, batch_of, check, content, content_at, drop_named, evicted_by, key};
use super::{lacks_at_most, map_of, put, rename, value};
use crate::engine::Engine;
use crate::engine::read::pins::Pin;
use crate::engine::settings::{Durability, Opened, Settings};
use crate::error::{Error, Result};
use crate::file::layout::{DEFAULT_MAP, live};
use crate::file::locks::{CHECKPOINT, Locks, Sharing};
use crate::file::witness;

/// A step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Put {
        key: u16,
        len: u32,
    },
    Remove {
        key: u16,
    },
    /// A key is read, so that a store that evicts spares its entry.
    Read {
        key: u16,
    },
    /// Keys to put (with the length of the value) or to remove, all in one commit, or given up at the end.
    Transaction {
        changes: Vec<(u16, Option<u32>)>,
        durability: Durability,
        commit: bool,
    },
    Clear,
    /// The named map is dropped.
    Drop,
    /// The named map gets another name.
    Rename,
    Sync,
    Checkpoint,
    /// The store is compacted, and stopped after this many progress calls.
    Compact {
        stop: u32,
    },
    /// Pending upkeep is done.
    Maintain,
    /// A snapshot is taken and held, until there are too many.
    Hold,
    /// The store is closed and opened again.
    Reopen,
    /// The process is killed after this many stores of the following steps.
    Kill {
        after: u64,
    },
    /// The next flush fails.
    FlushFails,
    /// A stopped opener keeps superblocks from being written for a while.
    HoldUp,
    /// The opener continues.
    LetGo,
    /// A put is made during the next flush.
    DuringNextFlush {
        key: u16,
        len: u32,
    },
}

/// A store that lives on a [`Medium`].
pub(super) struct Life<'p> {
    pub(super) path: &'p Path,
    pub(super) settings: Settings,
    pub(super) medium: Arc<Medium>,
    pub(super) engine: Option<Arc<Engine>>,
    /// Values are numbered, so that no two in a generation are equal.
    pub(super) values: u32,
    /// How many entries the store has evicted, in all openings.
    pub(super) evicted: u64,
    /// It has spared some.
    pub(super) spared: bool,
    /// How many of them this opening has, up to the last look.
    pub(super) evicted_by_this: u64,
    /// The first content that what is evicted from now on may be missing in.
    pub(super) from: usize,
    /// The file was as long as this when it was opened.
    pub(super) opened_len: u64,
    /// Snapshots, with the contents they must show.
    pub(super) held: Vec<(Pin<Arc<Engine>>, Content)>,
    /// Keeps superblocks from being written.
    pub(super) opener: Option<Locks>,
}

/// Snapshots that are held at the same time.
const MOST_HELD: usize = 2;

impl<'p> Life<'p> {
    pub(super) fn new(path: &'p Path, settings: Settings, medium: Arc<Medium>) -> Life<'p> {
        Life {
            path,
            settings,
            medium,
            engine: None,
            values: 0,
            evicted: 0,
            spared: false,
            evicted_by_this: 0,
            from: 0,
            opened_len: 0,
            held: Vec::new(),
            opener: None,
        }
    }

    /// Puts the file as the system shows it in place, and opens it.
    pub(super) fn open(&mut self) -> std::result::Result<(), String> {
        let _standing = witness::stand(self.medium.clone());
        loop {
            fs::write(self.path, &self.medium.state().cache).unwrap();
            let opened = Engine::open(self.path, self.settings.clone());
            if self.medium.state().dead {
                // Killed while opening. Another process comes.
                drop(opened);
                self.medium.state().dead = false;
                continue;
            }
            let mut state = self.medium.state();
            let was_told = std::mem::take(&mut state.flush_failed);
            drop(state);
            match opened {
                Ok(engine) => {
                    (self.evicted_by_this, self.opened_len) = (0, engine.mapping.len());
                    self.engine = Some(Arc::new(engine));
                    return Ok(());
                }
                Err(Error::Io { .. }) if was_told => {}
                Err(error) => return Err(format!("opening: {error}")),
            }
        }
    }

    pub(super) fn engine(&self) -> Arc<Engine> {
        self.engine.clone().unwrap()
    }

    /// Gives the oldest snapshot back after checking it.
    fn give_back(&mut self) -> std::result::Result<(), String> {
        let (pin, expected) = self.held.remove(0);
        let found = content_at(pin.engine(), pin.seq());
        drop(pin);
        match found? {
            found if found == expected => Ok(()),
            found => Err(format!("a snapshot shows {found:?}, and was taken of {expected:?}")),
        }
    }

    fn newest(&self) -> Content {
        self.medium.state().contents.last().unwrap().content.clone()
    }

    /// How many entries were evicted since the last look; `None` if that is unknown, because all was cleared.
    fn evicted_since(&self) -> Option<u64> {
        evicted_by(&self.engine()).map(|evicted| evicted - self.evicted_by_this)
    }

    /// Checks that nothing is missing but what was evicted since the last look, and that the file is no longer than its
    /// limit, or than it was when it was opened. What was evicted may be missing in all images since then.
    fn note_evicted(&mut self) -> std::result::Result<(), String> {
        if self.settings.evict.is_none() {
            return Ok(());
        }
        let (engine, most) = (self.engine(), self.evicted_since());
        let (len, most_len) = (engine.mapping.len(), self.settings.max_size.max(self.opened_len));
        if len > most_len {
            return Err(format!("a cache of {most_len} bytes takes {len}"));
        }
        if most == Some(0) {
            self.from = self.medium.state().contents.len() - 1;
            return Ok(());
        }
        self.evicted_by_this = evicted_by(&engine).unwrap_or(0);
        self.evicted += most.unwrap_or(0);
        self.spared |= engine.upkeep.evicted.spared.load(Ordering::Relaxed) > 0;
        let found = content(&engine)?;
        self.note_gone(found, most)
    }

    fn note_gone(&mut self, found: Content, most: Option<u64>) -> std::result::Result<(), String> {
        let mut state = self.medium.state();
        let newest = state.contents[state.contents.len() - 1].clone();
        if !lacks_at_most(&found, &newest.content, most) {
            return Err(format!("{most:?} were evicted: found {found:?} of {:?}", newest.content));
        }
        let from = self.from.min(state.contents.len() - 1);
        state.contents[from..].iter().for_each(|version| version.note_evicted(&found));
        if found != newest.content {
            state.contents.push(Version::new(found));
        }
        self.from = state.contents.len() - 1;
        Ok(())
    }

    /// All commits so far are durable.
    fn all_durable(&self) {
        let mut state = self.medium.state();
        state.durable_commits = state.contents.len() - 1;
    }

    /// The process is dead. Opens the store anew, and determines what became of the commit in progress, if there was
    /// one (`begun`).
    fn come_back(&mut self, begun: bool) -> std::result::Result<(), String> {
        self.opener = None;
        // The dead process may have counted more than has reached the file.
        let most = self.evicted_since();
        self.engine = None;
        self.held.clear();
        let poisoned = {
            let mut state = self.medium.state();
            (state.dead, state.dies_in, state.flush_failed) = (false, None, false);
            // If the process died before it could mark this itself, a failed flush has another mark.
            let at = live::STATE as usize;
            state.cache.get(at).is_some_and(|bits| u64::from(*bits) & live::STATE_POISONED != 0)
        };
        self.open()?;
        let engine = self.engine();
        let recovered = match engine.opened {
            Opened::AfterKill if !poisoned => false,
            Opened::Clean | Opened::AfterPowerCut { .. } => true,
            other => return Err(format!("after a kill the store was opened as {other:?}")),
        };
        let found = content(&engine)?;
        let mut state = self.medium.state();
        let is = |version: &Version| lacks_at_most(&found, &version.content, most);
        if begun && state.contents.len() > 1 && is(&state.contents[state.contents.len() - 2]) {
            state.contents.pop();
        }
        if !is(&state.contents[state.contents.len() - 1]) {
            return Err(format!("after a kill: found {found:?}, and not {:?}", state.contents.last()));
        }
        drop(state);
        if self.settings.evict.is_some() {
            self.note_gone(found, most)?;
        }
        if recovered {
            // The result of recovery is durable.
            self.all_durable();
        }
        Ok(())
    }

    /// Makes a commit that changes the content to `next`, if it succeeds.
    fn commit(
        &mut self,
        next: Content,
        durability: Durability,
        make: impl FnOnce(&Arc<Engine>) -> Result<()>,
    ) -> std::result::Result<(), String> {
        let changes = next != self.newest();
        if changes {
            self.medium.state().contents.push(Version::new(next));
        }
        let engine = self.engine();
        let mine = self.medium.state().contents.len() - 1;
        let made = make(&engine);
        if self.medium.state().dead {
            drop(engine);
            let others = self.medium.state().contents.len() - 1 > mine;
            return self.come_back(changes || others);
        }
        match made {
            Ok(()) => {
                // A synced call makes what it saw durable, even if it has changed nothing.
                if durability == Durability::Synced {
                    self.medium.state().durable_commits = mine;
                }
                Ok(())
            }
            // The commit may have happened nevertheless.
            Err(error @ (Error::Poisoned { .. } | Error::Io { .. })) if engine.is_poisoned() => {
                let (found, most) = (content(&engine)?, self.evicted_since());
                let mut state = self.medium.state();
                let is = |version: &Version| lacks_at_most(&found, &version.content, most);
                if changes && is(&state.contents[state.contents.len() - 2]) {
                    state.contents.pop();
                } else if !is(&state.contents[state.contents.len() - 1]) {
                    return Err(format!("after {error}: found {found:?}"));
                }
                Ok(())
            }
            Err(error) => Err(format!("a commit was refused: {error}")),
        }
    }

    fn next_value(&mut self, len: u32) -> (u32, u32) {
        self.values += 1;
        (self.values, len)
    }

    /// Calls `make`, which makes everything durable if it succeeds. Says whether the process survived it.
    fn make_durable(&mut self, make: impl FnOnce(&Engine) -> Result<()>) -> std::result::Result<bool, String> {
        let engine = self.engine();
        let known = self.medium.state().contents.len() - 1;
        let made = make(&engine);
        let mut state = self.medium.state();
        if state.dead {
            let others = state.contents.len() - 1 > known;
            drop(state);
            drop(engine);
            return self.come_back(others).map(|()| false);
        }
        match made {
            // Commits made meanwhile may be durable or not.
            Ok(()) if !state.flush_failed => state.durable_commits = state.durable_commits.max(known),
            Ok(()) if known == state.durable_commits => {}
            Ok(()) => return Err("durability was claimed after a flush had failed".into()),
            Err(Error::Poisoned { .. } | Error::Io { .. }) if engine.is_poisoned() => {}
            Err(error) => return Err(format!("it was not made durable: {error}")),
        }
        Ok(true)
    }

    fn hold_up(&mut self) {
        let open = || File::open(self.path);
        let locks = Locks::open(&open().unwrap(), open).unwrap();
        assert!(locks.try_lock(CHECKPOINT, Sharing::Shared).unwrap());
        self.opener = Some(locks);
    }

    fn step(&mut self, step: &Step) -> std::result::Result<(), String> {
        // Calls that need a superblock would wait, and give up.
        let is_closed = self.engine().superblock_is_closed();
        if is_closed || matches!(step, Step::Checkpoint | Step::Compact { .. } | Step::Maintain | Step::Reopen) {
            self.opener = None;
        }
        match step {
            Step::HoldUp => {
                self.hold_up();
                Ok(())
            }
            Step::LetGo => {
                self.opener = None;
                Ok(())
            }
            Step::Put { key: number, len } => {
                let new = self.next_value(*len);
                let mut next = self.newest();
                next.insert(*number, new);
                self.commit(next, self.settings.durability, |engine| put(engine, *number, new))
            }
            Step::Remove { key: number } => {
                let mut next = self.newest();
                let there = next.remove(number).is_some();
                let wrong = Cell::new(false);
                let done = self.commit(next, self.settings.durability, |engine| {
                    wrong.set(engine.remove(map_of(engine, *number)?, &key(*number))? != there);
                    Ok(())
                });
                if done.is_ok() && wrong.get() {
                    Err("a removal said wrongly whether the key was there".into())
                } else {
                    done
                }
            }
            Step::Read { key: number } => {
                let engine = self.engine();
                if *number & NAMED != 0 && !NAMES.iter().any(|name| matches!(engine.find_named(name), Ok(Some(_)))) {
                    return Ok(());
                }
                let expected = self.newest().get(number).map(|&of| value(of));
                let map = map_of(&engine, *number).map_err(|error| error.to_string())?;
                let found = engine.read(map, &key(*number), |value, _| value.to_vec());
                let found = found.map_err(|error| error.to_string())?;
                if found == expected { Ok(()) } else { Err(format!("it was read as {found:?}")) }
            }
            Step::Transaction { changes, durability, commit } => {
                let mut next = self.newest();
                let mut new = Vec::new();
                for &(key, len) in changes {
                    let value = len.map(|len| self.next_value(len));
                    match value {
                        Some(value) => drop(next.insert(key, value)),
                        None => drop(next.remove(&key)),
                    }
                    new.push((key, value));
                }
                let (next, promised) =
                    if *commit { (next, *durability) } else { (self.newest(), Durability::Buffered) };
                self.commit(next, promised, |engine| {
                    let batch = batch_of(engine, new)?;
                    if *commit { batch.commit(*durability) } else { Ok(()) }
                })
            }
            Step::Clear => {
                let mut next = self.newest();
                next.retain(|number, _| number & NAMED != 0);
                self.commit(next, self.settings.durability, |engine| engine.clear(DEFAULT_MAP))
            }
            Step::Drop => {
                let mut next = self.newest();
                next.retain(|number, _| number & NAMED == 0);
                self.commit(next, self.settings.durability, drop_named)
            }
            Step::Rename => {
                let newest = self.newest();
                self.commit(newest, Durability::Buffered, rename)
            }
            Step::Compact { stop } => {
                let mut left = *stop;
                let newest = self.newest();
                self.commit(newest, Durability::Buffered, |engine| {
                    engine
                        .compact(&mut |_| {
                            left = left.saturating_sub(1);
                            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                        })
                        .map(drop)
                })
            }
            Step::Maintain => {
                let newest = self.newest();
                self.commit(newest, Durability::Buffered, |engine| {
                    engine.maintain(Duration::from_millis(5), Duration::from_secs(9)).map(drop)
                })
            }
            Step::Hold => {
                if self.held.len() == MOST_HELD {
                    self.give_back()?;
                }
                let pin = Pin::take(self.engine()).map_err(|error| error.to_string())?;
                self.held.push((pin, self.newest()));
                Ok(())
            }
            Step::Sync => self.make_durable(Engine::sync).map(drop),
            Step::Checkpoint => self.make_durable(Engine::checkpoint).map(drop),
            Step::Reopen => {
                while !self.held.is_empty() {
                    self.give_back()?;
                }
                if !self.make_durable(Engine::close)? {
                    return Ok(());
                }
                let poisoned = self.engine().is_poisoned();
                self.engine = None;
                self.medium.state().flush_failed = false;
                self.open()?;
                let found = content(&self.engine())?;
                if found != self.newest() {
                    return Err(format!("after closing: found {found:?}"));
                }
                // A store may be clean after a failed flush, if that flush was to clear the clean flag before any
                // change.
                match self.engine().opened {
                    Opened::Clean | Opened::AfterPowerCut { .. } => self.all_durable(),
                    other if poisoned => return Err(format!("after a failed flush it was opened as {other:?}")),
                    _ => {}
                }
                Ok(())
            }
            Step::Kill { after } => {
                self.medium.state().dies_in = Some(*after);
                Ok(())
            }
            Step::FlushFails => {
                self.medium.state().flush_fails = true;
                Ok(())
            }
            Step::DuringNextFlush { key: number, len } => {
                let new = self.next_value(*len);
                let (engine, medium) = (Arc::downgrade(&self.engine()), Arc::downgrade(&self.medium));
                let number = *number;
                self.medium.during_next_flush(move || {
                    let (Some(engine), Some(medium)) = (engine.upgrade(), medium.upgrade()) else { return };
                    // A commit that waits for this flush does not complete, and the flushing thread holds the lock.
                    let settings = &engine.settings;
                    let small = settings.checkpoint_every.min(settings.limits.least_waiting) < 1 << 20;
                    // Neither does a commit that takes a checkpoint because so much waits for one.
                    let waits = engine.mapping.len() > 1 << 20;
                    if settings.durability == Durability::Synced || small || waits {
                        return;
                    }
                    let mut next = medium.state().contents.last().unwrap().content.clone();
                    next.insert(number, new);
                    medium.state().contents.push(Version::new(next));
                    if put(&engine, number, new).is_err() {
                        // The flushing thread has the writer lock.
                        medium.state().contents.pop();
                    }
                });
                Ok(())
            }
        }
    }

    /// Lives through the steps of a generation, to its end.
    pub(super) fn live(&mut self, steps: &[Step]) -> std::result::Result<(), String> {
        for step in steps {
            let done = self.step(step).and_then(|()| self.note_evicted());
            done.map_err(|what| format!("{step:?}: {what}"))?;
        }
        let engine = self.engine();
        self.opener = None;
        {
            // Pending kills and failures are not meant for the checks, which flush as well.
            let mut state = self.medium.state();
            (state.dies_in, state.flush_fails) = (None, false);
        }
        if content(&engine)? != self.newest() {
            return Err("the store holds something else than what was committed".into());
        }
        while !self.held.is_empty() {
            self.give_back()?;
        }
        check(&engine)?;
        self.medium.cut_now();
        // Whatever closing does, the power is gone.
        self.medium.state().dead = true;
        drop(engine);
        self.engine = None;
        Ok(())
    }
}
