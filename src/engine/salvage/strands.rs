//! Strands: which runs were the log.
//!
//! A strand is a chain of runs: a jump leads from one to the next, or the records between them are damaged and one
//! still has the CRC that the next run follows, stored or by its content. What belongs together by these links was
//! written one after the other by the store; what lies inside a value has no such links to what lies outside.
//!
//! If the log is whole, from where the front says that it begins to where it says that the last commit ended, it is
//! that and nothing else. Otherwise strands are believed in this order, as long as their numbers do not contradict
//! those believed before:
//!
//! 1. the one that contains the beginning of the log, or its end;
//! 2. those that a slot of the index leads into;
//! 3. the largest, if there is nothing else to begin with;
//! 4. those that fit into a hole: eight commits or more; or, if there is no index, fewer, with at least one number left
//!    on either side for the damaged records that surround them. (Where there is an index, what no slot leads into has
//!    been replaced anyway.) One damaged record leaves no such room; so a value that looks like records needs three
//!    damaged commits and their numbers to get into the log, and the loss of the index.
//!
//! Records with numbers from before the beginning of the log are stale, and those from after its end were never
//! committed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::front::Front;
use super::reader::{CHUNK, Looked, Reader, Window, plausible};
use super::survey::Run;
use crate::file::layout::{Kind, MAP_TABLE_MAGIC, RECORD_HEADER, REGION_MAGIC, SPACE_TABLE_MAGIC, Seq, align_block};

/// A part of a run that was the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) run: usize,
    /// Offset of its first record.
    pub(crate) from: u64,
}

/// Something is missing between two pieces of the log.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    /// The number of the piece after it.
    pub(crate) before: usize,
    /// Where it begins, in the file.
    pub(crate) at: u64,
    /// The damaged records that it consists of, if these are known.
    pub(crate) damaged: Vec<u64>,
    /// The last number before it.
    pub(crate) after_number: Seq,
    /// The commit of that number is not complete.
    pub(crate) is_open: bool,
    /// The first number after it.
    pub(crate) next_number: Seq,
}

/// As many commits need no room beside them to fit into a hole: they prove that it is large.
const MANY: u64 = 8;

/// What is believed to have been the log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) holes: Vec<Hole>,
    /// Records with smaller numbers are stale.
    pub(crate) least: Seq,
    /// Records with larger numbers were not committed.
    pub(crate) most: Seq,
    /// The commit that it shows, if it shows one.
    pub(crate) commit: Option<Seq>,
    /// Something is missing at its end.
    pub(crate) lacks_its_end: bool,
    /// Something is missing at its beginning, or nothing tells where it began.
    pub(crate) lacks_its_beginning: bool,
    /// Records that are not believed.
    pub(crate) doubtful: u64,
    /// Of these, those of later commits than the last one.
    pub(crate) later: u64,
}

/// Says whether a slot of the index leads to a record of this run. `None` if there is no index.
pub(crate) type LeadsInto<'a> = Option<&'a mut dyn FnMut(&Run) -> bool>;

/// How a run goes on.
#[derive(Clone, Debug)]
struct Link {
    to: usize,
    /// The damaged records between the two.
    damaged: Vec<u64>,
}

/// Runs that belong together.
#[derive(Clone, Debug)]
struct Strand {
    runs: Vec<usize>,
    first: Seq,
    last: Seq,
    records: u64,
    commits: u64,
    is_open: bool,
}

