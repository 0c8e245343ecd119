//! The judge: which records of the log are the newest of their keys.
//!
//! The log is gone through backwards, so the first record that is met of a key is its newest; of the key, only a hash
//! of 128 bits is kept, made with a random seed. Behind a hole, newest among those that are left is not enough: the
//! newest record of a key may have been in the hole. Then the [index](super::slots) is asked, and what the damaged
//! record itself still says: its key is believed if the older version that it names has the same one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::reader::{Reader, header_in, plausible};
use super::slots::{Says, Slots};
use super::strands::{Hole, Log, run_at};
use super::survey::Run;
use crate::file::layout::{Kind, MapId, RECORD_HEADER, RecordHeader, Seq, align8, flags};

/// A record in memory.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'b> {
    pub(crate) at: u64,
    pub(crate) header: RecordHeader,
    bytes: &'b [u8],
}

impl<'b> Seen<'b> {
    /// The record at the beginning of these bytes, if they are long enough and its CRC holds.
    pub(crate) fn read_in(at: u64, bytes: &'b [u8]) -> Option<Seen<'b>> {
        let header = header_in(bytes);
        plausible(&header, 0, bytes.len() as u64)?;
        let bytes = &bytes[..header.record_len() as usize];
        (crc32fast::hash(&bytes[4..]) == header.crc.get()).then_some(Seen { at, header, bytes })
    }

    pub(crate) fn what(&self) -> Option<Kind> {
        Kind::from_u8(self.header.kind)
    }

    /// Whether it stands for a damaged record: see [quarantine](crate::format#quarantine).
    pub(crate) fn was_damaged(&self) -> bool {
        self.header.flags & flags::DAMAGED != 0
    }

    pub(crate) fn whole_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn its_key(&self) -> &'b [u8] {
        let start = self.header.key_start() as usize;
        &self.bytes[start..start + usize::from(self.header.key_len.get())]
    }

    pub(crate) fn its_value(&self) -> &'b [u8] {
        let start = self.header.value_start() as usize;
        &self.bytes[start..start + self.header.value_len.get() as usize]
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        let field = self.bytes[RECORD_HEADER as usize..].first_chunk().filter(|_| self.header.expires_len() > 0)?;
        Some(u64::from_le_bytes(*field))
    }
}

/// How sure it is that a kept record is the newest of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    Sure,
    /// A newer one is lost, and the older one was asked for.
    Older,
    /// A newer one may be lost.
    Doubtful,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A newer one took its place, or it is a removal.
    Gone,
    Keep(Grade),
    /// The newest of its key is lost.
    Lost,
    /// No slot leads to its key: to be decided when it is known whether that means something.
    Later,
}

/// What is known about the record that a hole is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It said nothing about any key.
    Nothing,
    /// A new key, or one whose older versions are in the hash.
    Key {
        map: MapId,
        older: Option<u128>,
        number: Seq,
    },
    Unknown,
}

/// See the module.
pub(crate) struct Judge<'r> {
    pub(crate) reader: &'r Reader,
    pub(crate) runs: &'r [Run],
    pub(crate) log: &'r Log,
    pub(crate) slots: Option<Slots>,
    pub(crate) keeps_older: bool,
    /// Keys known to be lost, which no slot tells.
    pub(crate) lost: u64,
    seed: u64,
    keys: HashTable<u128>,
    /// Keys whose newest record is lost, if older ones are asked for.
    older: HashSet<u128>,
    cleared: BTreeSet<MapId>,
    places: LostPlaces,
    /// Records have been lost that are newer than the next one.
    is_behind: bool,
    /// It is not known of which keys.
    is_in_doubt: bool,
}

