//! The commits after one, in order.

use std::sync::Arc;

use super::names::{Deed, DeedKind, Names, Reading};
use super::told::{Told, Unit, What};
use crate::engine::Engine;
use crate::engine::read::history::{CommitId, History, Spot};
use crate::engine::read::pins::Hold;
use crate::error::Result;
use crate::file::layout::{CATALOGUE, Kind, MapId, Offset, Seq, flags};
use crate::file::log::{Record, Scan};

/// A place between two commits, from which on the feed goes.
pub(crate) struct Commits {
    /// All commits up to this one were told.
    after: Seq,
    /// The last one that was told, or the beginning.
    told: CommitId,
    names: Option<Names>,
    held: Option<Held>,
    /// Where it was when it let go, so that it need not read the same part of the log again and again.
    left_at: Option<Spot>,
}

/// A part of the log that is held, from a place in it.
struct Held {
    hold: Hold<Arc<Engine>>,
    at: Offset,
    history: History,
    uuid: [u8; 16],
    /// Bytes that it may still go on.
    left: u64,
    /// The commit that is being told.
    current: Option<Current>,
}

struct Current {
    unit: Unit,
    at: Offset,
    end: Offset,
    deeds: Vec<Deed>,
}

impl Commits {
    /// The commits after this number.
    pub(crate) fn after(engine: Arc<Engine>, after: Seq) -> Result<Commits> {
        let told = engine.commit_id(after)?;
        let mut commits = Commits { after, told, names: None, held: None, left_at: None };
        // So that a number that is too old, or was never there, is refused at once.
        commits.held = Some(commits.hold(engine)?);
        Ok(commits)
    }

    /// The number up to which all commits were told.
    pub(crate) fn seq(&self) -> Seq {
        self.after
    }

    /// The last commit that was told, or the one that all are told after.
    pub(crate) fn told(&self) -> CommitId {
        self.told
    }

    fn hold(&mut self, engine: Arc<Engine>) -> Result<Held> {
        let hold = Hold::take(engine)?;
        let mut history = hold.engine().history(self.after, hold.seq())?;
        if self.names.is_none() {
            self.names = Some(names_before(hold.engine(), &history)?);
        }
        if let Some(left_at) = self.left_at {
            history.go_on(left_at);
        }
        let uuid = hold.engine().superblock()?.uuid;
        // Then it looks for its place anew, so that others can use the space before it.
        let left = hold.engine().settings.limits.most_held;
        Ok(Held { at: history.start, history, left, uuid, current: None, hold })
    }

    /// Goes on to the next commit, if there is one. `engine` is called where nothing is held.
    pub(crate) fn advance(&mut self, engine: impl Fn() -> Arc<Engine>) -> Result<bool> {
        loop {
            let mut held = match self.held.take() {
                Some(held) if held.left > 0 => held,
                let_go => {
                    self.let_go(let_go);
                    let engine = engine();
                    if engine.visible()? <= self.after {
                        return Ok(false);
                    }
                    self.hold(engine)?
                }
            };
            held.hold.engine().check_not_forked()?;
            match held.find_next(self.after, self.told) {
                Ok(Some(current)) => {
                    (self.after, self.told) = (current.unit.last.seq, current.unit.last);
                    self.leave(held.current.replace(current));
                    self.held = Some(held);
                    return Ok(true);
                }
                // Others may have committed since.
                Ok(None) => self.after = self.after.max(held.history.until),
                Err(error) => {
                    self.let_go(Some(held));
                    return Err(error);
                }
            }
            self.let_go(Some(held));
        }
    }

    /// Notes where it was.
    fn let_go(&mut self, held: Option<Held>) {
        if let Some(Held { history, at, current, .. }) = held {
            self.left_at = history.spot(at);
            self.leave(current);
        }
    }

    /// Goes past a commit that was told.
    fn leave(&mut self, told: Option<Current>) {
        if let (Some(told), Some(names)) = (told, &mut self.names) {
            names.apply(&told.deeds);
        }
    }

    /// The commit that is being told.
    pub(crate) fn unit(&self) -> Option<Unit> {
        self.held.as_ref()?.unit()
    }

    /// The changes of the commit that is being told.
    pub(crate) fn changes(&self) -> ChangesOfCommit<'_> {
        let held = self.held.as_ref();
        let current = held.and_then(|held| Some((held, held.current.as_ref()?)));
        ChangesOfCommit {
            scan: current.map(|(held, current)| {
                let engine: &Engine = held.hold.engine();
                (engine, Scan::new(&engine.mapping, current.at, current.end))
            }),
            deeds: current.map_or(&[], |(_, current)| &current.deeds),
            passed: 0,
            names: self.names.as_ref(),
        }
    }
}

impl Held {
    fn unit(&self) -> Option<Unit> {
        self.current.as_ref().map(|current| current.unit)
    }