/// The log, if it is whole: see the module.
pub(crate) fn whole_log(runs: &[Run], front: &Front, window: &mut Window<'_>) -> Option<Log> {
    let begin = front.begin.filter(|_| front.knows_the_end())?;
    let last_known = front.last?;
    let mut log = Log { least: begin.least, ..Log::default() };
    let mut commit = begin.least.before();
    let mut commit_end = begin.at;
    if begin.is_there {
        let mut next = Some(Piece { run: run_at(runs, begin.at)?, from: begin.at });
        let mut seen = BTreeSet::new();
        while let Some(piece) = next.filter(|piece| seen.insert(piece.run)) {
            let run = &runs[piece.run];
            if let Some(last) = run.last_commit {
                (commit, commit_end) = (last, run.commit_end);
            }
            log.pieces.push(piece);
            next = jumped_to(runs, piece.run).map(|to| Piece { run: to, from: runs[to].start });
        }
    } else if !matches!(window.look_at_record(begin.at), Looked::Nothing) || front.tail != Some(begin.at) {
        return None;
    }
    // Numbers that were skipped after the last commit count as well.
    if commit < last_known && front.tail != Some(commit_end) {
        return None;
    }
    (log.commit, log.most) = (Some(commit), commit);
    let used: BTreeSet<usize> = log.pieces.iter().map(|piece| piece.run).collect();
    let later = (0..).zip(runs).filter(|(at, run)| !used.contains(at) && run.first > commit.next() && run.commits > 0);
    log.later = later.map(|(_, run)| run.records).sum();
    log.doubtful = log.later;
    Some(log)
}

/// The run that contains an offset.
pub(crate) fn run_at(runs: &[Run], at: u64) -> Option<usize> {
    let after = runs.partition_point(|run| run.start <= at);
    after.checked_sub(1).filter(|&found| at < runs[found].end)
}

/// The run that a jump at the end of this one leads to.
fn jumped_to(runs: &[Run], from: usize) -> Option<usize> {
    let run = &runs[from];
    let to = runs.binary_search_by_key(&run.goes_on_at, |next| next.start).ok().filter(|_| run.jumps)?;
    let next = &runs[to];
    (next.first_chain == run.last_crc && next.first >= run.last && to != from).then_some(to)
}

/// Finds out which run follows which.
fn links(runs: &[Run], reader: &Reader) -> Vec<Option<Link>> {
    let mut by_chain: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, run) in runs.iter().enumerate() {
        by_chain.entry(run.first_chain).or_default().push(at);
    }
    let mut links: Vec<Option<Link>> = vec![None; runs.len()];
    let mut taken = vec![false; runs.len()];
    for (at, link) in links.iter_mut().enumerate() {
        if let Some(to) = jumped_to(runs, at).filter(|&to| !taken[to]) {
            taken[to] = true;
            *link = Some(Link { to, damaged: Vec::new() });
        }
    }
    for at in (0..runs.len()).filter(|&at| links[at].is_none()).collect::<Vec<_>>() {
        let fits = |to: usize| to != at && !taken[to] && runs[to].first >= runs[at].last;
        let found = behind_damage(reader, &runs[at], |crc| {
            let found = by_chain.get(&crc).into_iter().flatten().copied().filter(|&to| fits(to));
            found.min_by_key(|&to| (runs[to].first, runs[to].start.abs_diff(runs[at].goes_on_at)))
        });
        if let Some(link) = found {
            taken[link.to] = true;
            links[at] = Some(link);
        }
    }
    links
}

/// How many damaged records are passed at once.
const DAMAGED: usize = 256;

/// Passes the damaged records after a run, as long as their headers follow each other, to a run that follows them.
fn behind_damage(reader: &Reader, run: &Run, find: impl Fn(u32) -> Option<usize>) -> Option<Link> {
    let (mut at, mut chain, mut damaged) = (run.goes_on_at, run.last_crc, Vec::new());
    while damaged.len() < DAMAGED {
        damaged.push(at);
        let [stored, of_content] = crcs_at(reader, at);
        if let Some(to) = [stored, of_content].into_iter().filter(|&crc| crc != 0).find_map(&find) {
            return Some(Link { to, damaged });
        }
        let header = reader.raw_header(at);
        let kind = plausible(&header, at, reader.source_len()).filter(|_| header.chain.get() == chain)?;
        at = if kind == Kind::Jump { reader.word(at + RECORD_HEADER) } else { at + header.record_len() };
        chain = stored;
    }
    None
}

/// The CRC that the damaged record at `at` had, which the one after it repeats: the one that is stored, or, if that is
/// what was damaged, that of its content.
fn crcs_at(reader: &Reader, at: u64) -> [u32; 2] {
    let header = reader.raw_header(at);
    let len = header.record_len();
    let has_form = plausible(&header, at, reader.source_len()).is_some() && len <= CHUNK;
    let of_content = if has_form { crc32fast::hash(&reader.piece(at, len)[4..]) } else { 0 };
    [header.crc.get(), of_content]
}

