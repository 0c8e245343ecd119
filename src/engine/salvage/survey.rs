//! The survey: every record of a file whose CRC holds, in runs.
//!
//! A run is as many records as follow each other without a gap, each with the CRC of the one before it. A jump ends a
//! run. What lies inside a record that holds is never looked at; inside one that is damaged, every multiple of eight
//! may be the beginning of a record, and what is found there may be a part of its value. So a run is only what could be
//! a part of the log; [`strands`](super::strands) decides.

use super::reader::{CHUNK, Looked, Sound, Window, header_in, plausible};
use crate::file::layout::{CATALOGUE, EXTENTS, Kind, RECORD_HEADER, Seq, flags};

/// Records up to this length are looked for in any case.
const SHORT: u64 = 4 << 10;

/// Records that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) start: u64,
    /// After the last byte of the last record.
    pub(crate) end: u64,
    /// Where the record after it is expected: at its end, or where its jump leads.
    pub(crate) goes_on_at: u64,
    /// It ends in a jump.
    pub(crate) jumps: bool,
    /// The CRC that the record before it has.
    pub(crate) first_chain: u32,
    pub(crate) last_crc: u32,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    /// The last commit that is complete in it.
    pub(crate) last_commit: Option<Seq>,
    /// Where that ends.
    pub(crate) commit_end: u64,
    /// It ends within a commit.
    pub(crate) is_open: bool,
    pub(crate) records: u64,
    pub(crate) commits: u64,
    /// Beginnings of some records, about a chunk from each other, so that it can be read backwards. A record longer
    /// than a chunk has a mark before and behind.
    pub(crate) marks: Vec<u64>,
    /// Records of the catalogue.
    pub(crate) catalogue: Vec<u64>,
}

impl Run {
    fn begin(first: &Sound) -> Run {
        let mut run = Run {
            start: first.at,
            end: first.at,
            goes_on_at: first.at,
            jumps: false,
            first_chain: first.header.chain.get(),
            last_crc: first.header.chain.get(),
            first: first.number(),
            last: first.number(),
            last_commit: None,
            commit_end: 0,
            is_open: false,
            records: 0,
            commits: 0,
            marks: vec![first.at],
            catalogue: Vec::new(),
        };
        run.add(first, None);
        run
    }

    /// Whether a record continues it.
    fn is_followed_by(&self, next: &Sound) -> bool {
        let number = next.number();
        let in_order = match next.kind {
            Kind::Incarnation => !self.is_open && number > self.last,
            _ if number.incarnation() != self.last.incarnation() => false,
            _ if self.is_open => number == self.last,
            Kind::Jump => number >= self.last,
            _ => number > self.last,
        };
        !self.jumps && self.end == next.at && self.last_crc == next.header.chain.get() && in_order
    }

    /// Adds a record; `target` is where it jumps to.
    fn add(&mut self, next: &Sound, target: Option<u64>) {
        let (len, mark) = (next.header.record_len(), self.marks.last().copied().unwrap_or(self.start));
        if next.at > mark && (next.at - mark >= CHUNK || len >= CHUNK) {
            self.marks.push(next.at);
        }
        self.end = next.behind();
        self.goes_on_at = target.unwrap_or(self.end);
        self.jumps = next.kind == Kind::Jump;
        self.last_crc = next.header.crc.get();
        // A jump with the number of the commit before it leads to an incarnation record and begins no commit.
        self.is_open = !next.ends_commit() && self.last_commit != Some(next.number());
        self.last = next.number();
        self.records += 1;
        if next.ends_commit() {
            self.commits += 1;
            self.last_commit = Some(self.last);
            self.commit_end = self.end;
        }
        if next.header.map() == CATALOGUE && matches!(next.kind, Kind::Put | Kind::Remove | Kind::Clear) {
            self.catalogue.push(next.at);
        }
    }
}