    /// Finds the next commit that has changed something for a user.
    fn find_next(&mut self, after: Seq, previous: CommitId) -> Result<Option<Current>> {
        let engine = self.hold.engine();
        let mut reading = Reading::default();
        let mut begun: Option<Offset> = None;
        let mut tells = false;
        for record in Scan::new(&engine.mapping, self.at, self.history.end) {
            let record = record?;
            self.left = self.left.saturating_sub(record.len());
            if record.seq() > self.history.until {
                self.at = record.offset;
                return Ok(None);
            }
            if record.seq() <= after || record.kind() == Some(Kind::Jump) && begun.is_none() {
                continue;
            }
            let at = *begun.get_or_insert(record.offset);
            reading.read(engine, record)?;
            tells |= record.tells();
            if !record.is_commit() {
                continue;
            }
            reading.end();
            let last = CommitId { seq: record.seq(), crc: record.header.crc.get() };
            let deeds = std::mem::take(&mut reading).deeds;
            if tells {
                self.at = record.end();
                let unit = Unit { uuid: self.uuid, previous, last };
                return Ok(Some(Current { unit, at, end: self.at, deeds }));
            }
            begun = None;
        }
        self.at = self.history.end;
        Ok(None)
    }
}

/// Whether a record is a change of an entry.
fn is_of_an_entry(record: Record<'_>) -> bool {
    record.tells() && record.header.map() != CATALOGUE && record.kind() != Some(Kind::Clear)
}

/// The names of the maps before the commits of a history.
fn names_before(engine: &Engine, history: &History) -> Result<Names> {
    let mut names = Names::at(engine, history.until)?;
    let changed = engine.index_at(CATALOGUE, history.until)?.map(|index| index.totals()).transpose()?;
    if changed.is_some_and(|totals| totals.seq <= history.after) {
        return Ok(names);
    }
    let mut deeds = Vec::new();
    let mut reading = Reading::default();
    for record in Scan::new(&engine.mapping, history.start, history.end) {
        let record = record?;
        if record.seq() > history.until {
            break;
        }
        if record.seq() <= history.after {
            continue;
        }
        reading.read(engine, record)?;
        if record.is_commit() {
            reading.end();
            deeds.append(&mut reading.deeds);
        }
    }
    names.take_back(&deeds);
    Ok(names)
}

/// See [`Commits::changes`].
pub(crate) struct ChangesOfCommit<'c> {
    scan: Option<(&'c Engine, Scan<'c>)>,
    deeds: &'c [Deed],
    /// How many of them were passed: what comes before a deed goes by the names of that time.
    passed: usize,
    names: Option<&'c Names>,
}

impl<'c> ChangesOfCommit<'c> {
    fn name_of(&self, map: MapId) -> Option<&'c str> {
        let deed = self.deeds[..self.passed].iter().rfind(|deed| deed.map == map && deed.kind != DeedKind::Clear);
        deed.map(|deed| deed.name.as_str()).or_else(|| self.names?.of(map))
    }

    /// What a record tells.
    fn told(&mut self, engine: &Engine, record: Record<'c>) -> Result<Option<Told<'c>>> {
        let map = record.header.map();
        if let Some(deed) = self.deeds.get(self.passed).filter(|deed| deed.at == record.offset) {
            let (name, what) = match &deed.kind {
                DeedKind::Clear => (self.name_of(deed.map).unwrap_or_default(), What::Clear),
                DeedKind::Create { version, types } => (&*deed.name, What::Create { version: *version, types }),
                DeedKind::Drop => (&*deed.name, What::Drop),
                DeedKind::Rename { from } => (&*deed.name, What::Rename(from)),
            };
            self.passed += 1;
            return Ok(Some(Told { map: deed.map, name, what }));
        }
        if !is_of_an_entry(record) {
            return Ok(None);
        }
        engine.check_crc(record)?;
        let Some(name) = self.name_of(map) else {
            return Err(engine.mapping.corrupt(record.offset, format!("a change of map {map}, which had no name")));
        };
        let key = record.key();
        let what = match record.kind() {
            Some(Kind::Put) => What::Put { key, value: record.value(), deadline: record.expires() },
            _ if record.header.flags & flags::EXPIRED != 0 => What::Expire(key),
            _ => What::Remove(key),
        };
        Ok(Some(Told { map, name, what }))
    }
}

impl<'c> Iterator for ChangesOfCommit<'c> {
    type Item = Result<Told<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (engine, _) = self.scan.as_ref()?;
        let engine: &'c Engine = engine;
        if let Err(error) = engine.check_not_forked() {
            self.scan = None;
            return Some(Err(error));
        }
        loop {
            let (_, scan) = self.scan.as_mut()?;
            let told = scan.next()?.and_then(|record| self.told(engine, record));
            match told {
                Ok(Some(told)) => return Some(Ok(told)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::engine::settings::Settings;
    use crate::file::layout::DEFAULT_MAP;

    /// Where it lets go, it goes on, and reads nothing once more.
    #[test]
    fn a_feed_that_keeps_up_reads_the_log_once() {
        let engine = Arc::new(Engine::in_memory(Settings::default()).unwrap());
        let mut commits = Commits::after(Arc::clone(&engine), Seq::ZERO).unwrap();
        let mut at_once = 0;
        for number in 0..2000_u32 {
            engine.put(DEFAULT_MAP, &number.to_le_bytes(), &[7; 100], None).unwrap();
            assert!(commits.advance(|| Arc::clone(&engine)).unwrap());
            let held = commits.held.as_ref().unwrap();
            at_once += u32::from(held.current.as_ref().unwrap().at == held.history.start);
            assert!(!commits.advance(|| Arc::clone(&engine)).unwrap());
        }
        // All but the first commits in their extents.
        assert!(at_once > 1900, "{at_once}");
    }
}