/// Puts the runs together.
fn strands(runs: &[Run], links: &[Option<Link>]) -> Vec<Strand> {
    let mut is_led_to = vec![false; runs.len()];
    for link in links.iter().flatten() {
        is_led_to[link.to] = true;
    }
    let mut strands = Vec::new();
    let mut seen = vec![false; runs.len()];
    for first in (0..runs.len()).filter(|&at| !is_led_to[at]) {
        let (first_number, last) = (runs[first].first, Seq::ZERO);
        let mut strand = Strand { runs: Vec::new(), first: first_number, last, records: 0, commits: 0, is_open: false };
        let mut next = Some(first);
        while let Some(at) = next.filter(|&at| !std::mem::replace(&mut seen[at], true)) {
            let run = &runs[at];
            strand.runs.push(at);
            (strand.last, strand.is_open) = (run.last, run.is_open);
            strand.records += run.records;
            strand.commits += run.commits;
            next = links[at].as_ref().map(|link| link.to);
        }
        strands.push(strand);
    }
    strands
}

/// Strands that are believed, by their first numbers.
#[derive(Default)]
struct Believed {
    by_number: BTreeMap<Seq, Strand>,
}

impl Believed {
    /// Whether a strand lies between those that are believed, with `room` numbers to spare on either side; without any,
    /// it may begin or end within a commit.
    fn has_room_for(&self, strand: &Strand, room: u64, front: &Front) -> bool {
        let is_after = |before: &Strand, after: &Strand| match room {
            0 => before.last < after.first || before.is_open && before.last == after.first,
            room => before.last.0 + room <= after.first.0,
        };
        let before = self.by_number.range(..=strand.first).next_back().map(|(_, before)| before);
        let after = self.by_number.range(strand.first..).map(|(_, after)| after);
        let after = after.into_iter().find(|after| before.is_none_or(|before| before.first != after.first));
        let follows = match (before, front.begin) {
            (Some(before), _) => is_after(before, strand),
            (None, Some(begin)) => begin.least <= strand.first,
            // Nothing tells where the log began.
            (None, None) => true,
        };
        let is_followed = match (after, front.last.filter(|_| front.knows_the_end())) {
            (Some(after), _) => is_after(strand, after),
            (None, Some(last)) => strand.last <= last,
            (None, None) => strand.commits > 1,
        };
        follows && is_followed
    }

    fn believe(&mut self, strand: Strand) {
        self.by_number.insert(strand.first, strand);
    }
}

/// The log of a file in which something is missing.
pub(crate) fn damaged_log(runs: &[Run], front: &Front, reader: &Reader, mut leads: LeadsInto<'_>) -> Log {
    let links = links(runs, reader);
    let mut rest = strands(runs, &links);
    let least = front.begin.map_or(Seq::ZERO, |begin| begin.least);
    let head = front.begin.filter(|begin| begin.is_there).and_then(|begin| run_at(runs, begin.at));
    if let Some(head) = head {
        // What precedes the beginning of the log is no part of it, even if it leads there.
        for strand in &mut rest {
            if let Some(from) = strand.runs.iter().position(|&run| run == head) {
                strand.runs.drain(..from);
                strand.first = strand.first.max(least);
            }
        }
    }
    let mut log = Log { least, most: Seq::MAX, ..Log::default() };
    rest.retain(|strand| strand.last >= least);
    rest.sort_by_key(|strand| std::cmp::Reverse(strand.records));
    let is_end = |strand: &Strand| {
        let last = strand.runs.last().map(|&last| &runs[last]);
        last.is_some_and(|last| last.commits > 0 && Some(last.commit_end) == front.tail)
    };
    let mut believed = Believed::default();
    let (sure, rest): (Vec<Strand>, Vec<Strand>) =
        rest.into_iter().partition(|strand| head.is_some_and(|head| strand.runs.contains(&head)) || is_end(strand));
    let mut unsure = Vec::new();
    let mut led_to = Vec::new();
    for strand in rest {
        if leads.as_mut().is_some_and(|leads| strand.runs.iter().any(|&run| leads(&runs[run]))) {
            led_to.push(strand)
        } else {
            unsure.push(strand)
        }
    }
    for strand in sure.into_iter().chain(led_to) {
        if believed.has_room_for(&strand, 0, front) {
            believed.believe(strand);
        } else {
            log.doubtful += strand.records;
        }
    }
    for strand in unsure {
        let is_first = believed.by_number.is_empty() && front.begin.is_none();
        let room = if strand.commits >= MANY { 0 } else { 2 };
        let is_enough = strand.commits >= MANY || strand.commits > 0 && leads.is_none();
        let fits = || is_enough && believed.has_room_for(&strand, room, front);
        let is_older = front.begin.is_none() && believed.by_number.range(strand.last..).next().is_some();
        let is_stale = || is_older && strand.runs.last().is_some_and(|&last| is_reused(reader, runs, last));
        if is_first || fits() && !is_stale() {
            believed.believe(strand);
        } else {
            log.doubtful += strand.records;
        }
    }
    log.put_together(&believed, &links, runs, front);
    log
}