/// All runs of a file, by their offsets.
pub(crate) struct Survey {
    pub(crate) runs: Vec<Run>,
    /// Too much had the form of a record and was none, so long records may have been overlooked inside damaged ones.
    pub(crate) is_cut_short: bool,
    /// Some keys are lost of which only the hashes were quarantined.
    pub(crate) lacks_keys: bool,
}

/// Reads the whole file. `step` is told of each few bytes, and may end it.
pub(crate) fn survey<E>(window: &mut Window<'_>, step: &mut dyn FnMut(u64) -> Result<(), E>) -> Result<Survey, E> {
    let len = window.reader.source_len();
    let mut survey = Survey { runs: Vec::new(), is_cut_short: false, lacks_keys: false };
    let (mut at, mut told) = (EXTENTS, 0);
    // In a hostile file, each place may begin what looks like a record of gigabytes.
    let mut patience = len.saturating_mul(4).saturating_add(64 << 20);
    while at + RECORD_HEADER <= len {
        if at - told >= CHUNK {
            step(at - told)?;
            told = at;
        }
        match window.look_at_record(at) {
            Looked::Record(record) => {
                at = record.behind();
                survey.add(window, &record);
            }
            Looked::Broken(whole) => {
                patience = patience.saturating_sub(whole);
                at += 8;
                if patience == 0 {
                    survey.is_cut_short = true;
                    at = after_the_long(window, at);
                }
            }
            Looked::Nothing => at = after_nothing(window, at),
        }
    }
    step(len.saturating_sub(told))?;
    Ok(survey)
}

impl Survey {
    /// Takes away what was appended after the last commit, which ended at `tail`, and never became one: a transaction
    /// that was rolled back, or was in progress. Its number tells nothing, since it is never used again.
    pub(crate) fn end_at(&mut self, tail: u64) {
        let was_never_committed = |run: &Run| run.is_open && run.commits == 0;
        self.runs.retain(|run| run.start != tail || !was_never_committed(run));
        let ends_there = |run: &&mut Run| run.commits > 0 && run.commit_end == tail;
        if let Some(run) = self.runs.iter_mut().find(ends_there) {
            (run.end, run.goes_on_at, run.jumps, run.is_open) = (tail, tail, false, false);
            run.last = run.last_commit.unwrap_or(run.last);
            run.marks.retain(|&mark| mark < tail);
            run.catalogue.retain(|&at| at < tail);
        }
    }

    fn add(&mut self, window: &mut Window<'_>, record: &Sound) {
        let target = (record.kind == Kind::Jump).then(|| {
            let value = window.look(record.at + RECORD_HEADER, 8);
            u64::from_le_bytes(value.first_chunk().copied().unwrap_or_default())
        });
        self.lacks_keys |= record.header.flags & flags::DAMAGED != 0 && record.header.key_len.get() == 0;
        match self.runs.last_mut().filter(|run| run.is_followed_by(record)) {
            Some(run) => run.add(record, target),
            None => {
                let mut run = Run::begin(record);
                run.goes_on_at = target.unwrap_or(run.end);
                self.runs.push(run);
            }
        }
    }
}

/// The next place after `at` at which a record may begin: zeros are passed at once.
fn after_nothing(window: &Window<'_>, at: u64) -> u64 {
    let words = window.rest(at + 8).as_chunks::<8>().0;
    // The kind of a record is in its second word.
    let zeros = words.iter().position(|word| *word != [0; 8]).unwrap_or(words.len()) as u64;
    at + 8 + 8 * zeros.saturating_sub(1)
}

/// The next place from `at` on at which no long record seems to begin.
fn after_the_long(window: &mut Window<'_>, mut at: u64) -> u64 {
    let len = window.reader.source_len();
    while at + RECORD_HEADER <= len {
        let header = header_in(window.look(at, RECORD_HEADER));
        if plausible(&header, at, len).is_none() || header.record_len() <= SHORT {
            break;
        }
        at += 8;
    }
    at
}