impl<'r> Judge<'r> {
    pub(crate) fn over(
        reader: &'r Reader,
        runs: &'r [Run],
        log: &'r Log,
        slots: Option<Slots>,
        seed: u64,
    ) -> Judge<'r> {
        Judge {
            reader,
            runs,
            log,
            slots,
            keeps_older: false,
            lost: 0,
            seed,
            keys: HashTable::new(),
            older: HashSet::new(),
            cleared: BTreeSet::new(),
            places: LostPlaces::of(log, runs),
            is_behind: false,
            is_in_doubt: false,
        }
    }

    /// Begins at the end of the log.
    pub(crate) fn start_over(&mut self) {
        self.cleared.clear();
        self.is_behind = self.log.lacks_its_end;
        self.is_in_doubt = self.log.lacks_its_end;
    }

    fn hash(&self, map: MapId, key: &[u8]) -> u128 {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

        xxh3_128_with_seed(key, self.seed ^ u64::from(map).wrapping_mul(MULTIPLIER))
    }

    /// Remembers a key, and says whether it is met for the first time.
    fn meet(&mut self, hash: u128) -> bool {
        let of = |hash: &u128| *hash as u64;
        match self.keys.entry(hash as u64, |other| *other == hash, of) {
            hashbrown::hash_table::Entry::Occupied(_) => false,
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(hash);
                true
            }
        }
    }

    /// Goes past a hole.
    pub(crate) fn pass_hole(&mut self, hole: &Hole, of: impl Fn(MapId) -> bool) {
        self.is_behind = true;
        let lost: Vec<Lost> = self.identify(hole);
        for lost in lost.into_iter().rev() {
            match lost {
                Lost::Nothing => {}
                Lost::Key { map, older, .. } if of(map) => self.pass_lost(map, older),
                Lost::Key { .. } => {}
                Lost::Unknown => self.is_in_doubt = true,
            }
        }
    }

    /// Goes past a lost record of a known key.
    fn pass_lost(&mut self, map: MapId, older: Option<u128>) {
        let is_first = older.is_none_or(|older| match self.keeps_older {
            true => self.keys.find(older as u64, |other| *other == older).is_none() && self.older.insert(older),
            false => self.meet(older),
        });
        let is_told = self.slots.as_ref().is_some_and(|slots| slots.counts(map));
        self.lost += u64::from(is_first && !is_told && !self.cleared.contains(&map));
    }

    /// What the damaged records say that a hole consists of.
    pub(crate) fn identify(&self, hole: &Hole) -> Vec<Lost> {
        let pieces = &self.log.pieces;
        let around =
            hole.before.checked_sub(1).and_then(|before| Some((pieces.get(before)?, pieces.get(hole.before)?)));
        let Some((before, after)) = around.filter(|_| !hole.damaged.is_empty()) else { return vec![Lost::Unknown] };
        let (before, after) = (&self.runs[before.run], &self.runs[after.run]);
        let mut found = Vec::new();
        for (number, &at) in hole.damaged.iter().enumerate() {
            let header = self.reader.raw_header(at);
            let next = hole.damaged.get(number + 1).copied().unwrap_or(after.start);
            let numbers = before.last..=after.first;
            let fits = numbers.contains(&Seq::of_field(header.seq));
            found.push(if fits { self.identify_one(at, &header, next) } else { Lost::Unknown });
        }
        found
    }

    /// What the damaged record at `at` says, which the one at `next` follows, if others confirm it.
    fn identify_one(&self, at: u64, header: &RecordHeader, next: u64) -> Lost {
        let Some(kind) = plausible(header, at, self.reader.source_len()) else { return Lost::Unknown };
        let number = Seq::of_field(header.seq);
        let is_next = at + header.record_len() == next;
        match kind {
            Kind::Jump if self.reader.word(at + RECORD_HEADER) == next => return Lost::Nothing,
            Kind::Incarnation if is_next => return Lost::Nothing,
            Kind::Put | Kind::Remove if is_next => {}
            _ => return Lost::Unknown,
        }
        let map = header.map();
        if header.prev() == 0 {
            // Nothing else confirms the map.
            let is_gone = self.slots.as_ref().is_some_and(|slots| slots.is_gone(map));
            let is_new = kind == Kind::Put && header.flags & flags::NEW != 0 && !is_gone;
            return if is_new { Lost::Key { map, older: None, number } } else { Lost::Unknown };
        }
        let key_of = |at: u64, header: &RecordHeader| {
            self.reader.piece(at + header.key_start(), u64::from(header.key_len.get()))
        };
        let key = key_of(at, header);
        match self.reader.sound_header(header.prev()) {
            Some(older)
                if older.map() == map && Seq::of_field(older.seq) <= number && key_of(header.prev(), &older) == key =>
            {
                Lost::Key { map, older: Some(self.hash(map, &key)), number }
            }
            _ => Lost::Unknown,
        }
    }

    /// Whether what lies at an offset was a record of the log, and is lost.
    fn is_lost(&self, at: u64) -> bool {
        self.places.contain(at, self)
    }

    /// Whether a slot that leads to `at` led to this record before one of its bits was flipped: what is at `at` has not
    /// replaced the record.
    fn may_be_flipped(&self, at: u64, record: &Seen<'_>) -> bool {
        (at ^ record.at).is_power_of_two() && self.reader.raw_header(at).prev() != record.at
    }

    /// What becomes of a record of the log.
    pub(crate) fn judge(&mut self, record: &Seen<'_>) -> Verdict {
        let number = Seq::of_field(record.header.seq);
        let (map, kind) = (record.header.map(), record.what());
        if number < self.log.least || number > self.log.most || self.cleared.contains(&map) {
            return Verdict::Gone;
        }
        match kind {
            Some(Kind::Put | Kind::Remove) => {}
            Some(Kind::Clear) => {
                self.cleared.insert(map);
                return Verdict::Gone;
            }
            _ => return Verdict::Gone,
        }
        if record.was_damaged() {
            return self.judge_damaged(record);
        }
        let hash = self.hash(map, record.its_key());
        if !self.meet(hash) {
            return Verdict::Gone;
        }
        let says = self.slots.as_mut().map_or(Says::Unknown, |slots| slots.ask(map, record.its_key(), record.at));
        if kind != Some(Kind::Put) {
            return Verdict::Gone;
        }
        if self.older.contains(&hash) {
            return Verdict::Keep(Grade::Older);
        }
        match says {
            _ if !self.is_behind => Verdict::Keep(Grade::Sure),
            Says::This => Verdict::Keep(Grade::Sure),
            Says::Elsewhere(at) if self.is_lost(at) && self.may_be_flipped(at, record) => {
                // The slot is accounted for.
                _ = self.slots.as_mut().map(|slots| slots.ask(map, record.its_key(), at));
                Verdict::Keep(Grade::Doubtful)
            }
            Says::Elsewhere(at) if self.is_lost(at) => {
                if self.keeps_older {
                    Verdict::Keep(Grade::Older)
                } else {
                    Verdict::Lost
                }
            }
            Says::Nothing if self.is_in_doubt && self.slots.as_ref().is_some_and(|slots| slots.tells_of(map)) => {
                Verdict::Later
            }
            _ if self.is_in_doubt => Verdict::Keep(Grade::Doubtful),
            _ => Verdict::Keep(Grade::Sure),
        }
    }

    /// What becomes of the key of a record in quarantine.
    fn judge_damaged(&mut self, record: &Seen<'_>) -> Verdict {
        let (map, key) = (record.header.map(), record.its_key());
        let is_newest = if key.is_empty() {
            let hash = record.its_value().first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits));
            let says = self.slots.as_mut().map_or(Says::Unknown, |slots| slots.ask_for(map, hash, record.at));
            matches!(says, Says::This | Says::Unknown)
        } else {
            // The slot is accounted for.
            _ = self.slots.as_mut().map(|slots| slots.ask(map, key, record.at));
            let hash = self.hash(map, key);
            match self.keeps_older {
                true => self.keys.find(hash as u64, |other| *other == hash).is_none() && self.older.insert(hash),
                false => self.meet(hash),
            }
        };
        self.lost += u64::from(is_newest);
        if is_newest { Verdict::Lost } else { Verdict::Gone }
    }

    /// For each map with an index, how many of its slots lead to lost records, and whether a key without a slot is
    /// gone.
    pub(crate) fn sum_up(&self) -> BTreeMap<MapId, (u64, bool)> {
        self.slots.as_ref().map_or_else(BTreeMap::new, |slots| slots.sum_up(|at| self.is_lost(at)))
    }

    /// The parts of a piece, the last one first: each is read at once.
    pub(crate) fn parts_of(&self, piece: usize) -> impl Iterator<Item = Range<u64>> + use<> {
        let piece = self.log.pieces[piece];
        let run = &self.runs[piece.run];
        let mut ends = vec![piece.from];
        ends.extend(run.marks.iter().filter(|&&mark| mark > piece.from));
        ends.push(run.end);
        (1..ends.len()).rev().map(move |end| ends[end - 1]..ends[end])
    }
}