/// Whether the space after a run is used for something else by now, so that the run lies in space that was freed: space
/// is freed in the order of the log.
fn is_reused(reader: &Reader, runs: &[Run], run: usize) -> bool {
    let at = align_block(runs[run].goes_on_at);
    let magic = reader.word(at).to_le_bytes();
    let is_other = [REGION_MAGIC, MAP_TABLE_MAGIC, SPACE_TABLE_MAGIC].contains(&magic);
    // A damaged record may lie that close to an extent of something else; then the log goes on before it.
    let next = runs.partition_point(|other| other.start < runs[run].goes_on_at);
    match runs.get(next).map(|next| next.start) {
        Some(next) if next < at => false,
        next => is_other || next == Some(at),
    }
}

impl Log {
    /// Puts the strands one after the other.
    fn put_together(&mut self, believed: &Believed, links: &[Option<Link>], runs: &[Run], front: &Front) {
        let begin = front.begin.filter(|begin| begin.is_there);
        let mut before: Option<usize> = None;
        for &at in believed.by_number.values().flat_map(|strand| &strand.runs) {
            let run = &runs[at];
            let link = before.and_then(|before| links[before].as_ref().filter(|link| link.to == at));
            let is_direct = link.is_some_and(|link| link.damaged.is_empty());
            if let Some(before) = before.map(|before| &runs[before]).filter(|_| !is_direct) {
                self.holes.push(Hole {
                    before: self.pieces.len(),
                    at: before.goes_on_at,
                    damaged: link.map_or_else(Vec::new, |link| link.damaged.clone()),
                    after_number: before.last,
                    is_open: before.is_open,
                    next_number: run.first,
                });
            }
            let from =
                begin.map(|begin| begin.at).filter(|at| self.pieces.is_empty() && (run.start..run.end).contains(at));
            self.pieces.push(Piece { run: at, from: from.unwrap_or(run.start) });
            before = Some(at);
        }
        self.lacks_its_beginning = match begin {
            Some(begin) => self.pieces.first().is_some_and(|first| first.from != begin.at),
            None => true,
        };
        if let Some(last) = before.map(|last| &runs[last]) {
            // A commit without its last record was not committed, unless the front says that it was.
            let was_committed = !last.is_open || front.last >= Some(last.last);
            self.most = if was_committed { last.last } else { last.last.before() };
            let reached = last.last_commit.unwrap_or_default();
            let is_at_end = front.last.is_none_or(|known| reached >= known) || Some(last.commit_end) == front.tail;
            self.lacks_its_end = !is_at_end || last.is_open && was_committed;
            let is_whole = self.holes.is_empty() && !self.lacks_its_end && !self.lacks_its_beginning;
            self.commit = Some(reached).filter(|_| is_whole);
        } else {
            self.lacks_its_end = front.last.is_none_or(|last| last >= self.least);
        }
    }
}