/// Where lost records were.
struct LostPlaces {
    /// The runs of the log by their offsets: whether something unknown is missing before, and behind.
    by_offset: BTreeMap<usize, (bool, bool)>,
    /// Damaged records whose places are known.
    damaged: BTreeSet<u64>,
}

impl LostPlaces {
    fn of(log: &Log, runs: &[Run]) -> LostPlaces {
        let mut by_offset: BTreeMap<usize, (bool, bool)> =
            log.pieces.iter().map(|piece| (piece.run, (false, false))).collect();
        let mut mark = |run: Option<usize>, mark: fn(&mut (bool, bool))| {
            run.and_then(|run| by_offset.get_mut(&run)).into_iter().for_each(mark);
        };
        let run_of = |piece: usize| log.pieces.get(piece).map(|piece| piece.run);
        for hole in log.holes.iter().filter(|hole| hole.damaged.is_empty()) {
            mark(run_of(hole.before), |missing| missing.0 = true);
            mark(hole.before.checked_sub(1).and_then(run_of), |missing| missing.1 = true);
            mark(run_at(runs, hole.at.saturating_sub(1)), |missing| missing.1 = true);
        }
        if log.lacks_its_end {
            mark(log.pieces.last().map(|last| last.run), |missing| missing.1 = true);
        }
        let damaged = log.holes.iter().flat_map(|hole| hole.damaged.iter().copied()).collect();
        LostPlaces { by_offset, damaged }
    }

    fn contain(&self, at: u64, judge: &Judge<'_>) -> bool {
        let runs = judge.runs;
        let in_region = judge.slots.as_ref().is_some_and(|slots| slots.is_in_region(at));
        if self.damaged.contains(&at) {
            return true;
        }
        if !at.is_multiple_of(8) || at + RECORD_HEADER > align8(judge.reader.source_len()) || in_region {
            return false;
        }
        let behind = runs.partition_point(|run| run.start <= at);
        let before = self.by_offset.range(..behind).next_back();
        let after = self.by_offset.range(behind..).next();
        let is_inside = before.is_some_and(|(&run, _)| at < runs[run].end);
        let is_beside = before.is_some_and(|(_, missing)| missing.1) || after.is_some_and(|(_, missing)| missing.0);
        // What still holds, or an older record that does, is not lost.
        let holds = || judge.reader.sound_header(at).is_some();
        !is_inside && is_beside && !holds()
    }
}
